"""compose_music of the full profile: Art2Mus (code in full_models.art2mus)."""

from full_models.art2mus import Art2MusModel


class TritonPythonModel(Art2MusModel):
    """The class that the model server looks for."""
