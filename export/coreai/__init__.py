"""From captured graphs to one Core AI asset of many functions."""
