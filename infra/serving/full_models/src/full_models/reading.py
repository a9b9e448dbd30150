"""Which reading of valence and arousal the full profile serves: MMVA's towers, or the edge profile's rules.

MMVA publishes no weights. Until its towers are trained and exported (`promenade train va`, `promenade export`) the
models that lean on them read by rule, and say so in their versions. All towers or none: points of different readings
cannot be compared. The export notes a whole set of towers of one training in the repository; every model looks for
that note when it is loaded. The setting `towers` (`full_models.weights`) overrules it: `no` reads by rule all the
same, `yes` refuses to start without towers, `auto` is the default. The embedded stack sets it once at its start, so
that a model that is loaded again later reads as the others do.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from full_models.weights import BadChoice, Choices

TOWERS: Final = ("mmva_picture", "mmva_sound", "mmva_text", "mmva_similarity")
"""The networks that are there only where they were trained."""
BY_RULE: Final = "+edge-va"
"""Ends the version of what leans on valence and arousal read as in the edge profile (full.toml)."""
_NOTE: Final = "towers.built.json"
"""In the version folder of va_text."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How valence and arousal are read.

    Attributes:
        revision: of MMVA's trained weights; empty: by rule.
    """

    revision: str

    @property
    def by_towers(self) -> bool:
        """True for MMVA's towers."""
        return bool(self.revision)

    @property
    def name(self) -> str:
        """`mmva` with its revision, or `edge`."""
        return f"mmva@{self.revision}" if self.revision else "edge"

    def version(self, stated: str) -> str:
        """The version of a model that leans on this reading, as the profile names it.

        Args:
            stated: in its config.pbtxt.
        """
        return f"{stated}@{self.revision}" if self.revision else f"{stated}{BY_RULE}"


def note_path(repository: Path) -> Path:
    """Where the export notes a whole set of towers."""
    return repository / "va_text" / "1" / _NOTE


def noted(repository: Path) -> str:
    """The revision of the towers in a repository; empty where there is no whole set."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads(note_path(repository).read_text(encoding="utf-8")).get("revision", ""))
    return ""


def reading_of(choices: Choices, folder: Path) -> Reading:
    """The reading that a model takes.

    Args:
        choices: the model's.
        folder: its version folder, in the repository that is asked.

    Raises:
        BadChoice: `towers` is something else than auto, yes or no, or yes where there are none.
    """
    wanted = choices.text("towers", "auto")
    if wanted not in ("auto", "yes", "no"):
        raise BadChoice(f"towers of {choices.model} is {wanted!r}: give auto, yes or no")
    revision = "" if wanted == "no" else noted(folder.absolute().parents[1])
    if wanted == "yes" and not revision:
        raise BadChoice(
            f"{choices.model} is to read by MMVA's towers, which are not made: promenade train va, export"
        )
    return Reading(revision)
