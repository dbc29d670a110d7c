"""ATen graphs as ONNX."""
