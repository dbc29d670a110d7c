"""JSON lines to packed sequences."""
