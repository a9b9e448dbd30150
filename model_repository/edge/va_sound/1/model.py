"""va_sound: valence and arousal of one sound or one part of one, from its measurement.

Code in edge_models.valence_arousal.
"""

from edge_models.valence_arousal import VaSound


class TritonPythonModel(VaSound):
    """The class that the model server looks for."""
