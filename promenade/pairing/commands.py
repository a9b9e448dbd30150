"""The commands `promenade pair`, `promenade evaluate pairs` and `promenade evaluate pairing`.

The first two need no stack: they read plain files. What is computed lies in promenade.pairing.truth and in
workers.pairing; here is only what is asked for, said and written.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich import box
from rich.table import Table

from infra.records import DEFAULT_EXHIBITION
from promenade.pairing.tables import (
    BadRow,
    FileSpace,
    PairTable,
    VectorTable,
    read_pairs,
    read_vectors,
    space_named,
    write_pairs,
)
from promenade.pairing.truth import (
    Judged,
    judge,
    judge_exhibition,
    judge_published,
    mean_of,
    pair_all,
    pairs_of,
    unit_of,
)
from schemas.failures import Refused
from workers.pairing.chance import Chance, chance_of
from workers.pairing.rules import Pairs
from workers.pairing.similarity import Measure, ValenceArousal, mean_distance, measure_for

evaluate_commands = typer.Typer(help="How good a pairing is, beside chance.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SPACES: Final = "rgb, rgb-1 to rgb-4, rgb15, va, or N-D for N numbers compared by cosine (512-D)."
_SHOWN: Final = 100
"""Bad rows that are told one by one; of the others the lines are told."""
_DIFFERENT: Final = 1e-3
"""A similarity in a file and the one its vectors give differ when they are further apart: files round."""


class RuleName(StrEnum):
    """The rules, as an option spells them."""

    GREEDY = "greedy"
    STABLE = "stable"
    OPTIMAL = "optimal"


class FormName(StrEnum):
    """The forms of a list of pairs."""

    PLAIN = "plain"
    CMEAN = "cmean"


def pair(
    artworks: Annotated[Path, typer.Option(help="Vectors of the artworks: CSV, Parquet, NPY or NPZ.")],
    tracks: Annotated[Path, typer.Option(help="Vectors of the tracks; in the order of arrival, for greedy.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    space: Annotated[str, typer.Option(help=SPACES)] = "rgb",
    rule: Annotated[RuleName, typer.Option(help="greedy: CMEAN's text; stable: CMEAN's code; optimal.")] = (
        RuleName.OPTIMAL
    ),
    floor: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Similarity below which items stay without partner.")
    ] = None,
    form: Annotated[
        FormName, typer.Option(help="plain: artwork, track, similarity, percentile; cmean: as CMEAN published.")
    ] = FormName.PLAIN,
    as_json: AsJson = False,
) -> None:
    """Pair vectors from plain files, without any stack.

    A file has a column of ids and columns of numbers, or cells like rgb(200, 100, 50); five such triples are rgb15.
    Rows that cannot be used are named with their line, and the exit status is then 3.
    """
    house = _house()
    with _refusals():
        _check_floor(floor)
        chosen = space_named(space)
        if form is FormName.CMEAN and chosen.distance != "cosine":
            raise Refused(f"CMEAN's form lists cosines, and {chosen.name} has none; use --form plain.")
        if out.resolve() in (artworks.resolve(), tracks.resolve()):
            raise Refused(f"{out} is one of the files to read; write the pairs to another one.")
        left, right = _both(artworks, tracks, chosen)
        measure = _measure(chosen, left, right)
        sides = left.as_mapping(), right.as_mapping()
        if left.vectors.shape[0] * right.vectors.shape[0] > 4_000_000:
            house.say(f"pairing {len(left.ids):,} artworks with {len(right.ids):,} tracks …")
        order = {name: place for place, name in enumerate(right.ids)}
        pairs = pair_all(*sides, measure, rule.value, floor=floor, sequences=order)
        pairs = dict(sorted(pairs.items(), key=lambda each: (-each[1][1], each[0])))
        chance = chance_of(*sides, pairs, measure)
        rows = [
            (artwork, track, similarity, chance.percentiles[artwork])
            for artwork, (track, similarity) in pairs.items()
        ]
        write_pairs(out, form.value, rows)
    bad = [*left.bad, *right.bad]
    figures = _figures(left, right, pairs, chance)
    settings = {"space": chosen.name, "rule": rule.value, "floor": floor, "sigma": getattr(measure, "sigma", None)}
    evaluation = _evaluation_of(out, artworks, tracks, chosen, rule.value, floor)
    if as_json:
        house.print_json({"out": str(out), **settings, **figures, "evaluate": evaluation, "refused": _as_json(bad)})
    else:
        _tell(bad)
        for note in _notes(chosen, (left, right), measure):
            house.say(note)
        house.console.print(_summary(out, chosen, rule.value, floor, figures))
        if pairs:
            told = "Any rule beats random pairs; what it reaches where there is no structure is told by:"
            house.console.print(f"{told}\n{evaluation}", markup=False, soft_wrap=True)
    raise typer.Exit(3 if bad else 0)


@evaluate_commands.command("pairs")
def evaluate_pairs(
    pairs: Annotated[Path, typer.Argument(help="A list of pairs (CSV or Parquet), plain or as CMEAN published.")],
    artworks: Annotated[Path | None, typer.Option(help="Vectors of all artworks, for the baselines.")] = None,
    tracks: Annotated[Path | None, typer.Option(help="Vectors of all tracks, in the order of arrival.")] = None,
    space: Annotated[str | None, typer.Option(help=f"{SPACES} Without it: rgb, and rgb15 for CMEAN's form.")] = None,
    rule: Annotated[
        RuleName | None,
        typer.Option(help="The rule that made them; it is run again on shuffled coordinates. CMEAN's form: stable."),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="The floor they were paired with; the rule is run again with the same."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a drawing of the distributions, PNG and SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a list of pairs: CMEAN's Table V, median, 5th percentile; with the vectors also baselines and lift."""
    with _refusals():
        _check_floor(floor)
        if (artworks is None) != (tracks is None):
            raise typer.BadParameter("--artworks and --tracks go together")
        table = read_pairs(pairs)
        published = table.form == "cmean"
        chosen = space_named(space or ("rgb15" if published else "rgb"))
        named = rule.value if rule is not None else "stable" if published else None
        if not table.pairs:
            first = f" The first of {len(table.bad)}: {table.bad[0]}" if table.bad else ""
            raise Refused(f"{table.name} holds no pair that can be used.{first}")
        bad = list(table.bad)
        if artworks is None or tracks is None:
            judged = judge_published(
                table.name,
                np.array([each.similarity for each in table.pairs]),
                space=chosen.name if published or space else "not named",
                dimension=chosen.dimension if chosen.is_rgb and (published or space) and named else None,
                rule=named or "stable",
                floor=floor,
                unit=unit_of(measure_for(chosen.distance)) if published or space else None,
            )
        else:
            judged, more = _judged_with_vectors(table, *_both(artworks, tracks, chosen), chosen, named, floor)
            bad += more
    _conclude(judged, bad, out, "pairs", as_json)


