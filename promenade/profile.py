"""Reads the profile file: which models are served, what they read, which spaces they fill.

Some models are nobody's to publish (MMVA's towers, in the full profile). The export that makes them here notes it in
a file beside the profile, full_trained.toml beside full.toml; whoever reads the profile then reads of them too. The
note travels with the profile, into an image for instance, where the models' own folder does not.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.failures import Refused
from schemas.faults import first_fault
from schemas.profile import Profile


class Trained(BaseModel):
    """What was trained and exported here.

    Attributes:
        revision: of the trained weights.
        models: folders of the repository that hold it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str = Field(min_length=1)
    models: tuple[str, ...]


def read_profile(path: Path, towers: bool | None = None) -> Profile:
    """The profile in a TOML file, with what was trained here where there is any.

    Args:
        towers: whether what was trained is served; None: where it is noted.

    Raises:
        Refused: a file is missing or does not fit, with the place that is wrong; or `towers` is True and nothing was
            trained.
    """
    profile = _validated(Profile, path)
    if profile is None:
        raise Refused(f"there is no profile file {path}; set PROMENADE_PROFILE to one.")
    trained = None if towers is False else trained_here(path)
    if towers and trained is None:
        raise Refused(
            f"PROMENADE_TOWERS is set, but beside {path} nothing is noted that was trained: promenade train va, then "
            "promenade export; or unset it."
        )
    return profile if trained is None else profile.with_trained(trained.revision)


def trained_here(path: Path) -> Trained | None:
    """What is noted beside a profile file as trained and exported; None: nothing, or its folders are gone since.

    Raises:
        Refused: the note cannot be read.
    """
    trained = _validated(Trained, path.with_name(f"{path.stem}_trained.toml"))
    repository = path.with_suffix("")
    # In an image the note travels without the repository.
    if trained is None or not repository.is_dir():
        return trained
    there = all(any((repository / model).glob("[0-9]*/model.*")) for model in trained.models)
    return trained if there else None


Form = TypeVar("Form", bound=BaseModel)


def _validated(form: type[Form], path: Path) -> Form | None:
    try:
        with path.open("rb") as file:
            return form.model_validate(tomllib.load(file))
    except FileNotFoundError:
        return None
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"the profile file {path} is not TOML: {error}.") from None
    except ValidationError as error:
        where, words = first_fault(error)
        raise Refused(f"the profile file {path} does not fit at {where}: {words}.") from None
