"""compose_music in the edge profile (code in edge_models.music.serving, the same in both profiles)."""

from edge_models.music.serving import EdgeComposer


class TritonPythonModel(EdgeComposer):
    """The class that the model server looks for."""
