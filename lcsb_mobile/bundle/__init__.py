"""A TrainingBundle: its manifest, what is checked of it, its weights, adapter, schedule and recorded steps."""
