"""MMVA: towers that read valence and arousal from a picture, from music and from words, and how well two go together.

Source: MMVA, section "Architectures" and figure 2. Each modality has a published encoder (CLIP ViT-B/32, MERT-95M,
RoBERTa-base); music and words mix the encoder's thirteen layers; a small predictor says valence and arousal, and
another one, over all three embeddings, how similar they are meant to be. What the encoders say is kept apart from
what is trained on top, so that training reads them once.

Sizes of the published model, used in the shapes below: picture features 512, layers 13 of 768, embeddings 512.
Valence and arousal are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from networks.checkpoints import CheckpointError, compare_names, pretrained, read_checkpoint

Modality = Literal["picture", "sound", "text"]
MODALITIES: tuple[Modality, ...] = ("picture", "sound", "text")

# What MERT hears, in hertz; mono, mean removed and unit deviation over the whole.
SOUND_RATE = 24_000


@dataclass(frozen=True)
class Sizes:
    """The published sizes; smaller only in tests.

    Attributes:
        layers, width: what MERT and RoBERTa give: the embedding layer and twelve blocks, of 768.
        embedding: of each modality; a picture's is CLIP's vector as it is.
        hidden: of the predictors.
    """

    layers: int = 13
    width: int = 768
    embedding: int = 512
    hidden: int = 512


class LayerMix(nn.Module):
    """The class tokens of all layers become one embedding: [B, 13, 768] -> [B, 512].

    A convolution that mixes the layers (one weight a layer), then a linear layer.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(sizes.layers, 1, kernel_size=1)
        self.linear = nn.Linear(sizes.width, sizes.embedding)

    def forward(self, layers: Tensor) -> Tensor:
        """[B, 13, 768] -> [B, 512]."""
        embedding: Tensor = self.linear(self.convolution(layers).squeeze(1))
        return embedding


class Predictor(nn.Module):
    """Numbers from 0 to 1 out of an embedding: [B, inputs] -> [B, outputs].

    Twice linear, ReLU, layer norm, dropout of a half; then linear and sigmoid.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs], 0 to 1."""
        return torch.sigmoid(self.layers(embedding))


@dataclass(frozen=True)
class Reading:
    """What MMVA says of B triples.

    Attributes:
        picture, sound, text: [B, 2], valence and arousal.
        similarity: [B], the predicted match of the picture with the music and its words, 0 to 1.
    """

    picture: Tensor
    sound: Tensor
    text: Tensor
    similarity: Tensor


