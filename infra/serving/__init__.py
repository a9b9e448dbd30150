"""The serving environment: the CPU ONNX backend, the launch of Triton, what the Python models share."""
