"""Vectors of CLIP and CLAP from the served networks, for those that score or condition with them.

CLIP ViT-B/32 puts pictures and texts in one space (CMEAN's Table IV; Art2Mus with CLIP), CLAP sounds and texts
(CMEAN's Table III). A score of two is the cosine of their vectors, which have unit length. `call` is
`RowModel.call` inside a model, or anything alike outside (tensors with the batch dimension in, named outputs back).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from edge_models.triton_model import Array, Call

from full_models import calls, clap_inputs, pictures
from full_models.text_tokens import CONTEXT, ClipTokens, pieces
from full_models.valence_arousal import SAMPLE_RATE, PairTokens


def clip_pictures(call: Call, images: Sequence[bytes]) -> Array:
    """Encoded pictures -> CLIP's vectors, float32 [n, 512]. Raises Invalid where one cannot be decoded."""
    return calls.run(call, "clip_picture", {"pixels": np.stack([pictures.network_input(each) for each in images])})


def clip_texts(call: Call, tokens: ClipTokens, texts: Sequence[str]) -> Array:
    """Texts -> CLIP's vectors, float32 [n, 512]; a long text is read in pieces, which count by their tokens."""
    cut = [pieces(each, lambda part: len(tokens.numbers(part)), CONTEXT - 2) for each in texts]
    numbers = [[tokens.numbers(piece) for piece in text] for text in cut]
    rows = np.stack([tokens.row(piece) for text in numbers for piece in text])
    vectors = iter(calls.run(call, "clip_text", {"tokens": rows}))
    return np.stack(
        [
            calls.averaged(np.stack([next(vectors) for _ in text]), [len(piece) + 2 for piece in text])
            for text in numbers
        ]
    )


def clap_sounds(call: Call, sounds: Sequence[Array]) -> Array:
    """Sounds, mono 16 kHz, at least one sample each -> CLAP's vectors, float32 [n, 512], over their whole length."""
    import soxr

    clips = [clap_inputs.clips_of(soxr.resample(each, SAMPLE_RATE, clap_inputs.SAMPLE_RATE)) for each in sounds]
    features = np.stack([clap_inputs.features(clip) for own in clips for clip in own])
    vectors = iter(calls.run(call, "clap_sound", {"features": features}))
    return np.stack([calls.averaged(np.stack([next(vectors) for _ in own]), [1.0] * len(own)) for own in clips])


def clap_texts(call: Call, tokens: PairTokens, texts: Sequence[str]) -> Array:
    """Texts that are not empty -> CLAP's vectors, float32 [n, 512]; a long text is read in pieces."""
    cut = [tokens.pieces(each) for each in texts]
    found = [
        calls.averaged(calls.run(call, "clap_text", tokens.tensors(own)), [float(len(piece)) for piece in own])
        for own in cut
    ]
    return np.stack(found)
