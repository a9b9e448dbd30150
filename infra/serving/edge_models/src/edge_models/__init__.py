"""What the edge profile's models share: measuring, captioning, emotion, text vectors, and building the networks.

Runs inside the model server's Python stubs (numpy below 2) and beside the tests (numpy 2). It imports nothing of
the pipeline: what the pipeline knows of these models is their names and tensors.
"""
