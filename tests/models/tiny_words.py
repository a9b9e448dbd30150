"""The models of words at a tiny size: the same architectures and files as published, random weights, own tokenisers.

`teach` gives such a network something to say: its random layers stay as they are, and its last layer is solved in
closed form so that it answers chosen questions with chosen words. So a test can tell that a picture, a sound or a
sentence really reached the words, and that the words came back through every layer, template and batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from full_models.chat import Question, Speaker
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperFeatureExtractor,
)

from networks.music_captioner import MusicCaptionerNetwork

CORPUS = (
    "A quiet harbour at dusk, with red sails and a pale sky. The picture is calm and a little sad. "
    "Drums and a fiddle play a fast dance; the mood is joyful. The piece grows slower and softer towards its end. "
    "Describe this picture: what it shows, its colours, its composition, and the feelings it stirs. "
    "RGB: (0, 0, 0) (12, 34, 56) (78, 90, 11) (213, 145, 167) (189, 201, 223) (245, 255, 128)\n"
    "system user assistant description of its top left first quarter the whole picture piece of music\n"
)
"""What the tokenisers are made from."""

_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for piece in message['content'] %}{% if piece['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ piece['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The form of chat that Qwen's models were taught (ChatML)."""

_MISTRAL_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {% for piece in message['content'] %}"
    "{% if piece['type'] == 'image' %}<image>\n{% else %}{{ piece['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %}{{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
"""The form of chat that Mistral's models were taught; it has no system role."""

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
)


