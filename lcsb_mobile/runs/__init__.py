"""A whole run: what it needs, its checkpoints, `simulate` and `verify`."""
