"""Core ML packages, read from disk and evaluated in NumPy."""
