"""score_caption in the full profile: ICScore and ACScore (code in full_models.caption_scores)."""

from full_models.caption_scores import ScoreCaption


class TritonPythonModel(ScoreCaption):
    """The class that the model server looks for."""
