"""Captions end at a sentence: whatever a model wrote and wherever it was cut, and nothing is made up on the way."""

from __future__ import annotations

import pytest
from full_models.sentences import close, ends, finish, has_words, is_complete, may_stop, plain, split, trim
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(alphabet=st.sampled_from("ab Z1.!?…。\"')*\n\t,é"), max_size=60) | st.text(max_size=60)
WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=9).filter(
    lambda word: (
        word not in ("mr", "mrs", "ms", "dr", "prof", "st", "ste", "mt", "op", "vol", "fig", "cf", "ca")
        and word not in ("approx", "vs", "jr", "sr")
    )
)
SENTENCES = st.lists(WORDS, min_size=2, max_size=6).map(lambda words: " ".join(words) + ".")


@given(TEXTS, st.booleans(), st.booleans())
def test_a_finished_text_is_complete_or_has_no_words(text: str, cut: bool, went_on: bool) -> None:
    finished, ending = finish(text, cut=cut, went_on=went_on)
    if not has_words(text):
        assert finished == ""
    else:
        assert is_complete(finished) and has_words(finished)
        assert ending in ("complete", "continued", "trimmed", "closed")
        # Only the mark at the end may be new.
        assert finished[:-1] in text


@given(TEXTS)
def test_trimming_gives_a_beginning_that_is_complete_and_stays_as_it_is(text: str) -> None:
    trimmed = trim(text)
    assert text.strip().startswith(trimmed)
    assert trimmed == "" or is_complete(trimmed)
    assert trim(trimmed) == trimmed


@given(st.lists(SENTENCES, min_size=1, max_size=5), st.lists(WORDS, min_size=1, max_size=4))
def test_a_cut_text_loses_its_unfinished_sentence_and_nothing_else(sentences: list[str], rest: list[str]) -> None:
    whole = " ".join(sentences)
    assert finish(f"{whole} {' '.join(rest)}", cut=True, went_on=True) == (whole, "trimmed")
    assert finish(whole, cut=False, went_on=False) == (whole, "complete")
    assert finish(whole, cut=False, went_on=True) == (whole, "continued")
    assert split(f"{whole} {' '.join(rest)}") == [*sentences, " ".join(rest)]


@given(TEXTS)
def test_sentences_hold_all_words_of_a_text_in_order(text: str) -> None:
    assert "".join("".join(split(text)).split()) == "".join(text.split())
    assert ends(text) == sorted(set(ends(text)))


@given(TEXTS)
def test_where_a_text_may_stop_it_is_complete(text: str) -> None:
    assert not may_stop(text) or is_complete(text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Painted c. 1890 by J. S. Bach's friend. It is calm.",
            ["Painted c. 1890 by J. S. Bach's friend.", "It is calm."],
        ),
        ("It is in the key of C. Drums enter.", ["It is in the key of C.", "Drums enter."]),
        ("It is 3.5 metres wide. Large!", ["It is 3.5 metres wide.", "Large!"]),
        ("1. Red sails. 2. A pier.", ["1. Red sails.", "2. A pier."]),
        ("St. Paul (a saint.) stands there… alone?", ["St. Paul (a saint.)", "stands there…", "alone?"]),
        ("一片海。很安静。", ["一片海。", "很安静。"]),
    ],
)
def test_what_is_no_end_of_a_sentence_is_not_taken_for_one(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


@pytest.mark.parametrize(
    ("text", "cut", "finished", "ending"),
    [
        ("A quiet sea", False, "A quiet sea.", "closed"),
        ("A quiet sea and the wi", True, "A quiet sea and the.", "closed"),
        ("A quiet sea, by St", True, "A quiet sea, by.", "closed"),
        ("A sea. Sails, red and", True, "A sea.", "trimmed"),
        ("A sea. Sails, red", False, "A sea. Sails, red.", "closed"),
        ("...", True, "", "closed"),
    ],
)
def test_what_has_no_end_is_closed_at_a_word(text: str, cut: bool, finished: str, ending: str) -> None:
    assert finish(text, cut=cut, went_on=True) == (finished, ending)


@pytest.mark.parametrize(
    ("text", "may"), [("In 1888.", False), ("In 1888. ", True), ("It is calm.", True), ("By St.", False)]
)
def test_a_text_that_is_being_written_stops_only_where_a_sentence_surely_ended(text: str, may: bool) -> None:
    assert may_stop(text) is may


def test_what_chat_models_put_around_their_words_is_taken_off() -> None:
    written = (
        "<think>Hm.</think>\n### Colours\n**Light**: the *sea* is `blue`.\n- One sail.\n2. Two sails.\n\n---\nCalm."
    )
    assert plain(written) == "Light: the sea is blue. One sail. Two sails. Calm."
    assert plain("<think>it never ends") == ""


@given(TEXTS)
def test_closing_adds_one_mark_at_most(text: str) -> None:
    closed = close(text)
    assert closed == "" or (is_complete(closed) and closed[:-1] in text)
