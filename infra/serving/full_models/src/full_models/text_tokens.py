"""Texts as numbers: the byte-pair tokeniser that CLIP, PAC-S and ImageBind share, and long texts in pieces.

The tokeniser is kept as a `tokenizer.json` in the folder of the model that needs it; the export writes it there, from
a weights folder or from the published list of merges. Networks of this kind read 77 tokens; a longer text is cut
into pieces at the ends of sentences, so that nothing of it is lost in silence.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from full_models.sentences import split

CONTEXT: Final = 77
"""Tokens that CLIP's text network reads, first and last mark included (CLIP, section 2.4)."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_MERGES: Final = 49152 - 256 - 2
"""Merges that CLIP's vocabulary of 49,408 uses of the published list, which is longer."""
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Integers = npt.NDArray[np.int64]


def cleaned(text: str) -> str:
    """What the published tokenisers see: mended encoding, HTML entities resolved, white space single, lower case."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", mended).strip().lower()


def tokenizer_of_merges(path: Path) -> str:
    """A `tokenizer.json` of the published list of merges (`bpe_simple_vocab_16e6.txt.gz`).

    The vocabulary is that of CLIP: 256 bytes, the same at the end of a word, one entry for each merge, two marks.

    Raises:
        ValueError: the file is no such list.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1] if line.strip()]
    if not merges or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{path} is no list of byte-pair merges")
    # Printable bytes stand for themselves and come first; the others are shifted out of the way (Radford et al.,
    # GPT-2: bytes as visible characters).
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    characters = [chr(byte) for byte in visible] + [chr(256 + place) for place in range(len(hidden))]
    entries = [
        *characters,
        *(f"{one}</w>" for one in characters),
        *("".join(merge) for merge in merges),
        _START,
        _END,
    ]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=_END, end_of_word_suffix="</w>")  # type: ignore[arg-type]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return str(tokenizer.to_str())


class ClipTokens:
    """The tokeniser of CLIP, PAC-S and ImageBind.

    Args:
        path: its `tokenizer.json`: ours (`tokenizer_of_merges`), or that of CLIP's published folder.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.start = self._number(_START, path)
        self.end = self._number(_END, path)

    def _number(self, mark: str, path: Path) -> int:
        number = self._tokenizer.token_to_id(mark)
        if number is None:
            raise ValueError(f"{path} is no tokeniser of CLIP's kind: it has no {mark}")
        return int(number)

    def numbers(self, text: str) -> list[int]:
        """The text's tokens without marks."""
        return list(self._tokenizer.encode(cleaned(text), add_special_tokens=False).ids)

    def row(self, numbers: Sequence[int]) -> Integers:
        """Tokens as a network takes them, int64 [77]: mark, at most 75 tokens, mark, zeros.

        The mark at the end has the highest number; the networks read the text's vector where it stands.
        """
        kept = [self.start, *numbers[: CONTEXT - 2], self.end]
        row = np.zeros(CONTEXT, np.int64)
        row[: len(kept)] = kept
        return row


def pieces(text: str, count: Callable[[str], int], most: int) -> list[str]:
    """A text in pieces of at most `most` tokens, cut at ends of sentences; a longer sentence is cut between words.

    Sentences are packed: a piece takes as many whole ones as it holds. An empty text is one empty piece. A single
    word that is longer than a piece stays whole.

    Args:
        text: any text.
        count: tokens of a text, without marks.
        most: tokens that a piece may have, without marks.
    """
    found: list[str] = []
    for sentence in split(text):
        if found and count(f"{found[-1]} {sentence}") <= most:
            found[-1] = f"{found[-1]} {sentence}"
        elif count(sentence) <= most:
            found.append(sentence)
        else:
            found.extend(_words(sentence, count, most))
    return found or [""]


def _words(sentence: str, count: Callable[[str], int], most: int) -> list[str]:
    found: list[str] = []
    for word in sentence.split():
        if found and count(f"{found[-1]} {word}") <= most:
            found[-1] = f"{found[-1]} {word}"
        else:
            found.append(word)
    return found


def tokenizer_of_folder(folder: Path) -> Any:
    """The `tokenizer.json` of a published folder, without padding and truncation."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