@evaluate_commands.command("pairing")
def evaluate_pairing(
    data: Annotated[Path, typer.Option("--data", envvar="PROMENADE_DATA", help="The data folder.")] = Path(
        "promenade-data"
    ),
    exhibition: Annotated[str, typer.Option(help="Which exhibition.")] = DEFAULT_EXHIBITION,
    out: Annotated[Path, typer.Option(help="Folder for the drawing of the distributions, PNG and SVG.")] = Path(
        "pairing-report"
    ),
    as_json: AsJson = False,
) -> None:
    """Judge an exhibition's pairing: CMEAN's Table V, median, 5th percentile, each baseline with its spread, lift."""
    house = _house()

    async def work() -> Judged:
        from promenade.profile import read_profile
        from promenade.reach import reading

        async with reading(data, house.say) as (settings, records):
            return await judge_exhibition(records, read_profile(settings.profile), exhibition)

    _conclude(house.carry_out(work()), [], out, f"pairing-{exhibition}", as_json)


# -- how it is done ----------------------------------------------------------------------------------------


def _house() -> Any:
    """The command line's own console and manners; it registers these commands, so it is imported when they run."""
    from promenade import cli

    return cli


class _refusals:
    """What was refused becomes one sentence and exit status 1."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MemoryError):
            error = Refused("there is not enough memory for so many vectors; pair fewer at once.")
        if isinstance(error, Refused):
            _house().say(str(error))
            raise typer.Exit(1) from None


def _check_floor(floor: float | None) -> None:
    """Not a number passes for one between the bounds; here it does not."""
    if floor is not None and math.isnan(floor):
        raise typer.BadParameter("nan is no similarity", param_hint="--floor")


def _evaluation_of(out: Path, artworks: Path, tracks: Path, space: FileSpace, rule: str, floor: float | None) -> str:
    """The command that judges what was just paired, with all that its baselines must know, ready for a shell."""
    words = ["promenade", "evaluate", "pairs", out, "--artworks", artworks, "--tracks", tracks]
    words += ["--space", space.name, "--rule", rule]
    if floor is not None:
        # In one word: a negative number of its own would look like an option.
        words.append(f"--floor={floor!r}")
    return shlex.join(str(word) for word in words)


def _both(artworks: Path, tracks: Path, space: FileSpace) -> tuple[VectorTable, VectorTable]:
    """Both sides' vectors, whose columns must mean the same."""
    left, right = read_vectors(artworks, space), read_vectors(tracks, space)
    one, two = ([name.casefold() for name in side.columns or ()] for side in (left, right))
    if one != two and sorted(one) == sorted(two):
        raise Refused(
            f"{left.name} and {right.name} have the same columns in another order: {', '.join(left.columns or ())} "
            f"and {', '.join(right.columns or ())}; put them into one order."
        )
    return left, right


