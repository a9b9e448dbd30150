"""match_va: MMVA's matching score (code in edge_models.matching)."""

from edge_models.matching import MatchVa


class TritonPythonModel(MatchVa):
    """The class that the model server looks for."""
