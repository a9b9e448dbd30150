"""The networks that are exported to ONNX: how each is loaded from its weights, and what goes in and comes out.

Needs torch. Each module takes float32 (or int64) tensors and gives float32, whatever precision it computes in, so
that the served tensors are the same for fp32 and fp16. Vectors leave with unit length: ImageBind's own audio and text
vectors are scaled (by 20 and by a learned factor), which a cosine does not see and a store of vectors would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from full_models import clap_inputs, imagebind_inputs, mmva_inputs, pictures
from full_models.text_tokens import CONTEXT
from full_models.weights import Choices, MissingWeights, Weights

BERT_LAYERS: Final = 17
"""The layer of roberta-large whose token vectors agree best with people (BERTScore, appendix B)."""


MMVA_FILES: Final = ("model.safetensors", "mmva.safetensors", "mmva.pt")
"""What the trained part of MMVA may be called in its folder."""
ENCODER: Final = "weights_encoder"
"""The setting that names the published encoder below what was trained on top of it."""


@dataclass(frozen=True)
class Network:
    """One exported network.

    Attributes:
        build: reads the weights that the model's settings name and gives the module, on the CPU, in float32.
        inputs: name -> (shape without batch, torch type); -1 is an axis of varying length.
        outputs: names of what it answers, in order.
    """

    build: Callable[[Choices], nn.Module]
    inputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    outputs: tuple[str, ...] = ("vector",)

    def example(self, rows: int, length: int = 7, highest: int = 250) -> dict[str, Tensor]:
        """Random input of so many rows that the network accepts; the same every time."""
        generator = torch.Generator().manual_seed(0)
        made: dict[str, Tensor] = {}
        for name, (shape, kind) in self.inputs.items():
            sizes = (rows, *(length if size < 0 else size for size in shape))
            if kind.is_floating_point:
                made[name] = torch.randn(sizes, generator=generator)
            elif name == "mask":
                made[name] = torch.ones(sizes, dtype=kind)
            else:
                made[name] = torch.randint(3, highest, sizes, generator=generator, dtype=kind)
        return made


class Precise(nn.Module):
    """Runs a module in a precision of its own between float32 tensors."""

    def __init__(self, inner: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.inner = inner.to(precision)
        self.precision = precision

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The inner module's answers as float32."""
        given = [each.to(self.precision) if each.is_floating_point() else each for each in tensors]
        answer: Tensor | tuple[Tensor, ...] = self.inner(*given)
        return tuple(each.float() for each in ((answer,) if isinstance(answer, Tensor) else answer))


class ImageBindTower(nn.Module):
    """One modality of ImageBind: its input -> vectors [B, 1024] of unit length.

    Args:
        network: ImageBind, as `networks.imagebind` loads it.
        modality: vision, audio or text.
    """

    def __init__(self, network: nn.Module, modality: str) -> None:
        super().__init__()
        self.preprocessor = network.modality_preprocessors[modality]  # type: ignore[index]
        self.trunk = network.modality_trunks[modality]  # type: ignore[index]
        self.head = network.modality_heads[modality]  # type: ignore[index]
        self.postprocessor = network.modality_postprocessors[modality]  # type: ignore[index]
        self.modality = modality

    def forward(self, given: Tensor) -> Tensor:
        """Clips of sound [B, 3, 1, 128, 204] are embedded one by one and averaged before the length is taken away."""
        rows, clips = given.shape[0], given.shape[1]
        together = given.flatten(0, 1) if self.modality == "audio" else given
        prepared = self.preprocessor(**{self.modality: together})
        vector = self.postprocessor(self.head(self.trunk(**prepared["trunk"]), **prepared["head"]))
        if self.modality == "audio":
            vector = vector.reshape(rows, clips, -1).mean(dim=1)
        return normalize(vector, dim=-1)


