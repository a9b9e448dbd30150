"""The weights of a profile: which there are, under which licence, where they lie, and whether they are whole.

The list is a TOML file beside the model repository (`model_repository/full_weights.toml`). Below the weights folder
each entry has a folder of its own, with plain files as `from_pretrained` reads them:

    weights/Organisation--Name/<revision>/      of a hub
    weights/<name>/<revision>/                  of a web address, or brought by hand
    .../fetched.json                            written last: the folder is complete
    weights/agreed.json                         non-commercial licences that a person agreed to

Nothing here speaks to a network; `promenade.models_fetch` does.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas.failures import Refused
from schemas.faults import first_fault
from schemas.records import now

MARKER: Final = "fetched.json"
UNFINISHED: Final = ".fetching.json"
AGREED: Final = "agreed.json"
_BLOCK: Final = 1 << 20

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Tell = Callable[[int], None]
"""Is told how many bytes were done since the last time; less than zero: so many are done again."""


class Entry(BaseModel):
    """One set of weights: a pinned revision of a hub's repository, a file at a web address, or one got by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    repository: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", description="of a hub")
    address: str | None = Field(default=None, description="web address of the one file")
    page: str | None = Field(default=None, description="where a person finds the one file that no program can fetch")
    revision: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="of a hub: the whole commit")
    files: tuple[str, ...] = Field(
        min_length=1, description="patterns; each must fit a file, `a|b`: the first of these that does"
    )
    sha256: dict[str, Sha256] = Field(default={}, description="file -> checksum that it must have")
    size: int = Field(gt=0, description="bytes of all files, nearly")
    licence: str
    non_commercial: bool = Field(description="the licence, or what it was trained on, allows no commercial use")
    needed_by: tuple[str, ...] = Field(min_length=1, description="models of the profile that read it")
    optional: str = Field(default="", description="when it is wanted; empty: always")
    source: str = Field(min_length=1, description="where revision, checksums, size and licence were read")

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if sum(each is not None for each in (self.repository, self.address, self.page)) != 1:
            raise ValueError(f"{self.name}: give one of repository, address and page")
        if self.repository is not None and (len(self.revision) != 40 or set(self.revision) - set("0123456789abcdef")):
            raise ValueError(f"{self.name}: the revision of a hub's repository is the whole commit, 40 letters")
        if self.repository is None and (len(self.files) != 1 or set(self.files[0]) & set("*?[|")):
            raise ValueError(f"{self.name}: give the one file's name")
        if self.address is not None and set(self.sha256) != set(self.files):
            raise ValueError(f"{self.name}: a file at a web address needs its checksum")
        return self

    @property
    def place(self) -> PurePosixPath:
        """Its folder below the weights folder."""
        return PurePosixPath((self.repository or self.name).replace("/", "--")) / self.revision

    def folder(self, root: Path) -> Path:
        """Where its files lie."""
        return root / self.place


class WeightsList(BaseModel):
    """All weights of a profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Name
    weights: tuple[Entry, ...]

    @model_validator(mode="after")
    def _names_are_unlike(self) -> Self:
        names = [each.name for each in self.weights]
        if len(names) != len(set(names)):
            raise ValueError("two entries have one name")
        return self

    def chosen(self, names: Sequence[str]) -> list[Entry]:
        """The entries of these names; without any, all that are not optional.

        Raises:
            Refused: there is none of that name.
        """
        known = {each.name: each for each in self.weights}
        for name in names:
            if name not in known:
                raise Refused(f"the profile {self.profile} has no weights {name!r}; it has {', '.join(known)}.")
        return [known[name] for name in dict.fromkeys(names)] or [each for each in self.weights if not each.optional]


def read_list(path: Path) -> WeightsList:
    """The list in a TOML file.

    Raises:
        Refused: it is missing or does not fit, with the place that is wrong.
    """
    try:
        return WeightsList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise Refused(f"there is no list of weights {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"the list of weights {path} is not TOML: {error}.") from None
    except ValidationError as error:
        where, words = first_fault(error)
        raise Refused(f"the list of weights {path} does not fit at {where}: {words}.") from None


class FetchedFile(BaseModel):
    """One file as it was fetched."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: Sha256
    checked: Literal["list", "source", "nothing"] = Field(
        description="what its checksum was compared with: the list of weights, what its source says, nothing"
    )


