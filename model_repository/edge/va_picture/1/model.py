"""va_picture: valence and arousal of one picture or one part of one, from its measurement.

Code in edge_models.valence_arousal.
"""

from edge_models.valence_arousal import VaPicture


class TritonPythonModel(VaPicture):
    """The class that the model server looks for."""
