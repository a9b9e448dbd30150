"""compose_edge: the edge composer under the full profile (code in edge_models.music.serving)."""

from edge_models.music.serving import EdgeComposer


class TritonPythonModel(EdgeComposer):
    """The class that the model server looks for."""
