"""The composers of the full profile at a tiny size: AudioLDM 2 with the published frames a second, an image aligner,
and questions as the pipeline asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edge_models.triton_model import strings
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from networks.aligner import ImageAligner
from tests.models import tiny

VECTOR = 24
"""Numbers in a picture's vector."""
CAPTION = "a quiet evening by the sea"


def parts() -> dict[str, Any]:
    """As `tiny.audioldm2_parts`, with 160 samples a frame of log-mel as published, so that seconds are seconds."""
    made = tiny.audioldm2_parts()
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8,
            sampling_rate=16000,
            upsample_initial_channel=16,
            upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[10, 8, 8, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3]],
            normalize_before=False,
        )
    )
    return made | {"vocoder": tiny.randomise(vocoder, 9, 0.3)}


def aligner(tokens: int = 4, vector: int = VECTOR) -> ImageAligner:
    """A picture's vector of so many numbers becomes tokens as wide as the tiny GPT-2."""
    made: ImageAligner = tiny.randomise(ImageAligner(tokens, vector, 16, vector, 20), 5)
    return made


def weights(folder: Path) -> Path:
    """Both in folders as the weights' fetch leaves them: `audioldm2` and `aligner`."""
    save(folder / "audioldm2", folder / "aligner")
    return folder


def save(audioldm2: Path, aligned: Path, vector: int = VECTOR) -> None:
    """AudioLDM 2 and an image aligner for vectors of so many numbers, each into its folder."""
    tiny.save_audioldm2(audioldm2, parts())
    aligned.mkdir(exist_ok=True)
    torch.save(aligner(vector=vector).state_dict(), aligned / "projection.pt")


def picture(seed: int = 0) -> Any:
    """A picture's vector of unit length."""
    made = np.random.default_rng(seed).normal(size=VECTOR).astype(np.float32)
    return made / np.linalg.norm(made)


def question(
    seconds: float = 5.0, seed: int = 0, vector: Any = None, live: bool = True, **wishes: Any
) -> dict[str, Any]:
    """compose_music's tensors."""
    return {
        "RGB": np.full((5, 3), 100, np.float32),
        "VA": np.full((5, 2), 0.6, np.float32),
        "MEASUREMENTS": strings(*["{}"] * 5),
        "TEXTS": strings(*["part of it"] * 4, CAPTION),
        "VECTOR": picture() if vector is None else vector,
        "SECONDS": np.array([seconds], np.float32),
        "SEED": np.array([seed], np.int64),
        "WISHES": strings(json.dumps(wishes)),
        "LIVE": np.array([live]),
    }
