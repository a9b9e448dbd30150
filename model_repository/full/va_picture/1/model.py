"""va_picture in the full profile: valence and arousal of a picture (code in full_models.valence_arousal)."""

from full_models.valence_arousal import VaPicture


class TritonPythonModel(VaPicture):
    """The class that the model server looks for."""