class Tower(nn.Module):
    """A transformers model with its projection: inputs by name -> vectors of unit length."""

    def __init__(self, model: nn.Module, projection: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.projection, self.names = model, projection, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Pooled, projected, of length 1."""
        answer = self.model(**dict(zip(self.names, tensors, strict=True)))
        return normalize(self.projection(answer.pooler_output), dim=-1)


class ClapSound(nn.Module):
    """CLAP's audio side: features [B, 1, 1001, 64] -> vectors [B, 512] of unit length."""

    def __init__(self, model: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    def forward(self, features: Tensor) -> Tensor:
        """The unfused network: a sound is never longer than its clip here."""
        answer = self.model(input_features=features, is_longer=None)
        return normalize(self.projection(answer.pooler_output), dim=-1)


class TokenVectors(nn.Module):
    """RoBERTa's token vectors after its first layers: tokens, mask [B, T] -> [B, T, width], each of unit length."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Vectors of padding are there and mean nothing."""
        return normalize(self.model(input_ids=tokens, attention_mask=mask).last_hidden_state, dim=-1)


def _imagebind(modality: str) -> Callable[[Choices], nn.Module]:
    def build(choices: Choices) -> nn.Module:
        from networks import imagebind

        weights = choices.weights()
        return ImageBindTower(imagebind.load(weights.folder), modality)

    return build


def _clip(side: str) -> Callable[[Choices], nn.Module]:
    def build(choices: Choices) -> nn.Module:
        return clip_side(clip_model(choices.weights()), side)

    return build


def clip_side(model: Any, side: str) -> nn.Module:
    """The picture or the text side of a CLIPModel with its projection."""
    if side == "picture":
        return Tower(model.vision_model, model.visual_projection, ("pixel_values",))
    return Tower(model.text_model, model.text_projection, ("input_ids",))


def clip_model(weights: Weights) -> Any:
    """CLIP of a folder: as transformers publishes it, or OpenAI's own parameter names (PAC-S gives these).

    Raises:
        MissingWeights: the folder holds neither.
        ValueError: the parameters are not those of CLIP ViT-B/32's architecture.
    """
    from transformers import CLIPConfig, CLIPModel

    if (weights.folder / "config.json").exists() and any(weights.folder.glob("*.safetensors")):
        return CLIPModel.from_pretrained(weights.folder, local_files_only=True, attn_implementation="eager").eval()
    from networks.checkpoints import read_checkpoint

    checkpoints = sorted(path for pattern in ("*.pth", "*.pt", "*.bin") for path in weights.folder.glob(pattern))
    if not checkpoints:
        raise MissingWeights(f"the weights {weights.name} in {weights.folder} hold no network: fetch them again")
    parameters = read_checkpoint(checkpoints[0])
    config = CLIPConfig.from_pretrained(weights.folder) if (weights.folder / "config.json").exists() else CLIPConfig()
    model = CLIPModel._from_config(config, attn_implementation="eager")
    missing, unknown = model.load_state_dict(renamed_clip(parameters), strict=False)
    lacking = [name for name in missing if not name.endswith("position_ids")]
    if lacking or unknown:
        raise ValueError(
            f"{checkpoints[0]} is no CLIP of this size: it lacks {lacking[:3]} and has unknown {list(unknown)[:3]}"
        )
    return model.eval()


_RENAMED: Final = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
)
_RENAMED_INSIDE: Final = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)


