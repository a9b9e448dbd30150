"""va_sound in the full profile: valence and arousal of a sound (code in full_models.valence_arousal)."""

from full_models.valence_arousal import VaSound


class TritonPythonModel(VaSound):
    """The class that the model server looks for."""
