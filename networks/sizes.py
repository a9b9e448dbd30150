"""The published networks at their published size, and the figures that they are held against.

Each network here is built from the numbers in its publishers' configuration; on torch's meta device that takes no
memory, so that names, shapes and the count of parameters can be compared with what was published. Built on a real
device it has random weights: enough for measuring time and memory, which do not depend on them.

Run as a command (`python -m networks.sizes`) it prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from networks import imagebind
from networks.aligner import ImageAligner
from networks.mmva import MMVA

Size = Literal["published", "tiny"]

# AudioLDM 2, the music release: cvssp/audioldm2-music, config.json of each part. The tiny one has the same parts and
# order of computation.
_AUDIOLDM2: dict[Size, dict[str, dict[str, Any]]] = {
    "published": {
        "unet": {
            "sample_size": 256,
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": (128, 256, 384, 640),
            "layers_per_block": 2,
            "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
            "cross_attention_dim": ((None, 768, 1024),) * 4,
            "attention_head_dim": 8,
        },
        "vae": {
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": (128, 256, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "layers_per_block": 2,
            "latent_channels": 8,
            "sample_size": 1024,
            "scaling_factor": 0.41,
        },
        "text_encoder": {},
        "text_encoder_2": {
            "vocab_size": 32128,
            "d_model": 1024,
            "d_kv": 64,
            "d_ff": 2816,
            "num_layers": 24,
            "num_heads": 16,
            "feed_forward_proj": "gated-gelu",
        },
        "language_model": {"max_new_tokens": 8},
        "projection_model": {"text_encoder_dim": 512, "text_encoder_1_dim": 1024, "langauge_model_dim": 768},
        "vocoder": {
            "model_in_dim": 64,
            "sampling_rate": 16000,
            "upsample_initial_channel": 1024,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "normalize_before": False,
        },
    },
    "tiny": {
        "unet": {
            "sample_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": ((None, 16, 32),) * 2,
            "attention_head_dim": 4,
        },
        "vae": {
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": (8, 16),
            "norm_num_groups": 8,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            "scaling_factor": 0.5,
        },
        "text_encoder": {
            "text_config": {
                "vocab_size": 64,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 64,
                "pad_token_id": 0,
            },
            "audio_config": {
                "spec_size": 64,
                "window_size": 4,
                "num_mel_bins": 64,
                "patch_size": 4,
                "patch_stride": 4,
                "patch_embeds_hidden_size": 16,
                "depths": [2, 2],
                "num_attention_heads": [2, 2],
                "num_hidden_layers": 2,
                "hidden_size": 32,
                "projection_dim": 16,
            },
            "projection_dim": 16,
        },
        "text_encoder_2": {
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
        },
        "language_model": {
            "vocab_size": 64,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "max_new_tokens": 8,
            "bos_token_id": 2,
            "eos_token_id": 2,
        },
        "projection_model": {"text_encoder_dim": 16, "text_encoder_1_dim": 32, "langauge_model_dim": 16},
        "vocoder": {
            "model_in_dim": 8,
            "sampling_rate": 16000,
            "upsample_initial_channel": 16,
            "upsample_rates": [2, 2],
            "upsample_kernel_sizes": [4, 4],
            "resblock_kernel_sizes": [3, 7],
            "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
            "normalize_before": False,
        },
    },
}


def audioldm2_parts(size: Size = "published", text: bool = True) -> dict[str, Any]:
    """The parts of AudioLDM 2 with random weights and its scheduler, as networks.audioldm2.AudioLDM2 takes them.

    Args:
        size: as published, or tiny.
        text: whether to build the two text encoders; there are no tokenisers, which are not made of numbers.

    They are made on torch's current default device, in fp32: `with torch.device("cuda"):` or "meta".
    """
    from diffusers import AutoencoderKL, DDIMScheduler
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import (
        AudioLDM2ProjectionModel,
        AudioLDM2UNet2DConditionModel,
    )
    from transformers import (
        ClapConfig,
        ClapModel,
        GPT2Config,
        GPT2LMHeadModel,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        T5Config,
        T5EncoderModel,
    )

    numbers = _AUDIOLDM2[size]
    parts = {
        "unet": AudioLDM2UNet2DConditionModel(**numbers["unet"]),
        "vae": AutoencoderKL(**numbers["vae"]),
        "vocoder": SpeechT5HifiGan(SpeechT5HifiGanConfig(**numbers["vocoder"])),
        "language_model": GPT2LMHeadModel(GPT2Config(**numbers["language_model"])),
        "projection_model": AudioLDM2ProjectionModel(**numbers["projection_model"]),
    }
    if text:
        parts["text_encoder"] = ClapModel(ClapConfig(**numbers["text_encoder"]))
        parts["text_encoder_2"] = T5EncoderModel(T5Config(**numbers["text_encoder_2"]))
    for part in parts.values():
        part.eval().requires_grad_(False)
    scheduler = DDIMScheduler(
        # As published: the noise levels of the latent diffusion model.
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return parts | {"scheduler": scheduler}


def clip() -> Any:
    """CLIP ViT-B/32 (openai/clip-vit-base-patch32)."""
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(projection_dim=512))


def mert() -> Any:
    """MERT-v1-95M (m-a-p/MERT-v1-95M): HuBERT base."""
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig())


def roberta() -> Any:
    """RoBERTa-base (roberta-base), without pooler."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    return RobertaModel(config, add_pooling_layer=False)


