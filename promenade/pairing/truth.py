"""A pairing judged: its figures beside the baselines that say how much of it is chance, and the distributions.

The figures are those of workers.pairing; here they are gathered for one pairing, whether it comes from files or
from the records of a house. Reading files, printing and drawing are left to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.records import ItemState, Records
from schemas.failures import Refused
from schemas.media import Kind, item_id, split_item_id
from schemas.profile import Profile
from schemas.records import PairingConstants, Stage
from workers.pair import basis_of, read_state
from workers.pairing.by_name import rule_named
from workers.pairing.evaluation import Baseline, Evaluation, Judge, Vectors, evaluate, is_rgb, uniform_baseline
from workers.pairing.greedy import batch_greedy
from workers.pairing.optimal import batch_optimal
from workers.pairing.rules import Member, Pairs, batch_stable
from workers.pairing.similarity import UNITS, Measure, ValenceArousal, measure_for
from workers.pairing.spaces import Mixed, PairingSpace, constants_of, item_vectors, pairing_space

Floats = NDArray[np.float64]

_DENSE: Final = 4_000_000
"""Up to this many cross pairs a rule's definition is computed word by word (about 150 bytes a pair for greedy and
stable, up to 72 for optimal); above it the rule starts in blocks, which gives the same and needs little memory."""
_REPEATED: Final = ((2_000_000, 10), (30_000_000, 3))
"""(up to so many cross pairs, a rule is run again so often for a baseline): beyond, `optimal` takes many minutes.
The other rules take seconds for 100 million cross pairs."""
PAIRED: Final = "the pairs"
SHUFFLED: Final = "same rule, coordinates shuffled"
RANDOM: Final = "random pairs"


@dataclass(frozen=True)
class Judged:
    """A pairing with what there is to say of it.

    Attributes:
        title: what was paired, for a heading.
        space, rule: how; the rule is None where nobody said.
        floor: similarity below which items stayed free, as far as anybody said; the baselines have the same.
        unit: what a similarity is and between which bounds, in words; None where nobody said.
        mix: of a mix: its spaces with their weights, which add up to 1.
        evaluation: the figures.
        distributions: label -> similarities [any number]: the pairs, and what chance gives.
        notes: what a reader must know besides.
        free_known: False where nobody knows how many items stayed without partner.
    """

    title: str
    space: str
    rule: str | None
    evaluation: Evaluation
    distributions: Mapping[str, Floats]
    notes: tuple[str, ...] = ()
    free_known: bool = True
    floor: float | None = None
    unit: str | None = None
    mix: tuple[tuple[str, float], ...] = ()

    @property
    def made_by(self) -> str:
        """Space (of a mix also its parts with their weights), rule and floor in words."""
        parts = ", ".join(f"{name} {weight:.0%}" for name, weight in self.mix)
        rule = f", rule {self.rule}" if self.rule else ""
        floor = "" if self.floor is None else f", floor {self.floor:g}"
        return f"space {self.space}{f' of {parts}' if parts else ''}{rule}{floor}"

    def as_json(self) -> dict[str, Any]:
        """All figures for programs."""
        result = self.evaluation
        return {
            "title": self.title,
            "space": self.space,
            "mix": dict(self.mix) or None,
            "unit": self.unit,
            "rule": self.rule,
            "floor": self.floor,
            "pairs": result.pairs,
            "unpaired_artworks": result.unpaired_artworks if self.free_known else None,
            "unpaired_tracks": result.unpaired_tracks if self.free_known else None,
            "mean": result.mean,
            "maximum": result.maximum,
            "minimum": result.minimum,
            "median": result.median,
            "fifth_percentile": result.fifth_percentile,
            "baselines": [vars(each) for each in result.baselines],
            "notes": list(self.notes),
        }


def pair_all(
    artworks: Vectors,
    tracks: Vectors,
    measure: Measure,
    rule: str,
    *,
    floor: float | None = None,
    sequences: Mapping[str, int] | None = None,
) -> Pairs:
    """Pair complete sets by a rule.

    Args:
        artworks, tracks: id -> vector; ids of any spelling.
        measure: the similarity.
        rule: "greedy", "stable" or "optimal".
        floor: similarity below which items stay free.
        sequences: order of arrival of tracks, for greedy; without it by id.

    Raises:
        Refused: there is no such rule.
    """
    try:
        rule_class = rule_named(rule)
    except ValueError as error:
        raise Refused(f"{error}.") from None
    if len(artworks) * len(tracks) <= _DENSE:
        if rule == "greedy":
            return batch_greedy(artworks, tracks, measure, sequences=sequences, floor=floor)
        return (batch_stable if rule == "stable" else batch_optimal)(artworks, tracks, measure, floor=floor)
    order = sequences or {}
    members: list[Member] = []
    names: dict[str, str] = {}
    for kind, side in ((Kind.ARTWORK, artworks), (Kind.TRACK, tracks)):
        # The engine takes ids of items only; these keep the order of the names, by which ties are broken.
        identities = {name: item_id(kind, f"{place:064x}") for place, name in enumerate(sorted(side))}
        names |= {identity: name for name, identity in identities.items()}
        members += [Member(kind, identities[name], side[name], order.get(name, 0)) for name in sorted(side)]
    engine = rule_class.filled(measure, members, floor=floor)
    return {names[artwork]: (names[track], similarity) for artwork, (track, similarity) in engine.pairs().items()}


def repeats_for(rule: str, artworks: int, tracks: int) -> int:
    """How often a rule is run again for a baseline; 0 where that would take too long."""
    size = artworks * tracks // (1 if rule == "optimal" else 5)
    return next((repeats for most, repeats in _REPEATED if size <= most), 0)


def judge(
    title: str,
    artworks: Vectors,
    tracks: Vectors,
    pairs: Pairs,
    measure: Measure,
    *,
    space: str,
    rule: str | None,
    uniform_rgb: bool,
    floor: float | None = None,
    sequences: Mapping[str, int] | None = None,
    mix: Iterable[tuple[str, float]] = (),
    judges: Iterable[Judge] = (),
    notes: Iterable[str] = (),
    seed: int = 0,
) -> Judged:
    """Judge a pairing whose vectors are known.

    Args:
        title: for a heading.
        artworks, tracks: all present items with their vectors in the pairing space.
        pairs: what was paired.
        measure: the similarity of the space.
        space, rule: how it was paired; without a rule the baselines that run it again are left out.
        uniform_rgb: also the same rule on uniform random RGB.
        floor, sequences: as the rule had them.
        mix: of a mix: its spaces with their weights.
        judges: other spaces to judge the pairs in.
        notes: kept for the reader.
        seed: the same seed and vectors give the same figures.
    """
    repeats = repeats_for(rule or "", len(artworks), len(tracks))
    said = list(notes)
    shuffled: list[Floats] = []

    def pairer(left: Vectors, right: Vectors) -> Pairs:
        found = pair_all(left, right, measure, str(rule), floor=floor, sequences=sequences)
        shuffled.append(np.array([similarity for _, similarity in found.values()]))
        return found

    if rule is not None and not repeats:
        said.append(
            f"With {len(artworks):,} by {len(tracks):,} items the rule is not run again: its baselines are left out."
        )
    again = pairer if rule is not None and repeats else None
    evaluation = evaluate(
        artworks,
        tracks,
        pairs,
        measure,
        pairer=again,
        judges=judges,
        uniform_rgb=uniform_rgb,
        seed=seed,
        rule_repeats=repeats or 2,
    )
    said += _told_of_counts(evaluation)
    # Of the rule's runs the first ones are those on shuffled coordinates; uniform RGB comes after them.
    of_shuffled = shuffled[:repeats] if again is not None and evaluation.pairs else []
    drawn = {
        PAIRED: np.array(evaluation.similarities),
        SHUFFLED: np.concatenate(of_shuffled) if of_shuffled else np.zeros(0),
        RANDOM: _random_pairs(artworks, tracks, measure, seed=seed) if evaluation.pairs else np.zeros(0),
    }
    distributions = {label: values for label, values in drawn.items() if len(values)}
    return Judged(
        title,
        space,
        rule,
        evaluation,
        distributions,
        tuple(said),
        floor=floor,
        unit=unit_of(measure),
        mix=tuple(mix),
    )


def judge_published(
    title: str,
    similarities: Floats,
    *,
    space: str,
    dimension: int | None,
    rule: str,
    floor: float | None = None,
    unit: str | None = None,
    seed: int = 0,
) -> Judged:
    """Judge a list of similarities whose vectors nobody has.

    The one baseline is the same rule on uniform random RGB, as many items a side as there are pairs, with the same
    floor.

    Args:
        title: for a heading.
        similarities: [pairs].
        space: how it was paired.
        dimension: 3 or 15 numbers of RGB; None in other spaces, then there is no baseline.
        rule, floor: as for `pair_all`.
        unit: see `Judged`.
        seed: the same seed gives the same figures.
    """
    count = len(similarities)
    notes = ["Without the vectors, how many items stayed free and how far this is from chance cannot be known."]
    baselines: tuple[Baseline, ...] = ()
    distributions = {PAIRED: similarities} if count else {}
    repeats = repeats_for(rule, count, count)
    if count and dimension is not None and repeats:
        uniform: list[Floats] = []

        def pairer(left: Vectors, right: Vectors) -> Pairs:
            found = pair_all(left, right, measure_for("cosine"), rule, floor=floor)
            uniform.append(np.array([similarity for _, similarity in found.values()]))
            return found

        mean = float(similarities.mean())
        baseline = uniform_baseline(mean, (count, count), dimension, pairer, seed=seed, repeats=repeats)
        baselines = (baseline,)
        distributions |= {baseline.name: drawn} if len(drawn := np.concatenate(uniform)) else {}
        if floor is not None:
            notes.append(
                "How many items the floor left free is not known: numbers of pairs cannot be compared without the "
                "vectors."
            )
    evaluation = Evaluation(
        count,
        0,
        0,
        mean=float(similarities.mean()) if count else None,
        maximum=float(similarities.max()) if count else None,
        minimum=float(similarities.min()) if count else None,
        median=float(np.median(similarities)) if count else None,
        fifth_percentile=float(np.percentile(similarities, 5)) if count else None,
        baselines=baselines,
        similarities=tuple(similarities.tolist()),
    )
    return Judged(
        title, space, rule, evaluation, distributions, tuple(notes), free_known=False, floor=floor, unit=unit
    )


def unit_of(measure: Measure) -> str:
    """What a measure's similarities are and between which bounds, in words for an axis."""
    if isinstance(measure, Mixed):
        return "share of all pairs that are less similar, 0 to 1"
    return "MMVA match score, 0 to 1" if isinstance(measure, ValenceArousal) else "cosine, -1 to 1"