def _measure(space: FileSpace, left: VectorTable, right: VectorTable) -> Measure:
    """Cosine, or MMVA's match score with the mean distance of these very vectors as its scale."""
    if space.distance == "cosine":
        return measure_for("cosine")
    return measure_for(space.distance, mean_distance(left.vectors, right.vectors))


def _judged_with_vectors(
    table: PairTable,
    left: VectorTable,
    right: VectorTable,
    space: FileSpace,
    rule: str | None,
    floor: float | None,
) -> tuple[Judged, list[BadRow]]:
    sides = left.as_mapping(), right.as_mapping()
    measure = _measure(space, left, right)
    bad = [*left.bad, *right.bad]
    pairs: Pairs = {}
    for each in table.pairs:
        for word, name, side, file in (
            ("artwork", each.artwork, sides[0], left.name),
            ("track", each.track, sides[1], right.name),
        ):
            if name not in side:
                bad.append(BadRow(table.name, each.line, f"{file} has no vector of the {word} {name[:60]!r}."))
                break
        else:
            pairs[each.artwork] = each.track, each.similarity
    if not pairs:
        raise Refused(f"none of the pairs in {table.name} has vectors in {left.name} and {right.name}.")
    notes = _notes(space, (left, right), measure)
    if rule is None:
        notes.append("Say by which --rule they were paired, and the rule is run again on shuffled coordinates.")
    if floor is None and rule is not None and len(pairs) < min(len(left.ids), len(right.ids)):
        notes.append(
            "Items of both sides have no partner: if these pairs were made with a floor, give the same --floor here. "
            "Without it the baselines pair everything, and the pairs seem better beside them than they are."
        )
    judged = judge(
        table.name,
        *sides,
        pairs,
        measure,
        space=space.name,
        rule=rule,
        uniform_rgb=space.is_rgb,
        floor=floor,
        sequences={name: place for place, name in enumerate(right.ids)},
        notes=notes,
    )
    told = np.array([similarity for _, similarity in pairs.values()])
    apart = np.flatnonzero(np.abs(told - np.array(judged.evaluation.similarities)) > _DIFFERENT)
    if len(apart):
        artwork, (track, similarity) = list(pairs.items())[int(apart[0])]
        line = next(each.line for each in table.pairs if each.artwork == artwork)
        found = judged.evaluation.similarities[int(apart[0])]
        note = (
            f"{len(apart)} similarities in {table.name} are not those of the vectors in {space.name}, which count "
            f"here (line {line}, {artwork[:60]!r} with {track[:60]!r}: {similarity:.4f} there, {found:.4f} by the "
            "vectors). Were they paired in another --space?"
        )
        judged = Judged(**{**vars(judged), "notes": (*judged.notes, note)})
    return judged, bad


def _conclude(judged: Judged, bad: Sequence[BadRow], out: Path | None, stem: str, as_json: bool) -> None:
    """Print, draw where a folder is named, and end."""
    house = _house()
    from promenade import plots

    drawn: list[Path] = []
    if out is not None and judged.evaluation.pairs and plots.can_draw():
        with _refusals():
            drawn = plots.draw_pairing(judged, out, stem)
    if as_json:
        house.print_json({**judged.as_json(), "drawn": [str(path) for path in drawn], "refused": _as_json(bad)})
    else:
        _tell(bad)
        show_judged(house.console, judged)
        if drawn:
            house.console.print(f"drawn: {', '.join(str(path) for path in drawn)}", markup=False, soft_wrap=True)
    if out is not None and judged.evaluation.pairs and not drawn:
        house.say(f"nothing was drawn: {plots.HOW_TO_INSTALL}")
    raise typer.Exit(3 if bad else 0)


