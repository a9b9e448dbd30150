"""Weights folders of the sensing networks at a tiny size: the same architectures, random numbers, own tokenisers.

Laid out as the fetch lays them out, so that the very code that reads published weights reads these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    HubertConfig,
    HubertModel,
    RobertaConfig,
    RobertaModel,
)

from networks import imagebind, mmva

REVISION = "made-by-the-tests"
WORDS = (
    "A calm river runs through a warm valley in the evening light.",
    "Fast drums and loud guitars play a wild song in a minor key.",
    "The picture shows an old harbour with ships, gulls and a grey sky.",
    "A piano plays slowly; the mood is quiet, tender and a little sad.",
)
CLIP_TOKENS = 49_408
"""Of CLIP's vocabulary, whose published list of merges comes with ImageBind's network."""

ENVIRONMENT = {"PROMENADE_BERT_TEXT_LAYERS": "2"}
"""Settings that go with these weights: their roberta has 3 layers, not 24."""


def folder_of(root: Path, name: str) -> Path:
    """Where the fetch would put weights of this name; marked as complete."""
    folder = root / name.replace("/", "--") / REVISION
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fetched.json").write_text(json.dumps({"name": name, "revision": REVISION}), encoding="utf-8")
    return folder


def clip_config() -> CLIPConfig:
    """CLIP as ViT-B/32 has it (patches of 32, 77 tokens, 512 numbers), two narrow layers a side."""
    small = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPConfig(
        text_config={
            "hidden_size": 16,
            "vocab_size": CLIP_TOKENS,
            "eos_token_id": 49407,
            "bos_token_id": 49406,
            **small,
        },
        vision_config={"hidden_size": 16, "patch_size": 32, **small},
        projection_dim=512,
    )


def tiny_clip(seed: int) -> CLIPModel:
    """A CLIP with random weights, larger than those of a start, so that vectors differ from one another."""
    torch.manual_seed(seed)
    return shaken(CLIPModel(clip_config()))


def shaken(model: Any, spread: float = 0.3) -> Any:
    """The model with matrices of larger random numbers: at a start's size all vectors would be nearly the same."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, spread)
    return model.eval()


def openai_names(model: CLIPModel) -> dict[str, torch.Tensor]:
    """The parameters of a CLIPModel under OpenAI's names, query, key and value in one matrix."""
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("position_ids")}
    inside = {
        "layer_norm1.": "ln_1.",
        "layer_norm2.": "ln_2.",
        "mlp.fc1.": "mlp.c_fc.",
        "mlp.fc2.": "mlp.c_proj.",
        "self_attn.out_proj.": "attn.out_proj.",
    }
    found: dict[str, torch.Tensor] = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["visual_projection.weight"].T,
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(CLIP_TOKENS),
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
    for side, start in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        for number in range(2):
            ours, theirs = f"{side}.encoder.layers.{number}.", f"{start}.resblocks.{number}."
            for kind in ("weight", "bias"):
                for new, old in inside.items():
                    found[f"{theirs}{old}{kind}"] = state[f"{ours}{new}{kind}"]
                parts = [state[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                found[f"{theirs}attn.in_proj_{kind}"] = torch.cat(parts)
    return found


def roberta_tokenizer(texts: Iterable[str] = WORDS) -> Any:
    """A tokeniser of RoBERTa's kind (bytes, its marks at its numbers), learned from a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tiny_clap(tokens: int) -> ClapModel:
    """CLAP with its text network and its Swin-like sound network, one narrow block a stage."""
    torch.manual_seed(3)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sound = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "enable_fusion": False,
    }
    config = ClapConfig(
        text_config={**text, "vocab_size": tokens, "projection_dim": 512},
        audio_config={**sound, "projection_dim": 512},
        projection_dim=512,
    )
    return ClapModel(config).eval()


def tiny_roberta(tokens: int, layers: int = 3) -> RobertaModel:
    """RoBERTa with a few narrow layers."""
    torch.manual_seed(4)
    config = RobertaConfig(
        vocab_size=tokens,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return shaken(RobertaModel(config, add_pooling_layer=False))


def tiny_imagebind() -> Any:
    """ImageBind with towers of one narrow block."""
    torch.manual_seed(5)
    return shaken(imagebind.build(imagebind.TINY), spread=0.2)


def tiny_mert() -> HubertModel:
    """HuBERT's architecture, which MERT has, with two narrow layers and its seven convolutions."""
    torch.manual_seed(6)
    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    return HubertModel(config).eval()


def tiny_mmva() -> mmva.MMVA:
    """What is trained of MMVA, for encoders of three layers of 16."""
    torch.manual_seed(7)
    return shaken(mmva.MMVA(mmva.Sizes(layers=3, width=16)), spread=0.1)


def make_weights(root: Path) -> None:
    """All weights folders that the sensing networks need, below `root`."""
    tokenizer = roberta_tokenizer()
    tokens = tokenizer.get_vocab_size()
    imagebind.save(tiny_imagebind(), imagebind.TINY, folder_of(root, "imagebind"))
    tiny_clip(1).save_pretrained(folder_of(root, "openai/clip-vit-base-patch32"))
    own = folder_of(root, "pacscore")
    torch.save({"state_dict": openai_names(tiny_clip(2))}, own / "clip_ViT-B-32.pth")
    clip_config().save_pretrained(own)
    save_file(tiny_mmva().state_dict(), folder_of(root, "mmva") / "model.safetensors")
    tiny_mert().save_pretrained(folder_of(root, "m-a-p/MERT-v1-95M"))
    with_tokeniser = {
        "laion/clap-htsat-unfused": tiny_clap(tokens),
        "FacebookAI/roberta-large": tiny_roberta(tokens),
        "FacebookAI/roberta-base": tiny_roberta(tokens, layers=2),
    }
    for name, model in with_tokeniser.items():
        folder = folder_of(root, name)
        model.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
