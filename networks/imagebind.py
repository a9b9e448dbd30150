"""ImageBind: one space for pictures, sounds and words. The network of the published package, without the rest of it.

Source: Girdhar et al. 2023; weights imagebind_huge.pth (CC BY-NC-SA 4.0). The package `imagebind-unofficial` (no
dependencies installed) holds the authors' network definition; its data loading wants pytorchvideo, decord and
torchaudio, which no longer import beside a current torch, so that only `imagebind.models` is imported here. What goes
in is prepared elsewhere.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from networks.checkpoints import compare_names, read_checkpoint

FILES = ("imagebind_huge.pth", "model.safetensors", "pytorch_model.bin")
"""Names under which the weights are published."""
MODALITIES = ("vision", "audio", "text")
"""Those that Promenade uses; the network has depth, thermal and movement as well."""


class MissingImageBind(RuntimeError):
    """The package with the network's definition, or its weights, cannot be found. The text says what to do."""


@dataclass(frozen=True)
class Sizes:
    """Widths, blocks and heads of the towers; as published by default (imagebind_huge)."""

    out_embed_dim: int = 1024
    vision_embed_dim: int = 1280
    vision_num_blocks: int = 32
    vision_num_heads: int = 16
    text_embed_dim: int = 1024
    text_num_blocks: int = 24
    text_num_heads: int = 16
    audio_embed_dim: int = 768
    audio_num_blocks: int = 12
    audio_num_heads: int = 12
    audio_drop_path: float = 0.1
    depth_embed_dim: int = 384
    depth_num_blocks: int = 12
    depth_num_heads: int = 8
    thermal_embed_dim: int = 768
    thermal_num_blocks: int = 12
    thermal_num_heads: int = 12
    imu_embed_dim: int = 512
    imu_num_blocks: int = 6
    imu_num_heads: int = 8
    imu_drop_path: float = 0.7


HUGE = Sizes()
TINY = Sizes(
    vision_embed_dim=16, vision_num_blocks=1, vision_num_heads=2,
    text_embed_dim=16, text_num_blocks=1, text_num_heads=2,
    audio_embed_dim=16, audio_num_blocks=1, audio_num_heads=2,
    depth_embed_dim=16, depth_num_blocks=1, depth_num_heads=2,
    thermal_embed_dim=16, thermal_num_blocks=1, thermal_num_heads=2,
    imu_embed_dim=16, imu_num_blocks=1, imu_num_heads=2,
)  # fmt: skip
"""For tests: narrow towers of one block whose vectors have the published length."""


def build(sizes: Sizes = HUGE, device: str = "cpu") -> nn.Module:
    """The network with random weights, in evaluation mode.

    Args:
        sizes: of its towers.
        device: "meta" makes it without memory, to count or to be filled.

    Raises:
        MissingImageBind: the package is not installed.
    """
    with torch.device(device), _NumbersAreReal():
        network: nn.Module = _definition().ImageBindModel(**asdict(sizes))
    return network.eval()


def load(folder: Path) -> nn.Module:
    """The network with the weights of a folder, float32, in evaluation mode.

    The folder holds one of `FILES`, and a `sizes.json` where it is not the published size. The file is mapped: what
    is not used of it takes no memory.

    Raises:
        MissingImageBind: the package or the file is missing.
        CheckpointError: the file's parameters are not this network's.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise MissingImageBind(
            f"there are no weights of ImageBind in {folder} (one of {', '.join(FILES)}); "
            "run: promenade models fetch --profile full"
        )
    stated = folder / "sizes.json"
    sizes = Sizes(**json.loads(stated.read_text(encoding="utf-8"))) if stated.is_file() else HUGE
    network = build(sizes, device="meta")
    state = read_checkpoint(path)
    compare_names(network.state_dict(), state, f"ImageBind ({path})")
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return network


def save(network: nn.Module, sizes: Sizes, folder: Path) -> None:
    """Write a network as `load` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / FILES[0])
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)), encoding="utf-8")


class _NumbersAreReal(TorchFunctionMode):
    """The network reads each block's drop rate from a small tensor, whose numbers the meta device does not have."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        """Make such tensors on the CPU; everything else as asked."""
        given = dict(named or {})
        if function is torch.linspace:
            given["device"] = "cpu"
        return function(*arguments, **given)


@lru_cache(maxsize=1)
def _definition() -> Any:
    """The package's module of the network.

    Its parent package imports the data loading, and the network takes two small functions from timm, which wants
    torchvision. Both have stand-ins while it is imported, and none afterwards.
    """
    found = importlib.util.find_spec("imagebind")
    if found is None or not found.submodule_search_locations:
        raise MissingImageBind(
            "the package imagebind-unofficial, which holds ImageBind's network, is not installed: "
            "pip install --no-deps --require-hashes -r locks/imagebind.txt"
        )
    parent = types.ModuleType("imagebind")
    parent.__path__ = list(found.submodule_search_locations)
    layers = types.ModuleType("timm.layers")
    layers.DropPath = _DropPath  # type: ignore[attr-defined]
    layers.trunc_normal_ = nn.init.trunc_normal_  # type: ignore[attr-defined]
    timm = types.ModuleType("timm")
    timm.layers = layers  # type: ignore[attr-defined]
    with _standing_in({"imagebind": parent, "timm": timm, "timm.layers": layers}):
        return importlib.import_module("imagebind.models.imagebind_model")


@contextlib.contextmanager
def _standing_in(modules: Mapping[str, types.ModuleType]) -> Iterator[None]:
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


class _DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): while training, a sample's branch is left out with this probability."""

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """The values; in training some samples are zero and the others scaled up."""
        if not self.training or self.probability == 0:
            return values
        kept = 1 - self.probability
        chosen = values.new_empty((len(values), *([1] * (values.ndim - 1)))).bernoulli_(kept)
        return values * chosen / kept


def tokeniser() -> Any:
    """The package's own tokeniser, for comparison: a text -> int64 [77].

    Raises:
        MissingImageBind: the package is not installed.
    """
    _definition()
    package = sys.modules["imagebind.models.multimodal_preprocessors"]
    found = importlib.util.find_spec("imagebind")
    folders = list(found.submodule_search_locations or ()) if found else []
    return package.SimpleTokenizer(bpe_path=str(Path(folders[0]) / "bpe" / "bpe_simple_vocab_16e6.txt.gz"))