def show_judged(console: Any, judged: Judged) -> None:
    """CMEAN's Table V with median and 5th percentile, the baselines, and what they mean."""
    result = judged.evaluation
    console.print(f"{judged.title}: {judged.made_by}", markup=False)
    if not result.pairs:
        console.print(
            f"no pairs; {result.unpaired_artworks} artworks and {result.unpaired_tracks} tracks have no partner"
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure (CMEAN, Table V, and two more)")
    table.add_column("value", justify="right")
    for name, count in (("unpaired tracks", result.unpaired_tracks), ("unpaired artworks", result.unpaired_artworks)):
        if name.endswith("tracks"):
            table.add_row("pairs", f"{result.pairs:,}")
        table.add_row(name, f"{count:,}" if judged.free_known else "not known")
    for name, value in (
        ("mean similarity", result.mean),
        ("maximum similarity", result.maximum),
        ("minimum similarity", result.minimum),
        ("median similarity", result.median),
        ("5th percentile", result.fifth_percentile),
    ):
        table.add_row(name, "" if value is None else f"{value:.4f}")
    console.print(table)
    if result.baselines:
        console.print(_baselines_table(judged))
        console.print(
            "Spread: standard deviation of the baseline from one repeat to the next. Lift: the pairs' mean divided "
            "by the baseline's; 1 is chance. Where all similarities are high lift stays near 1: read the spreads. "
            "With a floor read the number of pairs too: what reaches it by chance lies as high, but is rarer. "
            "Any rule beats a random assignment: whether there is structure, the other rows tell."
        )
    for note in judged.notes:
        console.print(note, markup=False)


def _baselines_table(judged: Judged) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("beside", overflow="fold")
    for heading in ("the pairs", "baseline ± spread", "lift", "spreads from it", "number of pairs", "repeats"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in judged.evaluation.baselines:
        table.add_row(
            each.name,
            f"{each.observed:.4f}",
            mean_of(each),
            "" if each.lift is None else f"{each.lift:.3f}",
            "" if each.deviations is None else f"{each.deviations:+,.1f}",
            pairs_of(each),
            str(each.repeats),
        )
    return table


def _figures(left: VectorTable, right: VectorTable, pairs: Pairs, chance: Chance) -> dict[str, Any]:
    values = np.array([similarity for _, similarity in pairs.values()])
    there = bool(len(values))
    return {
        "pairs": len(pairs),
        "unpaired_artworks": len(left.ids) - len(pairs),
        "unpaired_tracks": len(right.ids) - len(pairs),
        "mean": float(values.mean()) if there else None,
        "maximum": float(values.max()) if there else None,
        "minimum": float(values.min()) if there else None,
        "median": float(np.median(values)) if there else None,
        "fifth_percentile": float(np.percentile(values, 5)) if there else None,
        "chance": chance.chance,
        "chance_spread": chance.spread,
        "lift": chance.lift,
        "deviations": chance.deviations,
        "mean_percentile": float(np.mean(list(chance.percentiles.values()))) if there else None,
    }


def _summary(out: Path, space: FileSpace, rule: str, floor: float | None, figures: dict[str, Any]) -> str:
    free = f"{figures['unpaired_artworks']:,} artworks and {figures['unpaired_tracks']:,} tracks have no partner."
    if not figures["pairs"]:
        return f"No two are as similar as {floor}: {out} lists no pairs; {free}"
    lift = "" if figures["lift"] is None else f", lift {figures['lift']:.3f}"
    spreads = "" if figures["deviations"] is None else f", {figures['deviations']:+,.1f} spreads from chance"
    return (
        f"{figures['pairs']:,} pairs in {out} (space {space.name}, rule {rule}); {free}\n"
        f"Similarity: mean {figures['mean']:.4f}, median {figures['median']:.4f}, 5th percentile "
        f"{figures['fifth_percentile']:.4f}, lowest {figures['minimum']:.4f}, highest {figures['maximum']:.4f}.\n"
        f"Chance: random pairs of the same vectors reach {figures['chance']:.4f} ± {figures['chance_spread']:.4f}"
        f"{lift}{spreads}; a pair beats {figures['mean_percentile']:.1f} % of all possible pairs on average."
    )


def _notes(space: FileSpace, sides: Iterable[VectorTable], measure: Measure) -> list[str]:
    """What a reader should know of the vectors."""
    notes = []
    for side in sides:
        if side.ignored:
            shown = ", ".join(side.ignored[:8]) + (" and others" if len(side.ignored) > 8 else "")
            notes.append(f"{side.name}: columns that are no part of the vectors: {shown}.")
        zeros = int((~side.vectors.any(axis=1)).sum()) if space.distance == "cosine" else 0
        if zeros:
            notes.append(f"{side.name}: {zeros} vectors are all zeros; their cosine with anything is 0.")
    if isinstance(measure, ValenceArousal):
        notes.append(f"sigma, the mean distance over all pairs: {measure.sigma:.4f}.")
    return notes


def _tell(bad: Sequence[BadRow]) -> None:
    """Name bad rows: each of the first, of the others the lines."""
    say = _house().say
    for each in bad[:_SHOWN]:
        say(str(each))
    if len(bad) > _SHOWN:
        rest = bad[_SHOWN:]
        for file in dict.fromkeys(each.file for each in rest):
            others = [each for each in rest if each.file == file]
            say(f"{file}, also left out, {others[0].word}s {_ranges([each.line for each in others])}")
    if bad:
        say(f"{len(bad)} rows were left out")


def _ranges(lines: Sequence[int]) -> str:
    """3, 5-9, 12."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _as_json(bad: Sequence[BadRow]) -> list[dict[str, Any]]:
    return [{"file": each.file, each.word: each.line, "reason": each.reason} for each in bad]
