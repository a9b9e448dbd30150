"""The embedded stack's secrets: made on first start, kept in `<data>/secrets.json`, for the owner alone.

They travel in the environment of the processes that need them, never on a command line, in a log or in an
error's text. External parts get their credentials through `Settings` and do not use this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from promenade.supervisor.errors import SecretsUnsafe, StackError, check_folder

FILE_NAME: Final = "secrets.json"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Secrets(BaseModel):
    """Credentials of the embedded object store."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    s3_access_key: SecretStr
    s3_secret_key: SecretStr


def load_or_make_secrets(data: Path) -> Secrets:
    """The secrets of the data folder `data`; made, with the folder, where there are none yet.

    Raises SecretsUnsafe where the file is open to others, belongs to someone else, or does not parse, and StackError
    where the folder cannot be made or written.
    """
    check_folder(data)
    path = data / FILE_NAME
    if not path.exists():
        try:
            if not data.exists():
                # A folder that a person made keeps its rights: the secrets' own are enough.
                data.mkdir(mode=0o700, parents=True)
            _write(path, _new_secrets())
        except OSError as error:
            why = error.strerror or error
            raise StackError(f"{data} cannot hold data ({why}): give another folder with --data.") from None
    return _read(path)


def load_secrets(data: Path) -> Secrets | None:
    """The secrets of `data`, or None where the stack never started there. Raises as load_or_make_secrets."""
    path = data / FILE_NAME
    return _read(path) if path.exists() else None


def _new_secrets() -> dict[str, str]:
    return {
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_urlsafe(30),
    }


def _write(path: Path, values: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(values, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        # link, not replace: of two first starts at once, one wins and the other reads the winner's file.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Secrets:
    facts = path.stat()
    if facts.st_uid != os.getuid():
        raise SecretsUnsafe(f"{path} belongs to another user: give a data folder of your own (--data).")
    if facts.st_mode & _OTHERS:
        raise SecretsUnsafe(
            f"{path} can be read by others (mode {stat.S_IMODE(facts.st_mode):04o}). If nobody has read it: "
            f"chmod 600 {path}. Otherwise stop the stack and delete the file: new secrets are made at the next start."
        )
    folder = path.parent.stat()
    if folder.st_mode & _OTHERS_WRITE:
        raise SecretsUnsafe(
            f"{path.parent} can be written by others (mode {stat.S_IMODE(folder.st_mode):04o}), so they could "
            f"replace the secrets: chmod 700 {path.parent}"
        )
    try:
        return Secrets.model_validate(json.loads(path.read_text()))
    except (ValueError, ValidationError):
        # The parser's own text could quote the file, so it is left out.
        raise SecretsUnsafe(
            f"{path} does not parse as secrets. Stop the stack and delete the file: new secrets are made at the "
            "next start, and the data stays readable with them."
        ) from None