def _audioldm2_part(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        part: nn.Module = audioldm2_parts()[name]
        # GPT-2 is published and used without its head.
        return getattr(part, "transformer", part)

    return build


def _audioldm2() -> nn.Module:
    parts = audioldm2_parts()
    return nn.ModuleDict(
        {name: getattr(part, "transformer", part) for name, part in parts.items() if name != "scheduler"}
    )


@dataclass(frozen=True)
class Published:
    """A network and what its publishers say of it.

    Attributes:
        build: makes it on torch's current default device.
        figure: what was published, in parameters or, where `bytes_each` is set, in bytes of the file.
        within: how far the count may lie from it: half of what the figure was rounded to.
        source: where the figure stands.
        tensors: some of its tensors, by the names and shapes of the published checkpoint.
        bytes_each: of one number in the published file, where the figure is that file's size.
    """

    build: Callable[[], nn.Module]
    figure: float
    within: float
    source: str
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bytes_each: int = 0


PUBLISHED: dict[str, Published] = {
    "image aligner, 1 token": Published(
        lambda: ImageAligner(1),
        2_754_816,
        0,
        "Art2Mus, the layers of the 2024 release, one token",
        {"projection1.weight": (1536, 1024), "projection2.weight": (768, 1536)},
    ),
    "image aligner, 4 tokens": Published(
        lambda: ImageAligner(4),
        6_296_064,
        0,
        "Art2Mus, the layers of the 2024 release, four tokens",
        {"projection2.bias": (3072,)},
    ),
    "image aligner, 16 tokens": Published(
        lambda: ImageAligner(16),
        20_461_056,
        0,
        "Art2Mus, the same layers for the 16 tokens of Rinaldi et al. 2026",
        {"projection2.weight": (12288, 1536)},
    ),
    "AudioLDM 2, all parts": Published(
        _audioldm2, 1.1e9, 0.05e9, "model card of cvssp/audioldm2-music: total model size 1.1B"
    ),
    "AudioLDM 2, UNet": Published(
        _audioldm2_part("unet"),
        350e6,
        5e6,
        "model card of cvssp/audioldm2-music: UNet 350M",
        {
            "conv_in.weight": (128, 8, 3, 3),
            "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight": (256, 768),
            "down_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k.weight": (640, 1024),
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 640),
            "up_blocks.3.resnets.2.conv_shortcut.weight": (128, 256, 1, 1),
        },
    ),
    "AudioLDM 2, UNet's file": Published(
        _audioldm2_part("unet"),
        1.39e9,
        0.005e9,
        "cvssp/audioldm2, unet/diffusion_pytorch_model.safetensors: 1.39 GB",
        bytes_each=4,
    ),
    "AudioLDM 2, GPT-2's file": Published(
        _audioldm2_part("language_model"),
        498e6,
        0.6e6,
        "cvssp/audioldm2-music, language_model/pytorch_model.bin: 498 MB",
        {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "h.11.attn.c_attn.weight": (768, 2304)},
        bytes_each=4,
    ),
    "AudioLDM 2, projection's file": Published(
        _audioldm2_part("projection_model"),
        4.74e6,
        0.005e6,
        "a re-upload of audioldm2-music, projection_model/diffusion_pytorch_model.safetensors: 4.74 MB",
        {"projection.weight": (768, 512), "projection_1.weight": (768, 1024), "sos_embed": (768,)},
        bytes_each=4,
    ),
    "AudioLDM 2, VAE's file": Published(
        _audioldm2_part("vae"),
        222e6,
        0.6e6,
        "ucsd-reach/musicldm, which has the same VAE, vae/diffusion_pytorch_model.bin: 222 MB",
        {"decoder.conv_in.weight": (512, 8, 3, 3), "quant_conv.weight": (16, 16, 1, 1)},
        bytes_each=4,
    ),
    "CLIP ViT-B/32": Published(
        clip,
        151_277_313,
        0,
        "OpenAI's notebook on interacting with CLIP: 151,277,313 parameters",
        {
            "vision_model.embeddings.patch_embedding.weight": (768, 3, 32, 32),
            "visual_projection.weight": (512, 768),
            "text_model.embeddings.token_embedding.weight": (49408, 512),
            "text_projection.weight": (512, 512),
        },
    ),
    "MERT-v1-95M": Published(
        mert,
        95e6,
        1e6,
        "its name, and its model card: 95M",
        {
            "feature_extractor.conv_layers.0.conv.weight": (512, 1, 10),
            "feature_projection.projection.weight": (768, 512),
            "encoder.layers.11.attention.k_proj.weight": (768, 768),
        },
    ),
    "RoBERTa-base": Published(
        roberta,
        125e6,
        1e6,
        "Liu et al. 2019, section 3.1: 125M",
        {"embeddings.word_embeddings.weight": (50265, 768), "encoder.layer.11.output.dense.weight": (768, 3072)},
    ),
    "ImageBind, all modalities": Published(
        lambda: imagebind.build(device=str(torch.get_default_device())),
        4.8e9,
        0.05e9,
        "nielsr/imagebind-huge, model.safetensors, the authors' state as it is: 4.8 GB",
        {
            "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
            "modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
            "modality_preprocessors.text.token_embedding.weight": (49408, 1024),
            "modality_trunks.vision.blocks.31.attn.in_proj_weight": (3840, 1280),
            "modality_trunks.audio.blocks.11.attn.bias_k": (1, 1, 768),
            "modality_heads.vision.2.weight": (1024, 1280),
            "modality_heads.text.proj.1.weight": (1024, 1024),
        },
        bytes_each=4,
    ),
    "ImageBind, what looks": Published(
        lambda: _seeing(imagebind.build(device=str(torch.get_default_device()))),
        632e6,
        1.5e6,
        "Dosovitskiy et al. 2021, table 1: ViT-Huge 632M; ImageBind's vision trunk is one",
    ),
    "MMVA, what is trained": Published(
        MMVA,
        3_424_803,
        0,
        "no figure is published; counted by hand from the layers that the paper names",
        {"mix.sound.convolution.weight": (1, 13, 1), "similarity.layers.0.weight": (512, 1536)},
    ),
}