def mean_of(baseline: Baseline) -> str:
    """A baseline's mean similarity with its spread, in words where runs paired nothing."""
    if baseline.mean is None:
        return "paired nothing"
    return f"{baseline.mean:.4f}" + ("" if baseline.spread is None else f" ± {baseline.spread:.4f}")


def pairs_of(baseline: Baseline) -> str:
    """A baseline's number of pairs, with its spread where the number varies."""
    if not baseline.pairs_spread:
        return f"{baseline.pairs:,.0f}"
    return f"{baseline.pairs:,.1f} ± {baseline.pairs_spread:,.1f}"


def _told_of_counts(evaluation: Evaluation) -> list[str]:
    """In words, where a rule run again pairs another number of items, or none at all, so that means alone mislead."""
    told = []
    for each in evaluation.baselines:
        apart = abs(evaluation.pairs - each.pairs)
        if apart > max(2 * each.pairs_spread, 0.5):
            told.append(
                f"{evaluation.pairs:,} pairs were found here, {pairs_of(each)} in the baseline “{each.name}”: "
                "read the numbers of pairs, the means alone mislead."
            )
        if each.empty:
            told.append(
                f"{each.empty} of {each.repeats} runs of the baseline “{each.name}” paired nothing: they count in "
                "its number of pairs and are left out of its mean."
            )
    return told


