"""The slow, plain versions that everything else is held to."""
