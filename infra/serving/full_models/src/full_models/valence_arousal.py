"""va_picture, va_sound, va_text and match_va of the full profile: MMVA's towers, or the edge profile's rules.

With MMVA's towers (`full_models.reading` says when) media and texts are read by them: CLIP's picture network, MERT
and RoBERTa, each with a head that reads valence and arousal in [0, 1]. Without, the edge profile's own code reads
measurements and words. A request shows by what it holds which reading it expects: the pipeline sends the media only
where its profile says that they are read. Where the model reads the other way (towers were made, and one of the two
was started since), it does not answer, so that the pipeline waits instead of writing a reading under a false name.

Source of the towers and of the match: MMVA, its sections on the model and on retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from edge_models import valence_arousal as by_rule
from edge_models.matching import MatchVa
from edge_models.minilm import TextVectors
from edge_models.norms import Norms
from edge_models.sound import read_windows
from edge_models.triton_model import Array, Invalid, Row, RowModel, Unavailable, blob, each, finite, text

from full_models import calls, mmva_inputs, pictures
from full_models.reading import reading_of
from full_models.text_tokens import pieces
from full_models.weights import Choices

SAMPLE_RATE: Final = 16_000
"""Of SOUND, in every profile."""
MOST_TOKENS: Final = 510
"""RoBERTa reads 512 tokens, the two marks included."""
MINILM_TOKENIZER: Final = "minilm_tokenizer.json"
_TOWER: Final = ("vector", "va")
_NONE: Final = np.zeros(0, np.float32)
"""EMBEDDING of a reading by rule."""

Point = tuple[Array, Array]
"""A tower's embedding [512] and its valence and arousal [2]."""


