"""measure_sound: what can be measured of a sound (code in edge_models.measuring, the same in both profiles)."""

from edge_models.measuring import MeasureSound


class TritonPythonModel(MeasureSound):
    """The class that the model server looks for."""
