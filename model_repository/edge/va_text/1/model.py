"""va_text: valence and arousal of one text, from its words' norms and its vector.

Code in edge_models.valence_arousal.
"""

from edge_models.valence_arousal import VaText


class TritonPythonModel(VaText):
    """The class that the model server looks for."""
