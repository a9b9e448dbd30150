"""TensorRT plans of the full profile's networks, made in NVIDIA's container for the GPU that will run them."""
