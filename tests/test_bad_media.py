"""Every case of the bad corpus ends as it has to, within limits of time and memory, and the pool goes on.

How other parts treat the same files (ingest's report, dead letters) is left to their tests.
"""

from __future__ import annotations

import asyncio
import re
import resource
import time
from pathlib import Path

import pytest

from schemas.failures import Lasting
from schemas.media import Kind
from tests.bad_corpus import Case, encoded, make_corpus, picture
from workers.media.parts import picture_parts, sound_parts
from workers.media.pool import DecoderPool, Prepared

NOT_PLAIN = re.compile(
    r"Traceback|Error\b|Exception|errno|\bNone\b|<class|0x[0-9a-f]{4}|/proc|site-packages|\n", re.I
)
"""What a person should not have to read in a reason."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return make_corpus(tmp_path_factory.mktemp("bad corpus"))


async def _outcomes(cases: list[Case], pool: DecoderPool) -> dict[str, Prepared | Lasting]:
    async def one(case: Case) -> Prepared | Lasting:
        try:
            return await pool.prepare(case.path)
        except Lasting as refusal:
            return refusal

    return dict(zip([case.name for case in cases], await asyncio.gather(*map(one, cases)), strict=True))


async def test_every_bad_file_ends_as_a_good_item_or_with_a_plain_reason(corpus: list[Case]) -> None:
    assert len(corpus) >= 60
    assert len({case.name for case in corpus}) == len(corpus)
    wrong: list[str] = []
    began = time.monotonic()
    async with DecoderPool() as pool:
        outcomes = await _outcomes(corpus, pool)
        fine = await pool.prepare(encoded(picture(), "PNG"))
    took = time.monotonic() - began
    assert fine.kind is Kind.ARTWORK
    for case in corpus:
        outcome = outcomes[case.name]
        if isinstance(outcome, Lasting):
            said = f"refused: {outcome.reason} | {outcome.advice}"
            right = case.expectation == "refused" and case.reason_contains in outcome.reason.lower()
            plain = not NOT_PLAIN.search(str(outcome)) and outcome.reason.endswith(".") and outcome.advice
            unforeseen = "does not know" in outcome.reason or "ended its process" in outcome.reason
            if not (right and plain) or unforeseen:
                wrong.append(f"{case.name}: {said}")
        else:
            said = f"good: {outcome.kind} {outcome.facts}"
            noted = any(case.note_contains in note for note in outcome.facts.notes) or not case.note_contains
            if case.expectation != "good" or outcome.kind != case.kind or not noted:
                wrong.append(f"{case.name}: {said}")
                continue
            cut = picture_parts if outcome.kind is Kind.ARTWORK else sound_parts
            assert len(cut(outcome.rendition)) == 5, case.name
    assert not wrong, "\n".join(wrong)
    # Generous: the whole takes seconds; one file that ran to its own limit would take a minute.
    assert took < pool.limits.processor_seconds
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < pool.limits.memory_bytes


async def test_pictures_turned_by_exif_all_look_the_same_way_up(corpus: list[Case]) -> None:
    cases = [case for case in corpus if case.name.startswith("EXIF direction ") and case.name[-1].isdigit()]
    assert len(cases) == 8
    async with DecoderPool() as pool:
        for case in cases:
            prepared = await pool.prepare(case.path)
            direction = int(case.name[-1])
            size = (prepared.facts.width, prepared.facts.height)
            assert size == ((120, 160) if direction >= 5 else (160, 120)), case.name


async def test_the_same_bytes_under_two_names_have_one_identity(corpus: list[Case]) -> None:
    twins = [case for case in corpus if case.name.startswith("the same bytes")]
    async with DecoderPool() as pool:
        items = {(await pool.prepare(case.path)).item for case in twins}
    assert len(twins) == 2
    assert len(items) == 1


def test_no_case_leaves_the_corpus_folder(corpus: list[Case]) -> None:
    folder = corpus[0].path.parent
    assert all(case.path.parent == folder for case in corpus)
    assert isinstance(folder, Path)