class _Reader(RowModel):
    """Base of the three: VA FP32[2] in [0,1], and EMBEDDING FP32[512], or FP32[0] by rule."""

    outputs = {"VA": np.float32, "EMBEDDING": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Settle on a reading, and read what it needs."""
        model = self.folder.absolute().parent.name
        self.reading = reading_of(Choices(model, self.parameters, self.folder), self.folder)
        if self.reading.by_towers:
            self.prepare_towers()
        else:
            self.prepare_rules()

    def prepare_towers(self) -> None:
        """Read what the towers need."""

    def prepare_rules(self) -> None:
        """Read what the rules need: the word norms."""
        self._norms = Norms.read(self.folder / by_rule.NORMS)

    def agree(self, has_medium: bool) -> None:
        """Check that the request expects this reading.

        Raises:
            Unavailable: it expects the other one.
        """
        if has_medium and not self.reading.by_towers:
            raise Unavailable("MMVA's towers are not served here; start the model server again, or send measurements")
        if self.reading.by_towers and not has_medium:
            raise Unavailable("MMVA's towers are served here since; start the workers again, or send the medium")

    def points(self, model: str, inputs: dict[str, Array]) -> list[Point]:
        """A tower's answers, row by row."""
        answer = calls.run_all(self.call, model, inputs, _TOWER)
        return list(zip(answer["vector"], answer["va"], strict=True))


def _answer(point: Point) -> Row:
    return {"EMBEDDING": point[0], "VA": point[1]}


def _averaged(points: Sequence[Point], weights: Sequence[float] | None = None) -> Row:
    """The mean of a row's pieces, of embeddings as of readings."""
    embeddings, readings = zip(*points, strict=True)
    return _answer((np.average(embeddings, axis=0, weights=weights), np.average(readings, axis=0, weights=weights)))


class VaPicture(_Reader):
    """IMAGE BYTES[1] (towers) or MEASUREMENTS BYTES[1] (rules; IMAGE is empty then) -> VA, EMBEDDING."""

    inputs = ("IMAGE", "MEASUREMENTS")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """All pictures that can be decoded in one run of the network."""
        for row in rows:
            self.agree(bool(blob(row["IMAGE"], "IMAGE")))
        if not self.reading.by_towers:
            return each(lambda row: _answer((_NONE, by_rule.point_of_measurement(row, "picture", self._norms))), rows)
        made, good = calls.prepared(lambda row: pictures.network_input(blob(row["IMAGE"], "IMAGE")), rows)
        points = iter(self.points("mmva_picture", {"pixels": np.stack(good)}) if good else ())
        return [row if isinstance(row, Invalid) else _answer(next(points)) for row in made]


class VaSound(_Reader):
    """SOUND FP32[W, N] (windows at 16 kHz), LENGTHS INT32[W] (towers), or MEASUREMENTS BYTES[1] (rules; LENGTHS are
    zero then) -> VA, EMBEDDING.

    Towers: the mean of the readings of clips of 10 s over all windows.
    """

    inputs = ("SOUND", "LENGTHS", "MEASUREMENTS")

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The clips of all sounds together."""
        for row in rows:
            self.agree(bool(np.any(row["LENGTHS"])))
        if not self.reading.by_towers:
            return each(lambda row: _answer((_NONE, by_rule.point_of_measurement(row, "sound", self._norms))), rows)
        made, good = calls.prepared(self._clips, rows)
        together = [clip for clips in good for clip in clips]
        points = self.points("mmva_sound", {"samples": np.stack(together)}) if together else ()
        return calls.put_together(made, points, lambda own, _: _averaged(own))

    def _clips(self, row: Row) -> list[Array]:
        import soxr

        heard = read_windows(row["SOUND"], row["LENGTHS"])
        resampled = [soxr.resample(window, SAMPLE_RATE, mmva_inputs.SAMPLE_RATE) for window in heard]
        clips = [clip for window in resampled if len(window) for clip in mmva_inputs.clips_of(window)]
        if not clips:
            raise Invalid("the sound is shorter than a sample at 24 kHz")
        return clips


class VaText(_Reader):
    """TEXT BYTES[1] -> VA, EMBEDDING; the middle, (.5, .5), and zeros for an empty text. Towers: longer texts are
    read in pieces, which count by their tokens."""

    inputs = ("TEXT",)

    def prepare_towers(self) -> None:
        """Read RoBERTa's tokeniser."""
        self._tokens = PairTokens(self.folder / "tokenizer.json")

    def prepare_rules(self) -> None:
        """Read the word norms and MiniLM's tokeniser."""
        vectors = TextVectors(
            self.folder / MINILM_TOKENIZER,
            lambda tokens: self.call("minilm", tokens, ["last_hidden_state"])["last_hidden_state"],
        )
        self._rules = by_rule.TextReader(self.folder, lambda said: list(vectors.embed(said)))

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """The sentences, or the pieces, of all texts together."""
        if not self.reading.by_towers:
            said, texts = calls.prepared(lambda row: text(row["TEXT"], "TEXT"), rows)
            points = iter(self._rules.points(texts))
            return [one if isinstance(one, Invalid) else _answer((_NONE, next(points))) for one in said]
        made, good = calls.prepared(lambda row: self._tokens.pieces(text(row["TEXT"], "TEXT")), rows)
        together = [piece for each_row in good for piece in each_row]
        return calls.put_together(made, self._read(together), _of_pieces)

    def _read(self, together: Sequence[Sequence[int]]) -> list[Point]:
        found: list[Point] = []
        for start in range(0, len(together), calls.LARGEST):
            tensors = self._tokens.tensors(together[start : start + calls.LARGEST])
            found.extend(self.points("mmva_text", tensors))
        return found


def _of_pieces(own: list[Point], parts: Sequence[Sequence[int]]) -> Row:
    """The reading of a text from those of its pieces; the middle where it has none."""
    if not parts:
        return _answer((np.zeros(512), np.array([0.5, 0.5])))
    return _averaged(own, [len(part) for part in parts])


class Match(MatchVa):
    """ARTWORK_VA, TRACK_VA FP32[2], SIGMA FP32[1], EMBEDDINGS FP32[3,512] (picture, sound, text; may be left out)
    -> SCORE FP32[1] (Equation 1), LEARNED FP32[1] (the predictor of similarity; not a number without EMBEDDINGS).

    Retrieval and pairing compare by SCORE, as the paper does; the predictor is what its training adds, and its
    table 1 measures it.
    """

    optional = ("EMBEDDINGS",)
    outputs = {"SCORE": np.float32, "LEARNED": np.float32}  # noqa: RUF012 - declared as ClassVar in the base

    def load(self) -> None:
        """Settle on a reading: without towers nothing was learned."""
        model = self.folder.absolute().parent.name
        self.reading = reading_of(Choices(model, self.parameters, self.folder), self.folder)

    def answer(self, rows: Sequence[Row]) -> list[Row | Invalid]:
        """One score a row; the learned ones in one run of the network."""
        made, good = calls.prepared(self._embeddings, rows)
        told = [each_row for each_row in good if each_row is not None]
        learned = iter(self._learned(np.stack(told)) if told else ())
        answers: list[Row | Invalid] = []
        for scored, embeddings in zip(super().answer(rows), made, strict=True):
            said = next(learned) if isinstance(embeddings, np.ndarray) else np.full(1, np.nan)
            refused = next((each_one for each_one in (scored, embeddings) if isinstance(each_one, Invalid)), None)
            answers.append(refused or {**scored, "LEARNED": said})  # type: ignore[dict-item]
        return answers

    def _embeddings(self, row: Row) -> Array | None:
        if "EMBEDDINGS" not in row:
            return None
        if not self.reading.by_towers:
            raise Invalid("EMBEDDINGS are compared by MMVA's predictor, which is not made here: promenade train va")
        return finite(row["EMBEDDINGS"], "EMBEDDINGS")

    def _learned(self, embeddings: Array) -> Array:
        """[n, 3, 512] -> [n, 1]."""
        picture, sound, words = (np.ascontiguousarray(embeddings[:, place]) for place in range(3))
        return calls.run(
            self.call, "mmva_similarity", {"picture": picture, "sound": sound, "text": words}, "similarity"
        )


class PairTokens:
    """RoBERTa's tokeniser: texts as tokens between its two marks, padded to the longest of a call.

    Args:
        path: the published `tokenizer.json`.
    """

    def __init__(self, path: object) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.start, self.end, self.padding = (self._number(mark, path) for mark in ("<s>", "</s>", "<pad>"))

    def _number(self, mark: str, path: object) -> int:
        number = self._tokenizer.token_to_id(mark)
        if number is None:
            raise ValueError(f"{path} is no tokeniser of RoBERTa's kind: it has no {mark}")
        return int(number)

    def numbers(self, said: str) -> list[int]:
        """Tokens of a text without marks; the first word counts as one inside a text."""
        return list(self._tokenizer.encode(f" {said.strip()}", add_special_tokens=False).ids)

    def pieces(self, said: str) -> list[list[int]]:
        """Tokens with marks, piece by piece; none for an empty text."""
        if not said.strip():
            return []
        cut = pieces(said, lambda part: len(self.numbers(part)), MOST_TOKENS)
        return [[self.start, *self.numbers(piece)[:MOST_TOKENS], self.end] for piece in cut]

    def tensors(self, rows: Sequence[Sequence[int]]) -> dict[str, Array]:
        """`tokens` and `mask` int64 [n, longest], as the networks take them."""
        longest = max(len(row) for row in rows)
        tokens = np.full((len(rows), longest), self.padding, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return {"tokens": tokens, "mask": mask}
