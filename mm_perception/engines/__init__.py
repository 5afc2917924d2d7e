"""Running the networks of a bundle: ONNX Runtime, PyTorch, export from one to the other."""