class Fetched(BaseModel):
    """The note in a complete folder."""

    model_config = ConfigDict(frozen=True)

    name: str
    source: str
    revision: str
    licence: str = ""
    files: dict[str, FetchedFile]
    fetched: datetime = Field(default_factory=now)


State = Literal["there", "begun", "missing"]


def note_of(folder: Path) -> Fetched | None:
    """The note of a folder whose files are all there with their sizes; None otherwise."""
    try:
        note = Fetched.model_validate_json((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == file.size for name, file in note.files.items())
    except (OSError, ValueError):
        return None
    return note if whole and note.files else None


def state_of(entry: Entry, root: Path) -> State:
    """Whether the weights are there."""
    folder = entry.folder(root)
    if note_of(folder) is not None:
        return "there"
    return "begun" if folder.is_dir() and any(folder.iterdir()) else "missing"


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def hashed(path: Path, tell: Tell | None = None) -> tuple[str, str]:
    """SHA-256 of a file, and the SHA-1 under which git keeps it, both in hexadecimal."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            git.update(block)
            if tell is not None:
                tell(len(block))
    return sha256.hexdigest(), git.hexdigest()


def damaged(folder: Path, note: Fetched, tell: Tell | None = None) -> list[str]:
    """Files of a complete folder whose bytes are not those that were fetched."""
    return [name for name, file in note.files.items() if hashed(folder / name, tell)[0] != file.sha256]


def chosen_files(entry: Entry, present: Iterable[str]) -> list[str]:
    """Which of the files that a source holds belong to the entry, in order of their names.

    Raises:
        Refused: a pattern fits none, or the source names a file outside its folder.
    """
    names = sorted(name for name in present if name != MARKER)
    found: set[str] = set()
    for pattern in entry.files:
        fitting = (fnmatch.filter(names, each) for each in pattern.split("|"))
        some = next((each for each in fitting if each), None)
        if some is None:
            raise Refused(f"{entry.name} {entry.revision} has no file {pattern.replace('|', ' or ')}.")
        found |= set(some)
    for name in found:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise Refused(f"{entry.name} {entry.revision} names a file outside its folder: {name!r}.")
    return sorted(found)


def missing_shards(folder: Path, names: Iterable[str]) -> list[str]:
    """Files that an index of weights among `names` speaks of and that are not among them."""
    held = set(names)
    missing: set[str] = set()
    for name in held:
        if not name.endswith(".index.json"):
            continue
        try:
            weights = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values()
            missing |= {str(PurePosixPath(name).parent / shard) for shard in weights} - held
        except (ValueError, KeyError, AttributeError, TypeError):
            raise Refused(f"{folder / name} is no index of weights; remove the folder and fetch it again.") from None
    return sorted(missing)


class Agreement(BaseModel):
    """A non-commercial licence that a person agreed to."""

    model_config = ConfigDict(frozen=True)

    name: str
    licence: str
    agreed: datetime = Field(default_factory=now)


class Agreements:
    """What was agreed to, remembered in the weights folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / AGREED

    def read(self) -> list[Agreement]:
        """All of them; none where the file is missing or cannot be read, so that the question is asked again."""
        try:
            return [Agreement.model_validate(each) for each in json.loads(self._path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Entries under a non-commercial licence that nobody agreed to yet; another licence is asked for anew."""
        agreed = {(each.name, each.licence) for each in self.read()}
        return [each for each in entries if each.non_commercial and (each.name, each.licence) not in agreed]

    def remember(self, entries: Iterable[Entry]) -> None:
        """A person said yes to these."""
        kept = [*self.read(), *(Agreement(name=each.name, licence=each.licence) for each in entries)]
        write_whole(self._path, json.dumps([each.model_dump(mode="json") for each in kept], indent=1) + "\n")
