"""The training loop, AdamW, the state of a run in mapped files, and the recorded steps that a runtime is held to."""
