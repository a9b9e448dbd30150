"""The models of words at their published sizes, on torch's meta device: parameters, tensors, names.

Nothing is computed; a network of 15 billion parameters takes a blink. Where each figure comes from stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from full_models.chat import LlavaPictures, Question, QwenPictures, QwenSounds, Speaker, Writer
from full_models.writing import Asking
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.models.test_words_chat import KINDS


def _qwen3(**sizes: Any) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151_936,
        head_dim=128,
        num_key_value_heads=8,
        max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **sizes,
    )


@dataclass(frozen=True)
class Published:
    """A network as its published config.json describes it, and its figures."""

    build: Callable[[], Any]
    parameters: int
    stored: int
    """Tensors of the published files; a matrix that is tied is stored once."""


PUBLISHED = {
    # Qwen/Qwen3-4B: config.json; model.safetensors.index.json says total_size 8,044,936,192 bytes of bf16.
    "qwen3-4b": Published(
        lambda: Qwen3ForCausalLM(
            _qwen3(
                hidden_size=2560,
                intermediate_size=9728,
                num_hidden_layers=36,
                num_attention_heads=32,
                tie_word_embeddings=True,
            )
        ),
        8_044_936_192 // 2,
        36 * 11 + 2,
    ),
    # Qwen/Qwen3-14B: config.json; model.safetensors.index.json says total_size 29,536,614,400 bytes of bf16, and
    # lists 443 tensors.
    "qwen3-14b": Published(
        lambda: Qwen3ForCausalLM(
            _qwen3(
                hidden_size=5120,
                intermediate_size=17_408,
                num_hidden_layers=40,
                num_attention_heads=40,
                tie_word_embeddings=False,
            )
        ),
        29_536_614_400 // 2,
        443,
    ),
    # Qwen/Qwen2.5-VL-7B-Instruct: config.json; model.safetensors.index.json says total_size 16,584,333,312 bytes of
    # bf16.
    "qwen2.5-vl-7b": Published(
        lambda: Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config={
                    "vocab_size": 152_064,
                    "hidden_size": 3584,
                    "intermediate_size": 18_944,
                    "num_hidden_layers": 28,
                    "num_attention_heads": 28,
                    "num_key_value_heads": 4,
                    "max_position_embeddings": 128_000,
                    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
                },
                vision_config={
                    "depth": 32,
                    "hidden_size": 1280,
                    "intermediate_size": 3420,
                    "num_heads": 16,
                    "out_hidden_size": 3584,
                },
                tie_word_embeddings=False,
            )
        ),
        16_584_333_312 // 2,
        # 28 layers of 12 tensors, 3 around them; 32 blocks of 12, the patches' projection, 5 of the merger.
        28 * 12 + 3 + 32 * 12 + 1 + 5,
    ),
    # llava-hf/llava-v1.6-mistral-7b-hf: config.json; its parts as published: Mistral-7B-Instruct-v0.2 (7,241,732,096
    # parameters for 32,000 words) with 64 words more, the vision tower of openai/clip-vit-large-patch14-336
    # (303,507,456), a projector 1024-4096-4096, and the line break. The hub's page shows their sum, 7.57 B.
    "llava-1.6-mistral-7b": Published(
        lambda: LlavaNextForConditionalGeneration(
            LlavaNextConfig(
                text_config=MistralConfig(
                    vocab_size=32_064,
                    hidden_size=4096,
                    intermediate_size=14_336,
                    num_hidden_layers=32,
                    num_attention_heads=32,
                    num_key_value_heads=8,
                    sliding_window=None,
                ),
                vision_config=CLIPVisionConfig(
                    hidden_size=1024,
                    intermediate_size=4096,
                    num_hidden_layers=24,
                    num_attention_heads=16,
                    image_size=336,
                    patch_size=14,
                    projection_dim=768,
                ),
                tie_word_embeddings=False,
            )
        ),
        7_241_732_096 + 2 * 64 * 4096 + 303_507_456 + (1024 * 4096 + 4096) + (4096 * 4096 + 4096) + 4096,
        # 32 layers of 9 tensors, 3 around them; 24 of 16, 7 around them; 4 of the projector, the line break.
        32 * 9 + 3 + 24 * 16 + 7 + 4 + 1,
    ),
    # Qwen/Qwen2-Audio-7B-Instruct: config.json; the hub's page counts 8,397,094,912 parameters in its files.
    "qwen2-audio-7b": Published(
        lambda: Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(
                audio_config={
                    "d_model": 1280,
                    "encoder_attention_heads": 20,
                    "encoder_ffn_dim": 5120,
                    "encoder_layers": 32,
                    "num_mel_bins": 128,
                    "max_source_positions": 1500,
                },
                text_config={
                    "model_type": "qwen2",
                    "vocab_size": 156_032,
                    "hidden_size": 4096,
                    "intermediate_size": 11_008,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 32,
                    "tie_word_embeddings": False,
                },
                tie_word_embeddings=False,
            )
        ),
        8_397_094_912,
        # 32 layers of 12 tensors, 3 around them; 32 of 15 (no bias of keys), 7 around them; 2 of the projector.
        32 * 12 + 3 + 32 * 15 + 7 + 2,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_has_its_published_size(name: str) -> None:
    published = PUBLISHED[name]
    with torch.device("meta"):
        network = published.build()
    assert sum({id(each): each.numel() for each in network.parameters()}.values()) == published.parameters
    assert len({id(each) for each in network.state_dict(keep_vars=True).values()}) == published.stored


STORED_NAMES = {
    "qwen3": {
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.norm.weight",
    },
    "qwen2.5-vl": {
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "visual.patch_embed.proj.weight",
        "visual.blocks.1.attn.qkv.weight",
        "visual.merger.mlp.2.weight",
    },
    "llava-1.6": {
        "image_newline",
        "language_model.lm_head.weight",
        "language_model.model.layers.1.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.weight",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.pre_layrnorm.weight",
        "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
    },
    "qwen2-audio": {
        "audio_tower.conv1.weight",
        "audio_tower.layers.1.self_attn.k_proj.weight",
        "language_model.lm_head.weight",
        "language_model.model.layers.1.self_attn.q_proj.bias",
        "multi_modal_projector.linear.weight",
    },
}
"""Names as they stand in the published files, which are older than the library's own today."""


