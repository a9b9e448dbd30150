"""What the full profile's models share: where their weights lie, preprocessing, exports to ONNX, scores.

The networks themselves are in `networks`; the models' own folders are in model_repository/full; what every Python
model is made of (rows in, rows out) is `edge_models.triton_model`.
"""
