"""embed_text in the full profile: ImageBind's vector of the text (code in full_models.embedding)."""

from full_models.embedding import EmbedText


class TritonPythonModel(EmbedText):
    """The class that the model server looks for."""