def _bytes_tokenizer(special: Sequence[str], words: int = 420) -> Tokenizer:
    """Byte-level pairs, as Qwen's, learned from the corpus: every text can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen's: no token begins a text, a turn ends with <|im_end|>, padding is <|endoftext|>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_bytes_tokenizer(QWEN_SPECIAL),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[each for each in QWEN_SPECIAL if each not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=_CHAT,
    )


def _text_sizes(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "initializer_range": 0.12,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _finished(network: Any, tokenizer: Any, folder: Path) -> None:
    ends = (
        [tokenizer.eos_token_id]
        if tokenizer.pad_token == "<pad>"
        else [tokenizer.eos_token_id, tokenizer.pad_token_id]
    )
    network.generation_config.eos_token_id = ends
    # Published with samplers and penalties, which must not leak into answers.
    network.generation_config.do_sample = True
    network.generation_config.temperature = 0.7
    network.generation_config.repetition_penalty = 1.05
    network.save_pretrained(folder)


def writer(folder: Path) -> Path:
    """A Qwen3 in this folder."""
    torch.manual_seed(1)
    tokenizer = qwen_tokenizer()
    network = Qwen3ForCausalLM(Qwen3Config(**_text_sizes(tokenizer), head_dim=16))
    _finished(network, tokenizer, folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen_pictures(folder: Path) -> Path:
    """A Qwen2.5-VL in this folder."""
    torch.manual_seed(2)
    tokenizer = qwen_tokenizer()
    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            **_text_sizes(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 10, 10], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 192,
            "fullatt_block_indexes": [1],
            "window_size": 56,
            "initializer_range": 0.12,
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    _finished(Qwen2_5_VLForConditionalGeneration(config), tokenizer, folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}).save_pretrained(folder)
    return folder


def llava_pictures(folder: Path) -> Path:
    """A LLaVA-1.6-Mistral in this folder."""
    torch.manual_seed(3)
    special = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
    raw = _bytes_tokenizer(special)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    config = LlavaNextConfig(
        text_config=MistralConfig(
            **{**_text_sizes(tokenizer), "bos_token_id": tokenizer.bos_token_id}, sliding_window=None
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            projection_dim=32,
            initializer_range=0.12,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    network = LlavaNextForConditionalGeneration(config)
    # transformers leaves the line break between rows of tiles as it finds the memory.
    torch.nn.init.normal_(network.model.image_newline, std=0.1)
    _finished(network, tokenizer, folder)
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
    )
    LlavaNextProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_MISTRAL_CHAT,
    ).save_pretrained(folder)
    return folder


def qwen_sounds(folder: Path) -> Path:
    """A Qwen2-Audio in this folder; it hears 30 s at 16 kHz, as published, in 16 bands of frequency."""
    torch.manual_seed(4)
    tokenizer = qwen_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 32,
            "max_source_positions": 1500,
            "initializer_range": 0.12,
        },
        text_config={**_text_sizes(tokenizer), "model_type": "qwen2"},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=False,
    )
    _finished(Qwen2AudioForConditionalGeneration(config), tokenizer, folder)
    hearing = WhisperFeatureExtractor(feature_size=16, sampling_rate=16_000, chunk_length=30)
    # With no template given the library sets the published one.
    Qwen2AudioProcessor(hearing, tokenizer).save_pretrained(folder)
    return folder


def music_captioner(folder: Path) -> tuple[Path, Path]:
    """An LP-MusicCaps: the folder of its checkpoint, stored as published (a state among other things, each name with
    the prefix that distributed training leaves), and the folder of BART's configuration and tokeniser."""
    torch.manual_seed(5)
    special = ("<s>", "<pad>", "</s>", "<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_bytes_tokenizer(special),
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=160,
        init_std=0.2,
    )
    network = MusicCaptionerNetwork(config)
    checkpoint, words = folder / "checkpoint", folder / "words"
    checkpoint.mkdir(parents=True)
    state = {f"module.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, checkpoint / "transfer.pth")
    config.save_pretrained(words)
    tokenizer.save_pretrained(words)
    return checkpoint, words


def talkative(folder: Path) -> Path:
    """The network in this folder, made to never find an end or a mark the likeliest next word: it always says
    something, as long as it may. (Random networks begin with an end now and then, and so say nothing.)"""
    path = folder / "model.safetensors"
    state = load_file(path)
    (head,) = (name for name in state if name.endswith("lm_head.weight"))
    # All other words' logits are random and of both signs, so that some word's lies above nothing.
    state[head][PreTrainedTokenizerFast.from_pretrained(folder).all_special_ids] = 0
    save_file(state, path, metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def teach(speaker: Speaker, lessons: Sequence[tuple[Question, str]], *, ends: bool = True) -> None:
    """Solve the last layer so that the network says these words to these questions; `ends`: and then stops.

    With X the last layer's inputs at all taught places and Y one row a place, 12 at the right token and 0 elsewhere,
    its weights become the least-norm solution of X W = Y: exact while there are fewer places than dimensions.

    Raises:
        ValueError: there are too many places, or the questions are too much alike to be told apart.
    """
    head = speaker.model.get_output_embeddings()
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].double()))
    places, said = [], []
    for question, words in lessons:
        tokens = speaker.tokenizer(words, add_special_tokens=False)["input_ids"]
        if ends:
            tokens = [*tokens, speaker.tokenizer.eos_token_id]
        tensors = _extended(speaker.prepare([question]), tokens[:-1])
        speaker.model(**{name: tensor.to(speaker.model.device) for name, tensor in tensors.items()})
        places.append(seen.pop()[-len(tokens) :])
        said.extend(tokens)
    hook.remove()
    inputs = torch.cat(places)
    if len(inputs) > inputs.shape[1]:
        raise ValueError(f"{len(inputs)} places to teach in {inputs.shape[1]} dimensions: teach less")
    wanted = torch.zeros(len(inputs), head.weight.shape[0], dtype=torch.float64)
    wanted[torch.arange(len(inputs)), torch.tensor(said)] = 12.0
    solved = torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution
    if (inputs @ solved - wanted).abs().max() > 0.5:
        raise ValueError("the questions are too much alike to be told apart")
    head.weight.copy_(solved.T)


def _extended(tensors: Mapping[str, torch.Tensor], tokens: Sequence[int]) -> dict[str, torch.Tensor]:
    """The tensors of one question, with the beginning of its answer."""
    more = torch.tensor([list(tokens)], dtype=torch.long)
    added = {"input_ids": more, "attention_mask": torch.ones_like(more), "mm_token_type_ids": torch.zeros_like(more)}
    return {
        name: torch.cat([tensor, added[name]], dim=1) if name in added else tensor for name, tensor in tensors.items()
    }