@pytest.mark.parametrize("name", KINDS)
def test_files_with_the_published_names_are_read_whole(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    folder = kind.build(tmp_path / "weights")
    before: Speaker = kind.speaker.load(folder, dtype=torch.float32, device="cpu", batch=4)
    path = folder / "model.safetensors"
    state = load_file(path)
    state = {
        re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key): state[key] for key in state
    }
    assert set(state) >= STORED_NAMES[name]
    save_file(state, path, metadata={"format": "pt"})
    after: Speaker = kind.speaker.load(folder, dtype=torch.float32, device="cpu", batch=4)
    question = Question([{"role": "user", "content": "Describe."}], kind.media[0])
    assert after.say([question], Asking(tokens=8)) == before.say([question], Asking(tokens=8))
    for key, value in before.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[key]), key


@pytest.mark.parametrize("speaker", [Writer, QwenPictures, LlavaPictures, QwenSounds])
def test_a_file_that_lacks_a_tensor_is_refused(speaker: type[Any], tmp_path: Path) -> None:
    (kind,) = (each for each in KINDS.values() if each.speaker is speaker)
    folder = kind.build(tmp_path / "weights")
    state = load_file(folder / "model.safetensors")
    lost = sorted(state)[-1]
    del state[lost]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing"):
        speaker.load(folder, dtype=torch.float32, device="cpu", batch=4)


@pytest.mark.parametrize(
    ("tiny", "full"),
    [
        ("qwen3", "qwen3-4b"),
        ("qwen2.5-vl", "qwen2.5-vl-7b"),
        ("llava-1.6", "llava-1.6-mistral-7b"),
        ("qwen2-audio", "qwen2-audio-7b"),
    ],
)
def test_the_tiny_networks_are_made_of_the_same_parts_as_the_full_ones(tiny: str, full: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        parts = {type(each) for each in PUBLISHED[full].build().modules()}
    folder = KINDS[tiny].build(tmp_path / "weights")
    loaded = KINDS[tiny].speaker.load(folder, dtype=torch.float32, device="cpu", batch=1)
    assert {type(each) for each in loaded.model.modules()} == parts
