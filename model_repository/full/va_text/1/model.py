"""va_text in the full profile: valence and arousal of a text (code in full_models.valence_arousal)."""

from full_models.valence_arousal import VaText


class TritonPythonModel(VaText):
    """The class that the model server looks for."""