def _seeing(network: nn.Module) -> nn.Module:
    parts: Any = network
    return nn.ModuleList([parts.modality_preprocessors["vision"], parts.modality_trunks["vision"]])


@dataclass(frozen=True)
class Count:
    """What a network at its published size has.

    Attributes:
        parameters: how many numbers its parameters hold.
        amount: what is compared with the published figure: the parameters, or the bytes of a file of them.
        agrees: whether it does.
        faults: tensors of the published checkpoint that are missing or of another shape.
    """

    parameters: int
    amount: float
    agrees: bool
    faults: tuple[str, ...]


def count(name: str) -> Count:
    """Build one of PUBLISHED on the meta device and compare it with what was published."""
    published = PUBLISHED[name]
    with torch.device("meta"):
        network = published.build()
    parameters = sum(value.numel() for value in network.parameters())
    amount = float(parameters * (published.bytes_each or 1))
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    faults = tuple(
        f"{key} is {shapes.get(key, 'missing')}, not {shape}"
        for key, shape in published.tensors.items()
        if shapes.get(key) != shape
    )
    return Count(parameters, amount, abs(amount - published.figure) <= published.within, faults)


def main() -> int:
    """Print each network's count beside what was published; 1 where one does not agree."""
    wrong = 0
    for name, published in PUBLISHED.items():
        counted = count(name)
        wrong += not counted.agrees or bool(counted.faults)
        verdict = "agrees" if counted.agrees else f"differs from {published.figure:,.0f}"
        print(f"{name}: {counted.parameters:,} parameters, {verdict} ({published.source})")
        for fault in counted.faults:
            print(f"  {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
