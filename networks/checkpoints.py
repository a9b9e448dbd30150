"""Reading published checkpoints: one place that knows how such files are wrapped.

Checkpoints differ in how they are stored, not only in names: a plain state, a state under a key beside an
optimiser's, names with the prefix that distributed training leaves. No file is unpickled with code in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WRAPPED = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one of another network. The message says what, where and what to do."""


def state_of(content: object) -> dict[str, Tensor]:
    """The state (name -> tensor) in what a checkpoint file held.

    Raises CheckpointError where there is none.
    """
    while isinstance(content, Mapping):
        inside = next((content[key] for key in WRAPPED if isinstance(content.get(key), Mapping)), None)
        if inside is None:
            break
        content = inside
    if not isinstance(content, Mapping):
        raise CheckpointError(f"no state of a network but {type(content).__name__}")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError("no tensors in it")
    if all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    return state


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state in a checkpoint file, on the CPU: `.safetensors`, or what torch.save wrote.

    Raises CheckpointError where the file is missing or holds no state, or more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return state_of(load_file(path))
        # Mapped, so that a checkpoint of several gigabytes is not read twice.
        return state_of(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def compare_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str) -> None:
    """Raise CheckpointError, naming the first few differences, unless names and shapes are those expected."""
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is not known" for name in found if name not in expected]
    faults += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if faults:
        more = f", and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"this is no checkpoint of {what}: {', '.join(faults[:5])}{more}")


def pretrained(kind: Any, folder: Path, **named: Any) -> Any:
    """A network of transformers or diffusers from a folder, whole: nothing is fetched, nothing left at random.

    The libraries give random numbers to what a checkpoint lacks, and only warn; served, that is noise that looks like
    an answer.

    Args:
        kind: the class.
        folder: holds its configuration and weights.
        named: passed on to its from_pretrained.

    Raises CheckpointError, naming what is missing or of another shape.
    """
    network, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **named)
    lacking = [*report.get("missing_keys", ())]
    lacking += [entry[0] if isinstance(entry, tuple) else entry for entry in report.get("mismatched_keys", ())]
    if lacking:
        names = ", ".join(sorted(map(str, lacking))[:5])
        raise CheckpointError(f"{folder} lacks {len(lacking)} tensors of {kind.__name__}: {names}")
    network.eval()
    return network
