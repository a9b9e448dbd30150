"""match_va in the full profile: MMVA's matching score, and its learned one (code in full_models.valence_arousal)."""

from full_models.valence_arousal import Match


class TritonPythonModel(Match):
    """The class that the model server looks for."""
