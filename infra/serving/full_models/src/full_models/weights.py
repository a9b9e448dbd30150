"""How a model of the full profile finds its weights, and which precision, device and batch it runs with.

Every choice is a parameter of the model's config.pbtxt, and the environment of the model server overrules it:

    PROMENADE_<MODEL>_<KEY>     for one model, as in PROMENADE_CAPTION_PICTURE_PRECISION=fp16
    PROMENADE_MODELS_<KEY>      for all models, as in PROMENADE_MODELS_DEVICE=cpu

`weights` (or `weights_<what>` where a model needs several) is a folder that holds them, or `Organisation/Name`,
where wanted with `@revision`: these lie below the weights folder (PROMENADE_WEIGHTS, by default `weights` beside the
model repository), where `promenade models fetch --profile full` puts them:

    weights/Organisation--Name/<revision>/      plain files, as `from_pretrained` reads a folder
    weights/<name without organisation>/<revision>/
    .../fetched.json                            written last: the folder is complete

Nothing is ever downloaded here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "fp16", "bf16"]

MARKER: Final = "fetched.json"
"""Written last by the fetch: a folder without it is incomplete."""

_HOW_TO_FETCH: Final = "promenade models fetch --profile full"
UNPUBLISHED: Final = {"mmva": "promenade train va, then promenade export"}
"""Weights that nobody publishes -> what makes them."""


class MissingWeights(RuntimeError):
    """Weights are not where they should be; the text says which, where they were looked for and what to do."""


class BadChoice(ValueError):
    """A setting of a model cannot be used; the text names it and says what is possible."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that were found.

    Attributes:
        name: what was asked for, as in `Qwen/Qwen2.5-VL-7B-Instruct` or the folder's name.
        folder: holds the files.
        revision: the revision that was fetched; empty for a folder that a setting names.
    """

    name: str
    folder: Path
    revision: str = ""

    def file(self, *names: str) -> Path:
        """The first of these files (relative to the folder) that is there.

        Raises:
            MissingWeights: none is.
        """
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise MissingWeights(
            f"the weights {self.name} in {self.folder} lack {' or '.join(names)}: "
            f"fetch them again ({_HOW_TO_FETCH}), or name a folder that holds them"
        )


class Choices:
    """What was chosen for one model.

    Args:
        model: the model's name in the repository, as in `caption_picture`.
        parameters: `parameters` of its config.pbtxt.
        folder: its version folder (`RowModel.folder`); the weights folder is found from it. None: from the
            environment alone.
        environment: variables; those of the process by default.
    """

    def __init__(
        self,
        model: str,
        parameters: Mapping[str, str],
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self._parameters = parameters
        self._folder = folder
        self._environment = os.environ if environment is None else environment

    def text(self, key: str, default: str | None = None) -> str:
        """A setting as text: of this model, of all models, of config.pbtxt, then the default.

        Raises:
            BadChoice: it is set nowhere and has no default.
        """
        for name in self._variables(key):
            if self._environment.get(name, "").strip():
                return self._environment[name].strip()
        found = self._parameters.get(key, "").strip() or default
        if found is None:
            raise BadChoice(f"{self.model} needs the setting {key}: set {self._variables(key)[0]}")
        return found

    def declared(self, stated: str, settings: Sequence[str], weights: Sequence[str] = ()) -> str:
        """A version with all of this server's own that changes what a model answers.

        Args:
            stated: the version in config.pbtxt.
            settings: keys whose values count where the environment overrules config.pbtxt.
            weights: keys of weights, whose revisions count; a folder without one counts by its files' names, sizes
                and times.

        Returns:
            `1+solver=fast,steps=20,weights=c8e7e189d324`; what would be long is said by its hash.
        """
        parts = {}
        for key in settings:
            chosen = self.text(key, "")
            if chosen != self._parameters.get(key, "").strip():
                parts[key] = chosen if _SHORT.fullmatch(chosen) else _hashed(chosen)
        for key in weights:
            if self.text(key, "none") == "none":
                parts[key] = "none"
                continue
            try:
                found = self.weights(key)
            except MissingWeights:
                parts[key] = "missing"
                continue
            parts[key] = found.revision[:12] or _hashed(_listing(found.folder))
        return f"{stated}+{','.join(f'{key}={parts[key]}' for key in sorted(parts))}" if parts else stated

    def number(self, key: str, default: int, lowest: int = 1) -> int:
        """A setting as a whole number.

        Raises:
            BadChoice: it is not one, or below `lowest`.
        """
        text = self.text(key, str(default))
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise BadChoice(f"{key} of {self.model} is {text!r}: give a whole number of {lowest} or more")
        return value

    def batch(self, default: int) -> int:
        """How many rows the network takes at once."""
        return self.number("batch", default)

    def precision(self, default: Precision = "fp32") -> Precision:
        """Of the network's numbers. Raises BadChoice for anything but fp32, fp16, bf16."""
        text = self.text("precision", default)
        if text not in get_args(Precision):
            raise BadChoice(f"precision of {self.model} is {text!r}: give one of {', '.join(get_args(Precision))}")
        return cast(Precision, text)

    def dtype(self, default: Precision = "fp32") -> torch.dtype:
        """`precision` as torch names it."""
        import torch

        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision(default)]

    def device(self) -> str:
        """`cpu`, `cuda` or `cuda:1`; `auto` (the default) takes a GPU where torch sees one.

        Raises:
            BadChoice: it is none of these, or a GPU is asked for where there is none.
        """
        text = self.text("device", "auto")
        if text == "cpu":
            return text
        if text != "auto" and text != "cuda" and not (text.startswith("cuda:") and text[5:].isdigit()):
            raise BadChoice(f"device of {self.model} is {text!r}: give auto, cpu, cuda or cuda:0, cuda:1 ...")
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if text == "auto":
            return "cuda" if count else "cpu"
        if int(text[5:] or 0) >= count:
            raise BadChoice(f"device of {self.model} is {text}, but torch sees {count} GPUs here; set device to cpu")
        return text

    def weights(self, key: str = "weights", default: str | None = None) -> Weights:
        """The weights that a setting names.

        Raises:
            MissingWeights: they are not there.
            BadChoice: the setting is missing.
        """
        return find(self.text(key, default), needed_by=self.model, setting=self._variables(key)[0], root=self.root())

    def root(self) -> Path:
        """The weights folder: PROMENADE_WEIGHTS, or `weights` beside the model repository's parent folder."""
        named = self._environment.get("PROMENADE_WEIGHTS", "").strip()
        if named:
            return Path(named).expanduser()
        # <clone>/model_repository/full/<model>/<version>
        return self._folder.absolute().parents[3] / "weights" if self._folder is not None else Path("weights")

    def _variables(self, key: str) -> tuple[str, str]:
        return f"PROMENADE_{self.model.upper()}_{key.upper()}", f"PROMENADE_MODELS_{key.upper()}"


