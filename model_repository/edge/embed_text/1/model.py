"""embed_text in the edge profile: the vector of the text (code shared in edge_models.text_embedding)."""

from edge_models.text_embedding import TextEmbedding


class TritonPythonModel(TextEmbedding):
    """The class that the model server looks for."""