def _random_pairs(artworks: Vectors, tracks: Vectors, measure: Measure, *, seed: int, most: int = 20_000) -> Floats:
    """Similarities of cross pairs: all of them, or so many drawn at random: [<= most]."""
    left = measure.prepare(np.asarray([artworks[name] for name in sorted(artworks)], dtype=np.float64))
    right = measure.prepare(np.asarray([tracks[name] for name in sorted(tracks)], dtype=np.float64))
    count = len(left) * len(right)
    generator = np.random.default_rng(seed)
    chosen = np.arange(count) if count <= most else generator.integers(count, size=most)
    rows, columns = np.divmod(chosen, len(right))
    similarities: Floats = measure.paired(left[rows], right[columns]) / UNITS
    return similarities


# -- from the records of a house ---------------------------------------------------------------------------


async def judge_exhibition(records: Records, profile: Profile, name: str, *, seed: int = 0) -> Judged:
    """Judge the target pairing of an exhibition, by its records alone, in the space and by the constants it has.

    Raises:
        Refused: there is no such exhibition, or its space holds no vectors.
    """
    settings = await records.exhibition(name)
    if settings is None:
        names = ", ".join(each.name for each in await records.exhibitions())
        raise Refused(f"there is no exhibition called {name!r}; there are: {names}.")
    pairing = await read_state(records, settings.home)
    basis = pairing.basis or basis_of(settings, PairingConstants())
    own = pairing_space(basis.space, basis.mix)
    states = {state.item: state for state in await records.all_states() if state.item in pairing.members}
    vectors, sequences = await _vectors(records, states)
    artworks, tracks = _sides(own, vectors)
    if pairing.pairs and not (artworks and tracks):
        raise Refused(f"no item of {name!r} has a vector in its space {basis.space}; `promenade status` tells why.")
    pairs: Pairs = {
        artwork: (track, similarity)
        for (artwork, track), similarity in sorted(pairing.pairs.items())
        if artwork in artworks and track in tracks
    }
    notes = []
    if len(pairs) < len(pairing.pairs):
        notes.append(
            f"{len(pairing.pairs) - len(pairs)} pairs are left out: an item of theirs was withdrawn just now."
        )
    waiting = len(pairing.pairs.keys() - pairing.hung.keys())
    if waiting:
        notes.append(f"{waiting} of these pairs do not hang yet: they gain too little to move the wall.")
    if pairing.pins:
        notes.append(f"{len(pairing.pins)} pairs are pinned; the baselines run the rule without pins.")
    judges = []
    for other in (each.name for each in profile.all_spaces() if len(each.kinds) == len(Kind)):
        space = pairing_space(other)
        left, right = _sides(space, vectors)
        if other == basis.space or not all(one in left and two in right for one, (two, _) in pairs.items()):
            continue
        measure = space.measure(constants_of(space, vectors.values()))
        assert measure is not None, "only a mix may have no measure"
        judges.append(Judge(other, measure, left, right))
    return await asyncio.to_thread(
        partial(
            judge,
            f"exhibition {name!r}",
            artworks,
            tracks,
            pairs,
            # Without constants nothing is paired, and the measure is not asked.
            own.measure(basis.constants) or measure_for("cosine"),
            space=basis.space,
            rule=basis.rule,
            uniform_rgb=is_rgb(basis.space),
            floor=basis.floor,
            sequences=sequences,
            mix=[(each.name, each.weight) for each in own.components] if own.is_mix else (),
            judges=judges,
            notes=notes,
            seed=seed,
        )
    )


