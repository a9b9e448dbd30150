"""measure_picture: what can be measured of a picture (code in edge_models.measuring, the same in both profiles)."""

from edge_models.measuring import MeasurePicture


class TritonPythonModel(MeasurePicture):
    """The class that the model server looks for."""
