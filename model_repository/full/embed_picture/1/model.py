"""embed_picture in the full profile: ImageBind's vector of the picture (code in full_models.embedding)."""

from full_models.embedding import EmbedPicture


class TritonPythonModel(EmbedPicture):
    """The class that the model server looks for."""
