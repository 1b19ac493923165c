"""Writing: token after token, from a graph in PyTorch or ONNX Runtime."""