def _sides(
    space: PairingSpace, vectors: Mapping[str, tuple[Kind, Mapping[str, Any]]]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Artworks and tracks that have a vector in the space."""
    sides: dict[Kind, dict[str, Floats]] = {kind: {} for kind in Kind}
    for item, (kind, named) in vectors.items():
        vector = space.vector(kind, named)
        if vector is not None:
            sides[kind][item] = vector
    return sides[Kind.ARTWORK], sides[Kind.TRACK]


async def _vectors(
    records: Records, states: Mapping[str, ItemState]
) -> tuple[dict[str, tuple[Kind, Mapping[str, Any]]], dict[str, int]]:
    """Item -> its kind and named vectors, of all items that are alive and scored; and item -> order of arrival."""
    vectors: dict[str, tuple[Kind, Mapping[str, Any]]] = {}
    sequences: dict[str, int] = {}

    async def one(state: ItemState) -> None:
        score = await records.newest_result(state, Stage.SCORE) if state.alive else None
        if score is None or state.latest is None:
            return
        named = item_vectors(score, await records.newest_result(state, Stage.EMBED))
        sequences[state.item] = (await records.revision(state.item, state.latest)).sequence
        vectors[state.item] = (split_item_id(state.item)[0], named)

    alive = [states[item] for item in sorted(states)]
    for start in range(0, len(alive), 64):
        await asyncio.gather(*(one(state) for state in alive[start : start + 64]))
    return dict(sorted(vectors.items())), sequences
