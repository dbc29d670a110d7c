"""What a step costs and a run occupies, before any is run."""
