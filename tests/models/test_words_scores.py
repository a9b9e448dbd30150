"""The emotion line: every spelling is read, nothing else is, and what cannot be read is asked again, then refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from edge_models.triton_model import Array, Invalid
from full_models.score_emotion import Item, Scored, Unreadable, read, score
from full_models.writing import Asking, column
from hypothesis import given, settings
from hypothesis import strategies as st

VALUE = st.integers(0, 255)
TRIPLES = st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=5, max_size=5)
Triple = tuple[int, int, int]

SPELLINGS: dict[str, Callable[[Sequence[Triple]], str]] = {
    "as asked": lambda all: "RGB: " + " ".join(f"({r},{g},{b})" for r, g, b in all),
    "with commas": lambda all: "RGB: " + ", ".join(f"({r}, {g}, {b})" for r, g, b in all),
    "functions": lambda all: "\n".join(f"rgb({r},{g},{b})" for r, g, b in all),
    "a nested list": lambda all: json.dumps([list(each) for each in all]),
    "letters": lambda all: "\n".join(f"R: {r}, G: {g}, B: {b}" for r, g, b in all),
    "letters in brackets": lambda all: "RGB: " + " ".join(f"(R={r}, G={g}, B={b})" for r, g, b in all),
    "names": lambda all: "; ".join(f"Red: {r} Green: {g} Blue: {b}" for r, g, b in all),
    "bare, by semicolons": lambda all: "RGB: " + "; ".join(f"{r},{g},{b}" for r, g, b in all),
    "bare, by lines": lambda all: "\n".join(f"{r}, {g}, {b}" for r, g, b in all),
    "hexadecimal": lambda all: " ".join(f"#{r:02x}{g:02X}{b:02x}" for r, g, b in all),
    "labelled": lambda all: "\n".join(f"Fragment {n}: ({r},{g},{b})" for n, (r, g, b) in enumerate(all, 1)),
    "a marker each": lambda all: "\n".join(f"Part {n}: RGB: ({r},{g},{b})" for n, (r, g, b) in enumerate(all, 1)),
    "fenced, after a thought": lambda all: (
        "<think>(1,2,3) or so</think>\n```text\nRGB: " + " ".join(f"({r},{g},{b})" for r, g, b in all) + "\n```"
    ),
    "after talk": lambda all: "Of (R, G, B), here it is:\nRGB: " + "".join(f"[{r} {g} {b}]" for r, g, b in all),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=30)
@given(triples=TRIPLES)
def test_five_triples_are_read_in_every_spelling(spelling: str, triples: list[Triple]) -> None:
    said = read(SPELLINGS[spelling](triples))
    assert said.triples == tuple(triples)
    assert not said.clamped


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=30)
@given(triples=st.lists(st.tuples(VALUE, VALUE, VALUE), max_size=11).filter(lambda all: len(all) != 5))
def test_any_other_number_of_triples_is_no_answer(spelling: str, triples: list[Triple]) -> None:
    with pytest.raises(Unreadable):
        read(SPELLINGS[spelling](triples))


@given(triples=TRIPLES, at=st.integers(0, 200))
def test_a_line_that_is_cut_is_no_answer(triples: list[Triple], at: int) -> None:
    line = SPELLINGS["as asked"](triples)
    if at < len(line):
        with pytest.raises(Unreadable):
            read(line[:at])


@given(st.text(alphabet="RGBrgb:=()[]{},;/# 0123456789-.\nax", max_size=120) | st.text(max_size=80))
def test_whatever_is_said_five_triples_in_range_are_read_or_a_fault_is_named(reply: str) -> None:
    try:
        said = read(reply)
    except Unreadable as fault:
        assert str(fault)
    else:
        assert np.array(said.triples).shape == (5, 3)
        assert np.min(said.triples) >= 0 and np.max(said.triples) <= 255


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", "no triples"),
        ("I feel calm.", "no triples"),
        ("RGB: (1,2,3) (1,2,3) (1,2,3) (1,2,3)", "4 triples instead of five"),
        ("RGB: (1,2,3) (1,2,3) (1,2,3) (1,2,3) (1,2", "does not have three"),
        ("RGB: (1,2) (1,2,3) (1,2,3) (1,2,3) (1,2,3) (1,2,3)", "does not have three"),
        ("RGB: (1,2,3,4) (1,2,3) (1,2,3) (1,2,3) (1,2,3) (1,2,3)", "does not have three"),
        ("RGB: (.1,.2,.3)" + " (0.1,0.2,0.3)" * 5, "does not have three|shares of one"),
        ("RGB:" + " (0.1,0.2,0.3)" * 5, "shares of one"),
        ("RGB: (1,2,3) (1,2,3) R: 1, G: 2, B: 3", "two ways"),
        ("1, 2, 3, 4", "4 numbers instead of fifteen"),
        ("(1,2,3) " * 10, "10 triples instead of five"),
    ],
)
def test_the_fault_is_named(reply: str, fault: str) -> None:
    with pytest.raises(Unreadable, match=fault):
        read(reply)


def test_values_beyond_the_range_are_clamped_and_it_is_said() -> None:
    said = read("RGB: (300,-4,12) (0,0,0) (1,1,1) (2,2,2) (3,3,3)")
    assert said.triples[0] == (255, 0, 12)
    assert said.clamped


GOOD = "RGB: (1,2,3) (40,50,60) (7,8,9) (100,200,250) (255,0,12)"
READ = [[1, 2, 3], [40, 50, 60], [7, 8, 9], [100, 200, 250], [255, 0, 12]]


class Served:
    """Stands for the served models: a script of replies by the first description, and VA from a text's length."""

    def __init__(self, scripts: Mapping[str, Sequence[str]]) -> None:
        self.scripts = scripts
        self.conversations: list[list[dict[str, str]]] = []
        self.calls: list[tuple[str, int]] = []

    def __call__(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        rows = len(next(iter(inputs.values())))
        self.calls.append((model, rows))
        if model == "va_text":
            return {"VA": np.array([[len(text) % 10 / 10, 0.25] for text in inputs["TEXT"][:, 0]], np.float32)}
        replies = []
        for spelled in inputs["MESSAGES"][:, 0]:
            messages = json.loads(spelled)
            self.conversations.append(messages)
            (script,) = (script for words, script in self.scripts.items() if words in messages[1]["content"])
            if script == ["refuse"]:
                raise Invalid("too long")
            replies.append(script[min(len(messages) // 2 - 1, len(script) - 1)])
        return {"TEXT": column(replies), "ENDING": column([""] * len(replies))}


def item(words: str, kind: str = "artwork") -> Item:
    return Item.of([f"{words} {part}." for part in ("one", "two", "three", "four", "whole")], kind)


def test_a_reply_that_reads_is_the_score_and_the_texts_give_valence_and_arousal() -> None:
    served = Served({"sea": [GOOD]})
    (scored,) = score([item("sea")], served, Asking(), 4)
    assert isinstance(scored, Scored)
    assert scored.rgb.tolist() == READ
    assert np.allclose(scored.va, [[0.8, 0.25], [0.8, 0.25], [0.0, 0.25], [0.9, 0.25], [0.0, 0.25]])
    evidence = [json.loads(each) for each in scored.evidence]
    assert evidence[3][0]["what"] == "movement 100, calm 200, nostalgia 250"
    assert evidence[3][0]["effect"] == {"r": 100.0, "g": 200.0, "b": 250.0, "valence": 0.0, "arousal": 0.0}
    assert evidence[3][1]["effect"]["valence"] == pytest.approx(0.4)
    assert evidence[4][0]["reply"] == GOOD and evidence[0][0]["asked"] == 1


def test_a_reply_that_does_not_read_is_asked_again_with_its_fault_named() -> None:
    served = Served({"sea": ["I feel calm.", "RGB: (1,2,3)", GOOD]})
    (scored,) = score([item("sea")], served, Asking(), 4)
    assert isinstance(scored, Scored)
    assert scored.rgb.tolist() == READ
    assert json.loads(scored.evidence[0])[0]["asked"] == 3
    last = served.conversations[-1]
    assert [each["role"] for each in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[2]["content"] == "I feel calm." and "no triples" in last[3]["content"]
    assert last[4]["content"] == "RGB: (1,2,3)" and "1 triple instead of five" in last[5]["content"]


def test_what_never_reads_is_refused_and_nothing_is_made_up() -> None:
    served = Served({"sea": ["It is blue."], "fog": [GOOD]})
    refused, scored = score([item("sea"), item("fog", "track")], served, Asking(), 3)
    assert isinstance(refused, Invalid)
    assert "asked 3 times" in str(refused) and "no triples" in str(refused) and "It is blue." in str(refused)
    assert isinstance(scored, Scored) and scored.rgb.tolist() == READ
    # The first round asks about both together, later ones only about who has no answer; VA only for who has one.
    assert served.calls == [("write_text", 2), ("write_text", 1), ("write_text", 1), ("va_text", 5)]


def test_a_conversation_that_the_writer_refuses_fails_alone() -> None:
    served = Served({"sea": ["refuse"], "fog": [GOOD]})
    refused, scored = score([item("sea"), item("fog")], served, Asking(), 3)
    assert isinstance(refused, Invalid) and str(refused) == "too long"
    assert isinstance(scored, Scored)


def test_a_long_text_is_cut_back_to_a_sentence_and_it_is_said() -> None:
    long = Item.of(["A calm sea. " * 1000, *["Fog."] * 4], "artwork")
    assert long.shortened == (True, False, False, False, False)
    assert len(long.texts[0]) <= 6000 and long.texts[0].endswith("sea.")
    (scored,) = score([long], Served({"Fog": [GOOD]}), Asking(), 1)
    assert isinstance(scored, Scored)
    assert json.loads(scored.evidence[0])[0]["shortened"] is True


@pytest.mark.parametrize(
    ("texts", "kind", "why"),
    [
        (["a"] * 4, "artwork", "five are expected"),
        (["a", "b", " ", "d", "e"], "artwork", r"TEXTS\[2\] is empty"),
        (["a"] * 5, "film", "KIND"),
    ],
)
def test_what_is_no_item_is_refused(texts: list[str], kind: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Item.of(texts, kind)