class MMVA(nn.Module):
    """What is trained: layer mixes, predictors of valence and arousal, predictor of similarity.

    Args:
        sizes: the published ones, or smaller ones in tests.
        dropout: in the predictors, while training.
    """

    def __init__(self, sizes: Sizes | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        self.sizes = sizes = sizes or Sizes()
        self.mix = nn.ModuleDict({"sound": LayerMix(sizes), "text": LayerMix(sizes)})
        self.emotion = nn.ModuleDict(
            {modality: Predictor(sizes.embedding, 2, sizes.hidden, dropout) for modality in MODALITIES}
        )
        self.similarity = Predictor(3 * sizes.embedding, 1, sizes.hidden, dropout)

    def embed(self, modality: Modality, features: Tensor) -> Tensor:
        """An encoder's features -> embedding [B, 512]: a picture's [B, 512] as it is, others' [B, 13, 768] mixed."""
        if modality == "picture":
            return features
        embedding: Tensor = self.mix[modality](features)
        return embedding

    def feel(self, modality: Modality, features: Tensor) -> Tensor:
        """An encoder's features -> valence and arousal, [B, 2]."""
        felt: Tensor = self.emotion[modality](self.embed(modality, features))
        return felt

    def forward(self, picture: Tensor, sound: Tensor, text: Tensor) -> Reading:
        """Features of B triples: [B, 512], [B, 13, 768], [B, 13, 768]."""
        embeddings = {
            "picture": picture,
            "sound": self.embed("sound", sound),
            "text": self.embed("text", text),
        }
        felt = {modality: self.emotion[modality](embedding) for modality, embedding in embeddings.items()}
        similarity = self.similarity(torch.cat([embeddings[modality] for modality in MODALITIES], 1)).squeeze(1)
        return Reading(felt["picture"], felt["sound"], felt["text"], similarity)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> MMVA:
        """The trained part that a checkpoint holds; sizes are read from its shapes.

        Raises CheckpointError where names or shapes are others.
        """
        needed = ("mix.sound.convolution.weight", "mix.sound.linear.weight", "emotion.picture.layers.0.weight")
        missing = [name for name in needed if name not in state]
        if missing:
            raise CheckpointError(f"this is no checkpoint of MMVA: {', '.join(missing)} missing")
        convolution, linear, first = (state[name] for name in needed)
        sizes = Sizes(int(convolution.shape[1]), int(linear.shape[1]), int(linear.shape[0]), int(first.shape[0]))
        model = cls(sizes)
        compare_names(model.state_dict(), state, "MMVA")
        model.load_state_dict(dict(state))
        model.eval()
        return model


class PictureEncoder(nn.Module):
    """CLIP's picture encoder: pixels [B, 3, 224, 224], as CLIP prepares them, -> its vector [B, 512], not scaled.

    Args:
        network: transformers' CLIPModel, of which only what looks is kept.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.vision_model
        self.projection = network.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 224, 224] -> [B, 512]."""
        vectors: Tensor = self.projection(self.network(pixel_values=pixels).pooler_output)
        return vectors


class SoundEncoder(nn.Module):
    """MERT-95M: sound [B, samples] at 24 kHz, mean removed and unit deviation, -> layers [B, 13, 768].

    MERT's v1 release is HuBERT's architecture (no constant-Q input, no deep norm), so transformers' own class reads
    it. The paper takes "class tokens" of it, though it has none; that is each layer's first position. `over_time` is
    the mean over all positions instead, which hears the whole clip evenly.

    Args:
        network: transformers' HubertModel.
        over_time: whether to take the mean over all positions instead of the first one.
    """

    def __init__(self, network: Any, over_time: bool = False) -> None:
        super().__init__()
        self.network = network
        self.over_time = over_time

    def forward(self, sound: Tensor) -> Tensor:
        """[B, samples] -> [B, 13, 768]."""
        layers = self.network(input_values=sound, output_hidden_states=True).hidden_states
        return torch.stack([layer.mean(1) if self.over_time else layer[:, 0] for layer in layers], 1)


class TextEncoder(nn.Module):
    """RoBERTa-base: tokens [B, T] -> the class tokens of all layers [B, 13, 768].

    Args:
        network: transformers' RobertaModel, without pooler.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token numbers [B, T] and where there are any [B, T] -> [B, 13, 768]."""
        layers = self.network(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack([layer[:, 0] for layer in layers], 1)


class Tower(nn.Module):
    """One modality from its input to its embedding and its valence and arousal: what is exported and served.

    Args:
        encoder: of this modality.
        model: the trained part.
        modality: which.
    """

    def __init__(self, encoder: nn.Module, model: MMVA, modality: Modality) -> None:
        super().__init__()
        self.encoder = encoder
        self.mix = model.mix[modality] if modality in model.mix else nn.Identity()
        self.emotion = model.emotion[modality]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's inputs -> embedding [B, 512], valence and arousal [B, 2]."""
        embedding = self.mix(self.encoder(*inputs))
        return embedding, self.emotion(embedding)


class LearnedMatch(nn.Module):
    """The predictor of similarity as a network of its own: how well a triple goes together, 0 to 1.

    It was trained to say Equation 1 from what the embeddings hold. The paper reports it as a measure of training
    (table 1); retrieval compares valence and arousal by Equation 1 itself (`match_score`).

    Args:
        model: the trained part.
    """

    def __init__(self, model: MMVA) -> None:
        super().__init__()
        self.similarity = model.similarity

    def forward(self, picture: Tensor, sound: Tensor, text: Tensor) -> Tensor:
        """Embeddings [B, 512] of the picture, of the music and of its words -> [B, 1]."""
        match: Tensor = self.similarity(torch.cat([picture, sound, text], 1))
        return match


@dataclass(frozen=True)
class Towers:
    """The three towers and the predictor of similarity ([B, 1536] -> [B, 1]) of one trained MMVA."""

    picture: Tower
    sound: Tower
    text: Tower
    similarity: Predictor


def towers(model: MMVA, picture: nn.Module, sound: nn.Module, text: nn.Module) -> Towers:
    """The towers of a trained part on its encoders."""
    made = Towers(
        Tower(picture, model, "picture"), Tower(sound, model, "sound"), Tower(text, model, "text"), model.similarity
    )
    for part in (made.picture, made.sound, made.text, made.similarity):
        part.eval().requires_grad_(False)
    return made


def encoder(modality: Modality, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A modality's published encoder from its folder: CLIP ViT-B/32, MERT-v1-95M, RoBERTa-base. Nothing is fetched.

    Raises FileNotFoundError where the folder is not there, CheckpointError where it holds something else.
    """
    from transformers import CLIPModel, HubertConfig, HubertModel, RobertaModel

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no encoder for a {modality}: it has no config.json")
    if modality == "picture":
        return PictureEncoder(pretrained(CLIPModel, folder, dtype=dtype))
    if modality == "sound":
        # MERT's configuration names a type of its own, whose code is not run here.
        config = HubertConfig.from_pretrained(folder, local_files_only=True)
        unlike = {"feature_extractor_cqt": (False, None), "deepnorm": (False, None), "attention_relax": (-1.0, None)}
        strange = [name for name, values in unlike.items() if getattr(config, name, None) not in values]
        if strange:
            raise CheckpointError(f"{folder} is a MERT that HuBERT's architecture cannot read: {', '.join(strange)}")
        return SoundEncoder(pretrained(HubertModel, folder, config=config, dtype=dtype))
    return TextEncoder(pretrained(RobertaModel, folder, dtype=dtype, add_pooling_layer=False))


def load(checkpoint: Path, clip: Path, mert: Path, roberta: Path) -> Towers:
    """The towers from files.

    Args:
        checkpoint: of the trained part (`.safetensors` or `.pt`).
        clip, mert, roberta: folders of the encoders.

    Raises FileNotFoundError or CheckpointError, saying what is missing or wrong.
    """
    model = MMVA.from_state(read_checkpoint(checkpoint))
    return towers(model, encoder("picture", clip), encoder("sound", mert), encoder("text", roberta))


def match_score(one: Tensor, other: Tensor, sigma: float) -> Tensor:
    """How well two go together: exp(-d / sigma), d the distance of their valence and arousal. MMVA, equation 1.

    Args:
        one, other: [..., 2] each, 0 to 1, of shapes that broadcast.
        sigma: see `mean_distance`.

    Returns [...], above 0 to 1.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is above nothing, not {sigma}")
    return torch.exp(-torch.linalg.vector_norm(one - other, dim=-1) / sigma)


def mean_distance(pictures: Tensor, tracks: Tensor, rows: int = 4096) -> float:
    """Sigma: the mean distance over all pairs of pictures [P, 2] and tracks [T, 2] in valence and arousal.

    Args:
        rows: how many pictures are taken at a time, so that memory stays small.
    """
    if not len(pictures) or not len(tracks):
        raise ValueError("sigma needs at least one picture and one track")
    pictures, tracks = pictures.double(), tracks.double()
    total = sum(float(torch.cdist(part, tracks).sum()) for part in pictures.split(rows))
    return total / (len(pictures) * len(tracks))
