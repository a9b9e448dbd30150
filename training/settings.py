"""How the two trainings run: their settings with the papers' values as defaults. No torch, so that the command line
can say them everywhere.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

MixedPrecision = Literal["no", "bf16", "fp16"]
Matching = Literal["random", "fixed"]


@dataclass(frozen=True, slots=True)
class AlignerSettings:
    """How the aligner is trained. The defaults are the paper's where it names them.

    Attributes:
        tokens: N, tokens a picture becomes.
        steps: of the optimiser; the paper's 37,200 are 50 epochs of ArtSound at batch 128.
        warmup: steps until the learning rate is reached.
        learning_rate: of AdamW, whose other settings are torch's.
        batch: pairs a step, over all processes.
        micro_batch: pairs computed at once in one process; smaller ones need less memory and add up to the same step.
        gamma: of min-SNR.
        clip: the gradient's largest norm.
        dropout: share of pictures that are replaced by none.
        precision: `no` is fp32 throughout.
        seed: of everything that is drawn.
        validate_every, sample_every, checkpoint_every: steps between them; 0: never, but at the end.
        samples: how many validation pictures get music.
        sample_steps: of DDIM, for samples.
        guidance: for samples.
        most_bad: the share of rows that may be bad.
        hidden_size: of the aligner; the published one.
    """

    tokens: int = 16
    steps: int = 37_200
    warmup: int = 1_324
    learning_rate: float = 2e-5
    batch: int = 128
    micro_batch: int | None = None
    gamma: float = 5.0
    clip: float = 1.0
    dropout: float = 0.1
    precision: MixedPrecision = "no"
    seed: int = 0
    validate_every: int = 500
    sample_every: int = 2_000
    checkpoint_every: int = 500
    samples: int = 4
    sample_steps: int = 200
    guidance: float = 3.5
    most_bad: float = 0.05
    hidden_size: int = 1536


@dataclass(frozen=True, slots=True)
class VaSettings:
    """How MMVA is trained. The defaults are the paper's.

    Attributes:
        epochs: passes over the more numerous of pictures and clips.
        batch: triples a step.
        learning_rate, weight_decay: of AdamW.
        matching: `random` pairs every step, or pairs `fixed` beforehand (ablation "no random matching").
        similarity: whether similarity is predicted (False: ablation "no similarity predictor").
        dropout: of the predictors.
        seed: of everything that is drawn.
        validate_every, checkpoint_every: steps between them; 0: at the end only.
        most_bad: the share of rows that may be bad.
        hidden: of the predictors; the published size.
    """

    epochs: int = 1000
    batch: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    matching: Matching = "random"
    similarity: bool = True
    dropout: float = 0.5
    seed: int = 0
    validate_every: int = 500
    checkpoint_every: int = 500
    most_bad: float = 0.05
    hidden: int = 512


class RunError(ValueError):
    """A run that cannot begin or go on. The message says why and what to do."""


AnySettings = AlignerSettings | VaSettings


def document_of(settings: AnySettings) -> dict[str, Any]:
    """As a run keeps them."""
    return {"kind": "aligner" if isinstance(settings, AlignerSettings) else "va", **asdict(settings)}


def described(kind: type[AnySettings]) -> dict[str, str]:
    """What each setting means: the `Attributes` of its docstring."""
    lines = (kind.__doc__ or "").partition("Attributes:")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n        (?=\w[\w, ]*: )", lines)[1:]:
        names, _, meaning = " ".join(entry.split()).partition(": ")
        found |= dict.fromkeys(names.split(", "), meaning)
    return found


def add_options(parser: argparse.ArgumentParser, kind: type[AnySettings]) -> None:
    """An option for each setting: `--learning-rate`, and `--no-similarity` for what is true by default."""
    meanings, types = described(kind), get_type_hints(kind)
    for field in fields(kind):
        option, default = field.name.replace("_", "-"), field.default
        assert default is not MISSING
        meaning = meanings.get(field.name, "").replace("%", "%%")
        if isinstance(default, bool):
            parser.add_argument(f"--no-{option}", dest=field.name, action="store_false", help=f"not: {meaning}")
            continue
        choices = get_args(types[field.name]) if isinstance(default, str) else None
        number = float if isinstance(default, float) else int
        parser.add_argument(
            f"--{option}",
            type=str if choices else number,
            choices=choices,
            default=default,
            help=f"{meaning} (default: {default})",
        )


def settings_from(kind: type[AnySettings], given: Mapping[str, Any]) -> Any:
    """Settings out of parsed options."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})