def find(value: str, *, needed_by: str, setting: str, root: Path) -> Weights:
    """The weights that a value names: a folder, or a name below `root` (see the module's own words).

    Args:
        value: `/a/folder`, `Organisation/Name` or `Organisation/Name@revision`; a name without organisation is one
            of those that come from no hub.
        needed_by: the model, for the error.
        setting: the variable that could name a folder instead, for the error.
        root: the weights folder.

    Raises:
        MissingWeights: nothing complete lies there, or several revisions do and none is named.
    """
    folder = Path(value).expanduser()
    if folder.is_absolute() or value.startswith((".", "~")):
        if folder.is_dir():
            return Weights(folder.name, folder)
        raise MissingWeights(
            f"{needed_by} needs weights in the folder {folder}, which does not exist; {setting} names it"
        )
    name, _, revision = value.partition("@")
    held = root / name.replace("/", "--")
    fetched = sorted(path.parent for path in held.glob(f"{revision or '*'}/{MARKER}"))
    if len(fetched) == 1:
        return Weights(name, fetched[0], _revision(fetched[0]))
    if fetched:
        raise MissingWeights(
            f"{needed_by} needs the weights {name}, and {held} holds several revisions "
            f"({', '.join(path.name for path in fetched)}): set {setting} to {name}@REVISION"
        )
    how = f"Nobody publishes them; run: {UNPUBLISHED[name]}" if name in UNPUBLISHED else f"Run: {_HOW_TO_FETCH}"
    begun = "only an unfinished download is there" if held.is_dir() else "nothing is there"
    raise MissingWeights(
        f"{needed_by} needs the weights {value}, looked for in {held / (revision or '<revision>')}: {begun}. "
        f"{how} (or set {setting} to a folder that holds them, or PROMENADE_WEIGHTS to where all lie)"
    )


_SHORT: Final = re.compile(r"[\w.-]{1,24}")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _listing(folder: Path) -> str:
    held = sorted((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return "\n".join(f"{path.relative_to(folder)} {state.st_size} {state.st_mtime_ns}" for path, state in held)


def _revision(folder: Path) -> str:
    try:
        return str(json.loads((folder / MARKER).read_text(encoding="utf-8")).get("revision", folder.name))
    except (ValueError, AttributeError):
        return folder.name