def renamed_clip(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names of CLIP's parameters -> those of transformers' CLIPModel.

    Their attention keeps query, key and value in one matrix, and projections are multiplied from the other side.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in parameters.items():
        if name in ("input_resolution", "context_length", "vocab_size"):
            continue
        tensor = value.float()
        if name == "visual.proj":
            renamed["visual_projection.weight"] = tensor.T
        elif name == "text_projection":
            renamed["text_projection.weight"] = tensor.T
        elif name == "logit_scale":
            renamed[name] = tensor
        else:
            for old, new in _RENAMED:
                if name.startswith(old):
                    name = new + name[len(old) :]
                    break
            for old, new in _RENAMED_INSIDE:
                name = name.replace(old, new)
            if ".attn.in_proj_" in name:
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[name.replace(".attn.in_proj_", f".self_attn.{part}_proj.")] = piece
            else:
                renamed[name] = tensor
    return renamed


def _clap(side: str) -> Callable[[Choices], nn.Module]:
    def build(choices: Choices) -> nn.Module:
        from transformers import ClapModel

        folder = choices.weights().folder
        model: Any = ClapModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
        if side == "sound":
            return ClapSound(model.audio_model, model.audio_projection)
        return Tower(model.text_model, model.text_projection, ("input_ids", "attention_mask"))

    return build


def _bert(choices: Choices) -> nn.Module:
    from transformers import RobertaModel

    folder = choices.weights().folder
    model: Any = RobertaModel.from_pretrained(
        folder, local_files_only=True, add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    layers = choices.number("layers", BERT_LAYERS)
    if layers > len(model.encoder.layer):
        raise ValueError(
            f"{folder} has {len(model.encoder.layer)} layers; set layers of {choices.model} to one of them"
        )
    model.encoder.layer = model.encoder.layer[:layers]
    return TokenVectors(model)


def _mmva(modality: Any) -> Callable[[Choices], nn.Module]:
    def build(choices: Choices) -> nn.Module:
        from networks import mmva
        from networks.checkpoints import read_checkpoint

        trained = choices.weights().file(*MMVA_FILES)
        encoder = mmva.encoder(modality, choices.weights(ENCODER).folder)
        return mmva.Tower(encoder, mmva.MMVA.from_state(read_checkpoint(trained)), modality)

    return build


def _learned_match(choices: Choices) -> nn.Module:
    from networks import mmva
    from networks.checkpoints import read_checkpoint

    return mmva.LearnedMatch(mmva.MMVA.from_state(read_checkpoint(choices.weights().file(*MMVA_FILES))))


_PIXELS: Final = {"pixels": ((3, pictures.SIDE, pictures.SIDE), torch.float32)}
_TOKENS: Final = {"tokens": ((CONTEXT,), torch.int64)}
_TOWER: Final = ("vector", "va")
_EMBEDDING: Final = ((512,), torch.float32)
_TEXT: Final = {"tokens": ((-1,), torch.int64), "mask": ((-1,), torch.int64)}

NETWORKS: Final[Mapping[str, Network]] = {
    "imagebind_vision": Network(_imagebind("vision"), _PIXELS),
    "imagebind_audio": Network(
        _imagebind("audio"),
        {"clips": ((imagebind_inputs.CLIPS, 1, imagebind_inputs.MELS, imagebind_inputs.FRAMES), torch.float32)},
    ),
    "imagebind_text": Network(_imagebind("text"), _TOKENS),
    "clip_picture": Network(_clip("picture"), _PIXELS),
    "clip_text": Network(_clip("text"), _TOKENS),
    "pac_picture": Network(_clip("picture"), _PIXELS),
    "pac_text": Network(_clip("text"), _TOKENS),
    "clap_sound": Network(_clap("sound"), {"features": ((1, clap_inputs.FRAMES, clap_inputs.MELS), torch.float32)}),
    "clap_text": Network(_clap("text"), _TEXT),
    "bert_text": Network(_bert, _TEXT, ("vectors",)),
    "mmva_picture": Network(_mmva("picture"), _PIXELS, _TOWER),
    "mmva_sound": Network(_mmva("sound"), {"samples": ((mmva_inputs.CLIP,), torch.float32)}, _TOWER),
    "mmva_text": Network(_mmva("text"), _TEXT, _TOWER),
    "mmva_similarity": Network(
        _learned_match, dict.fromkeys(("picture", "sound", "text"), _EMBEDDING), ("similarity",)
    ),
}
"""Model folder -> its network."""
