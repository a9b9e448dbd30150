"""compose_mmva: the nearest description, music (code in full_models.mmva_prompt)."""

from full_models.mmva_prompt import MmvaModel


class TritonPythonModel(MmvaModel):
    """The class that the model server looks for."""
