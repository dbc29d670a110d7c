"""Packages of Core ML as they are on disk, and an evaluator of their programs in NumPy: slow, and independent of what wrote them."""
