"""embed_sound in the full profile: ImageBind's vector of the sound (code in full_models.embedding)."""

from full_models.embedding import EmbedSound


class TritonPythonModel(EmbedSound):
    """The class that the model server looks for."""
