"""compose_mozarts_touch: caption, description, music (code in full_models.mozarts_touch)."""

from full_models.mozarts_touch import MozartsTouchModel


class TritonPythonModel(MozartsTouchModel):
    """The class that the model server looks for."""
