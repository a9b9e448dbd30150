"""score_caption: how well a caption fits its picture, or a fused text the texts that it was fused from.

Source: ArtSound, section 3: ICScore = .35 CLIP-Score + .65 PAC-Score for pictures (equation 1), ACScore = .30 ROUGE-1
+ .70 BERTScore for tracks (equation 2).

* CLIP-Score (Hessel et al. 2021): 2.5 max(cos, 0) of picture and caption, the caption after "A photo depicts ".
* PAC-Score (Sarto et al. 2023): 2 max(cos, 0) with its own fine-tuned CLIP ViT-B/32, the same words before it.
* ROUGE-1 (Lin 2004): F of the words in common, words being runs of letters a-z and digits, not stemmed.
* BERTScore (Zhang et al. 2020): F of the best matches of roberta-large's token vectors, layer 17, without idf and
  without rescaling.

Both picture scores read 77 tokens. A caption that is longer is scored sentence by sentence (each after the same
words, a sentence that is too long in pieces), and its score is the mean; `sentences` says how many were scored,
`truncated` whether anything was left out all the same (a single word of more than 75 tokens). The published code does
not limit scores; the paper's Table 1 has maxima of exactly 1, so scores are limited to 1 here unless the parameter
`limited` is "no". The track's texts are taken as one, one after another: the fused text shall keep them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from edge_models.triton_model import Array, Invalid, Row, RowModel, blob, parsed, text

from full_models import calls, pictures
from full_models.sentences import split
from full_models.text_tokens import CONTEXT, ClipTokens, pieces
from full_models.valence_arousal import PairTokens

CLIP_SHARE: Final = 0.35
"""ArtSound, equation 1: gamma."""
ROUGE_SHARE: Final = 0.30
"""ArtSound, equation 2: alpha."""
CLIP_FACTOR, PAC_FACTOR = 2.5, 2.0
BEFORE: Final = "A photo depicts "
"""What both picture scores set before a caption."""


@dataclass(frozen=True)
class _Picture:
    pixels: Array
    texts: list[list[int]]
    """Tokens of the caption, or of each of its sentences."""
    truncated: bool


@dataclass(frozen=True)
class _Track:
    caption: list[list[int]]
    reference: list[list[int]]
    rouge: float


class ScoreCaption(RowModel):
    """KIND ("artwork" or "track"), IMAGE, TEXT, REFERENCES (JSON list of texts), BYTES[1] each -> SCORES BYTES[1].

    SCORES is JSON: {"score", "parts": {"clip_score", "pac_score"} or {"rouge_1", "bert_score"}, "truncated",
    "sentences"}.
    """

    inputs = ("KIND", "IMAGE", "TEXT", "REFERENCES")
    outputs = {"SCORES": object}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Read the tokenisers of CLIP and RoBERTa."""
        limited = self.parameters.get("limited", "yes")
        if limited not in ("yes", "no"):
            raise ValueError(f"the parameter limited is {limited!r}; say yes or no")
        self._limit = 1.0 if limited == "yes" else float("inf")
        self._clip = ClipTokens(self.folder / "clip_tokenizer.json")
        self._bert = PairTokens(self.folder / "bert_tokenizer.json")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """Pictures, sentences and tokens of all rows go to their networks together."""
        made, good = calls.prepared(self._read, rows)
        images = iter(self._image_scores([row for row in good if isinstance(row, _Picture)]))
        tracks = iter(self._track_scores([row for row in good if isinstance(row, _Track)]))
        answers: list[Row | Invalid] = []
        for row in made:
            if isinstance(row, Invalid):
                answers.append(row)
            else:
                scores = next(images if isinstance(row, _Picture) else tracks)
                answers.append({"SCORES": json.dumps(scores)})  # type: ignore[dict-item]
        return answers

    def _read(self, row: Row) -> _Picture | _Track:
        kind, caption = text(row["KIND"], "KIND"), text(row["TEXT"], "TEXT")
        if not caption.strip():
            raise Invalid("TEXT is empty; there is no caption to score")
        if kind == "artwork":
            texts, truncated = self.prefixed(caption)
            return _Picture(pictures.network_input(blob(row["IMAGE"], "IMAGE")), texts, truncated)
        if kind != "track":
            raise Invalid(f"KIND is {kind!r}; send artwork or track")
        references = parsed(row["REFERENCES"], "REFERENCES")
        if not isinstance(references, list) or not all(isinstance(each, str) for each in references):
            raise Invalid("REFERENCES is not a JSON list of texts")
        together = " ".join(each.strip() for each in references if each.strip())
        if not together:
            raise Invalid("REFERENCES holds no text; a track's caption is scored against the texts it was made from")
        return _Track(self._bert.pieces(caption), self._bert.pieces(together), rouge_1(together, caption))

    def prefixed(self, caption: str) -> tuple[list[list[int]], bool]:
        """Tokens of the caption (or of its sentences) after the words that belong before it; truncated or not."""
        numbers, most = self._clip.numbers, CONTEXT - 2
        if len(numbers(BEFORE + caption)) <= most:
            return [numbers(BEFORE + caption)], False
        room = most - len(numbers(BEFORE))
        found = [
            numbers(BEFORE + piece)
            for sentence in split(caption)
            for piece in pieces(sentence, lambda part: len(numbers(part)), room)
        ]
        return found, any(len(each) > most for each in found)

    def _image_scores(self, rows: Sequence[_Picture]) -> list[dict[str, Any]]:
        if not rows:
            return []
        pixels = np.stack([row.pixels for row in rows])
        tokens = np.stack([self._clip.row(numbers) for row in rows for numbers in row.texts])
        clip = self._cosines(rows, "clip_picture", "clip_text", pixels, tokens)
        pac = self._cosines(rows, "pac_picture", "pac_text", pixels, tokens)
        scores = []
        for row, by_clip, by_pac in zip(rows, clip, pac, strict=True):
            clip_score = float(np.mean(np.minimum(CLIP_FACTOR * np.maximum(by_clip, 0), self._limit)))
            pac_score = float(np.mean(np.minimum(PAC_FACTOR * np.maximum(by_pac, 0), self._limit)))
            scores.append(
                {
                    "score": CLIP_SHARE * clip_score + (1 - CLIP_SHARE) * pac_score,
                    "parts": {"clip_score": clip_score, "pac_score": pac_score},
                    "truncated": row.truncated,
                    "sentences": len(row.texts),
                }
            )
        return scores

    def _cosines(
        self, rows: Sequence[_Picture], picture: str, words: str, pixels: Array, tokens: Array
    ) -> list[Array]:
        """Cosines of each row's picture with each of its texts."""
        seen = calls.run(self.call, picture, {"pixels": pixels})
        read = calls.run(self.call, words, {"tokens": tokens})
        found, start = [], 0
        for row, vector in zip(rows, seen, strict=True):
            found.append(read[start : start + len(row.texts)] @ vector)
            start += len(row.texts)
        return found

    def _track_scores(self, rows: Sequence[_Track]) -> list[dict[str, Any]]:
        together = [piece for row in rows for side in (row.caption, row.reference) for piece in side]
        vectors = iter(self._token_vectors(together))
        scores = []
        for row in rows:
            # Marks are matched against, but not counted themselves.
            caption, reference = ([next(vectors) for _ in side] for side in (row.caption, row.reference))
            matched = bert_f(caption, reference)
            bert = min(matched, self._limit)
            scores.append(
                {
                    "score": ROUGE_SHARE * row.rouge + (1 - ROUGE_SHARE) * bert,
                    "parts": {"rouge_1": row.rouge, "bert_score": bert},
                    "truncated": False,
                    "sentences": len(row.caption),
                }
            )
        return scores

    def _token_vectors(self, together: Sequence[Sequence[int]]) -> list[Array]:
        found: list[Array] = []
        for start in range(0, len(together), calls.LARGEST):
            chunk = together[start : start + calls.LARGEST]
            vectors = calls.run(self.call, "bert_text", self._bert.tensors(chunk), "vectors")
            found.extend(vector[: len(piece)] for vector, piece in zip(vectors, chunk, strict=True))
        return found


def rouge_1(reference: str, caption: str) -> float:
    """ROUGE-1's F of a caption against a reference, 0 to 1 (Lin 2004; the package rouge-score, not stemmed)."""
    return float(_rouge()(reference, caption))


def _rouge() -> Callable[[str, str], float]:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=False)
    return lambda reference, caption: scorer.score(reference, caption)["rouge1"].fmeasure


def bert_f(caption: Sequence[Array], reference: Sequence[Array]) -> float:
    """BERTScore's F, without idf.

    Each token of one side is matched with its nearest of the other; means over the caption's tokens (precision) and
    over the reference's (recall). The first and last vector of every piece are its marks: they may be matched, but
    are not counted.

    Args:
        caption, reference: token vectors of each piece, [tokens, width] of unit length.
    """
    ours, theirs = np.concatenate(list(caption)), np.concatenate(list(reference))
    similar = ours @ theirs.T
    precision = similar.max(axis=1)[_counted(caption)].mean()
    recall = similar.max(axis=0)[_counted(reference)].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def _counted(side: Sequence[Array]) -> Array:
    return np.concatenate([np.arange(len(piece)) % (len(piece) - 1) != 0 for piece in side])
