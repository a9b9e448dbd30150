"""match_va in the full profile: MMVA's matching score (code in full_models.valence_arousal)."""

from full_models.valence_arousal import MatchVa


class TritonPythonModel(MatchVa):
    """The class that the model server looks for."""
