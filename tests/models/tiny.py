"""The papers' architectures at a tiny size with random weights, and tokenisers made on the spot.

Everything is the real class of the real library with small numbers in its configuration, so that loading, shapes and
the order of computation are those of the published models. Nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    HubertConfig,
    HubertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from networks import sizes

SENTENCE = "music representing the content of this artwork low quality a quiet evening by sea with strings and piano"
WORDS = tuple(f"{SENTENCE} slow fast joyful sad picture photo depicts painting song".split())


def randomise(network: nn.Module, seed: int = 0, scale: float = 0.2) -> Any:
    """Give every parameter and nothing else random values: many libraries begin with zeros, which hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            # Norms keep their one, so that values neither vanish nor grow with depth.
            middle = 1.0 if parameter.ndim == 1 and torch.all(parameter == 1) else 0.0
            parameter.copy_(middle + scale * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def tokeniser(
    words: Iterable[str] = WORDS,
    begin: str | None = None,
    end: str = "</s>",
    pad: str = "<pad>",
    unknown: str = "<unk>",
    length: int = 32,
) -> PreTrainedTokenizerFast:
    """A tokeniser of whole words, lower case, one number a word; `end` (and `begin`) are added to each text."""
    special = [pad, unknown, end] + ([begin] if begin and begin != end else [])
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special, *words]))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}" if begin else f"$A {end}",
        special_tokens=[(token, vocabulary[token]) for token in {begin or end, end}],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token=unknown,
        pad_token=pad,
        eos_token=end,
        bos_token=begin or end,
        model_max_length=length,
    )


def audioldm2_parts(seed: int = 0) -> dict[str, Any]:
    """The parts of an AudioLDM 2 and its tokenisers, named as the pipeline of diffusers names them.

    Args:
        seed: of the weights.
    """
    parts = sizes.audioldm2_parts("tiny")
    for number, (name, part) in enumerate(parts.items()):
        if name != "scheduler":
            # A louder vocoder would be cut off at one.
            randomise(part, seed + number, 0.1 if name == "vocoder" else 0.2)
    return parts | {"tokenizer": tokeniser(begin="<s>"), "tokenizer_2": tokeniser()}


def save_audioldm2(folder: Path, parts: dict[str, Any] | None = None) -> Path:
    """Write the parts into a folder laid out as the published pipeline, GPT-2 without its head as there."""
    for name, part in (parts or audioldm2_parts()).items():
        getattr(part, "transformer", part).save_pretrained(folder / name)
    return folder


# MERT-v1-95M says of itself what HuBERT does not know; all of it as published (m-a-p/MERT-v1-95M, config.json).
MERT_EXTRAS = {
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "attention_relax": -1.0,
    "sample_rate": 24000,
}


def mmva_encoders(
    folder: Path, seed: int = 0, layers: int = 3, width: int = 16, picture: int = 12
) -> dict[str, Path]:
    """Folders of the three encoders as their publishers lay them out: a whole CLIP, a MERT, a RoBERTa with its head.

    Args:
        folder: where the three folders are made.
        seed: of the weights.
        layers: blocks of MERT and RoBERTa; what MMVA mixes is one more.
        width: of MERT and RoBERTa.
        picture: of CLIP's vector, which is the embedding's size.
    """
    small = {"hidden_size": width, "intermediate_size": 32, "num_attention_heads": 4}
    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    made = {
        "picture": CLIPModel(
            CLIPConfig(
                text_config=sides | {"vocab_size": 64, "eos_token_id": 2, "bos_token_id": 1},
                vision_config=sides | {"patch_size": 56},
                projection_dim=picture,
            )
        ),
        "sound": HubertModel(
            HubertConfig(
                **small,
                num_hidden_layers=layers,
                conv_dim=(8,) * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4,
            )
        ),
        "text": RobertaForMaskedLM(
            RobertaConfig(
                **small, num_hidden_layers=layers, vocab_size=64, max_position_embeddings=40, pad_token_id=0
            )
        ),
    }
    for number, (modality, network) in enumerate(made.items()):
        randomise(network, seed + number)
        network.save_pretrained(folder / modality)
    config = folder / "sound" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | MERT_EXTRAS))
    tokeniser(begin="<s>").save_pretrained(folder / "text")
    return {modality: folder / modality for modality in made}
