"""The machine and the process: memory, cores, phases of a step."""
