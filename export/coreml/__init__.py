"""From captured graphs to one Core ML package of many functions."""
