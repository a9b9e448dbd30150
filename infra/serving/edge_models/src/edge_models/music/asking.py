"""From compose_music's tensors to an `Ask`, or to a refusal in plain words. What is made of it is left to others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_models.music.score import LONGEST, SHORTEST, Ask
from edge_models.triton_model import Array, Invalid, finite, parsed, text

PARTS = 5
INPUTS = ("RGB", "VA", "MEASUREMENTS", "TEXTS", "VECTOR", "SECONDS", "SEED", "WISHES", "LIVE")
WISHES = ("instruments", "key", "tempo")
_LONGEST_VECTOR = 65_536


def read(tensors: Mapping[str, Array]) -> tuple[Ask, bool]:
    """What is asked for, and whether a person waits for it. Tensors as in compose_music's config.pbtxt.

    Raises:
        Invalid: something cannot be composed for; the message names the tensor and says why.
    """
    rgb = _numbers(tensors["RGB"], "RGB", 3, 0.0, 255.0)
    va = _numbers(tensors["VA"], "VA", 2, 0.0, 1.0)
    for name in ("MEASUREMENTS", "TEXTS"):
        if tensors[name].size != PARTS:
            raise Invalid(f"{name} holds {tensors[name].size} values; five are expected, fragments 1-4 and the whole")
    texts = tensors["TEXTS"].reshape(-1)
    for part in range(PARTS):
        text(texts[part : part + 1], f"TEXTS[{part}]")
    given = tensors["MEASUREMENTS"].reshape(-1)
    measurements = [_object(given[part : part + 1], f"MEASUREMENTS[{part}]") for part in range(PARTS)]
    vector = finite(tensors["VECTOR"].reshape(-1), "VECTOR").astype(np.float32)
    if len(vector) > _LONGEST_VECTOR:
        raise Invalid(f"VECTOR holds {len(vector)} numbers; at most {_LONGEST_VECTOR} are read")
    seconds = float(_one(tensors["SECONDS"], "SECONDS"))
    if not SHORTEST <= seconds <= LONGEST:
        raise Invalid(f"seconds must be between {SHORTEST:g} and {LONGEST:g}, not {seconds:g}")
    seed = int(_one(tensors["SEED"], "SEED"))
    if seed < 0:
        raise Invalid(f"seed must be 0 or more, not {seed}")
    instruments, key, tempo = _wishes(_object(tensors["WISHES"], "WISHES"))
    ask = Ask(rgb, va, measurements, vector, seconds, seed, instruments, key, tempo)
    return ask, bool(_one(tensors["LIVE"], "LIVE"))


def _one(value: Array, name: str) -> Any:
    if value.size != 1:
        raise Invalid(f"{name} holds {value.size} values; one is expected")
    return value.reshape(-1)[0]


def _numbers(value: Array, name: str, width: int, low: float, high: float) -> Array:
    if value.shape != (PARTS, width):
        raise Invalid(f"{name} has shape {list(value.shape)}; [{PARTS}, {width}] is expected")
    if not ((finite(value, name) >= low) & (value <= high)).all():
        raise Invalid(f"{name} holds a number outside {low:g} to {high:g}")
    return value.astype(np.float32)


def _object(value: Array, name: str) -> dict[str, Any]:
    given = parsed(value, name) if text(value, name, 1 << 20).strip() else None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Invalid(f"{name} is not a JSON object")
    return given


def _wishes(wishes: Mapping[str, Any]) -> tuple[str | None, tuple[str, str] | None, float | None]:
    unknown = sorted(name for name, wish in wishes.items() if name not in WISHES and wish is not None)
    if unknown:
        raise Invalid(f"the wish {unknown[0]!r:.60} is not known here; {', '.join(WISHES)} are")
    instruments, key, tempo = (wishes.get(name) for name in WISHES)
    if instruments is not None and not isinstance(instruments, str):
        raise Invalid('the wish "instruments" is the name of a family, such as "strings"')
    if key is not None and not (isinstance(key, str) and 1 <= len(key.split()) <= 2):
        raise Invalid('the wish "key" is a tonic and a mode, such as "D minor"')
    if tempo is not None:
        # Compared before it is made a float: JSON may hold integers that no float can.
        if isinstance(tempo, bool) or not isinstance(tempo, int | float) or not 0 < tempo < 1000:
            raise Invalid('the wish "tempo" is a number of beats a minute, such as 96')
        tempo = float(tempo)
        if not math.isfinite(tempo):
            raise Invalid('the wish "tempo" is not finite')
    words = key.split() if key else None
    return instruments, (words[0], words[1].lower() if len(words) > 1 else "major") if words else None, tempo
