"""Fine-tune language models on phones: layer-cyclic training graphs over int4 weights."""

__version__ = "0.1.0"
