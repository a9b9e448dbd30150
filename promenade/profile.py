"""Reads the profile file: which models are served, what they read, which spaces they fill."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from schemas.failures import Refused
from schemas.profile import Profile


def read_profile(path: Path) -> Profile:
    """The profile in a TOML file.

    Raises:
        Refused: it is missing or does not fit, with the place that is wrong.
    """
    try:
        with path.open("rb") as file:
            return Profile.model_validate(tomllib.load(file))
    except FileNotFoundError:
        raise Refused(f"there is no profile file {path}; set PROMENADE_PROFILE to one.") from None
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"the profile file {path} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Refused(f"the profile file {path} does not fit at {where}: {first['msg']}.") from None
