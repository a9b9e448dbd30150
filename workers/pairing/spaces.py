"""Spaces to pair in: from a name in an exhibition's settings to each item's vector and the measure between them.

One way for agent, views and evaluation alike. A pairing space is spelled

    rgb                          RGB of the whole (CMEAN)
    rgb15                        five RGB triples flattened (CMEAN's code)
    rgb-1 .. rgb-4               RGB of fragment i with fragment i (CMEAN)
    va                           valence and arousal of the whole (MMVA)
    caption-minilm-1 ...         any joint space in which both kinds have vectors
    NAME artwork raw|caption x track raw|caption
                                 ArtSound's four strategies in the joint space NAME: `raw` is the vector of the
                                 medium itself (space NAME), `caption` that of its caption (space NAME-caption)
    mix                          several of the above with weights, each calibrated first

A mix adds *calibrated* similarities: the share of all possible pairs that are less similar (0 to 1), by a curve of
straight lines through 101 quantiles. Similarities of different spaces crowd in different places (cosines of RGB near
1, of captions near 0.3) and with different skew; a share means the same in each, one outlier cannot stretch it as
it stretches a z-score, it stays readable, and chance is near 0.5 in any mix, so that lift is defined.

MMVA's sigma and the curves are *constants* of a pairing: taken from all items when the exhibition is paired as a
whole, kept until they drift by more than 5%.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.media import Kind
from schemas.records import EmbedBody, ExhibitionSettings, PairingConstants, Result, ScoreBody
from schemas.spaces import RGB, RGB15, VA
from workers.models import unpack
from workers.pairing.similarity import (
    DEFAULT_SIGMA,
    UNITS,
    Floats,
    Measure,
    Units,
    blocks,
    mean_distance,
    measure_for,
)

MIX: Final = "mix"
FRAGMENT_SPACES: Final = tuple(f"{RGB.name}-{number}" for number in (1, 2, 3, 4))
EMOTION_NAMES: Final = (RGB.name, *FRAGMENT_SPACES, RGB15.name, VA.name)
CAPTION_FORM: Final = "-caption"
"""What the space of captions is called beside a joint space of raw media: imagebind-1, imagebind-1-caption."""

DRIFT: Final = 0.05
"""Constants that moved further than this are taken anew: sigma by this share of itself, a calibration curve by
this much of its range at any point."""

_KNOTS: Final = 101
_SAMPLE: Final = 200_000
"""Cross pairs that a calibration looks at, at most: a quantile is then off by about 0.1%."""
_SPELLED: Final = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)( artwork (?P<artwork>raw|caption) x track (?P<track>raw|caption))?"
)

Array = NDArray[Any]
Lengths = tuple[int, ...]
"""How many numbers an item's vector has in each component of a space."""


@dataclass(frozen=True, slots=True)
class Component:
    """One space of a pairing space: its name, its weight in a mix, and which vector each kind has in it."""

    name: str
    weight: float
    artwork: str
    track: str

    @property
    def is_va(self) -> bool:
        """True where the measure is MMVA's and needs a sigma."""
        return self.artwork == VA.name

    def vector_name(self, kind: Kind) -> str:
        """Name of the vector that an item of this kind is paired by."""
        return self.artwork if kind is Kind.ARTWORK else self.track


@dataclass(frozen=True, slots=True)
class PairingSpace:
    """A space to pair in: one component, or the weighted components of a mix."""

    name: str
    components: tuple[Component, ...]

    @property
    def is_mix(self) -> bool:
        """True for a mix, whose components are calibrated."""
        return self.name == MIX

    @property
    def has_constants(self) -> bool:
        """True where the measure depends on the items as a whole."""
        return self.is_mix or any(each.is_va for each in self.components)

    @property
    def needs_embedding(self) -> bool:
        """True where vectors of the embed stage are needed beside those of the score stage."""
        names = {name for each in self.components for name in (each.artwork, each.track)}
        return not names <= set(EMOTION_NAMES)

    def dimensions(self, kind: Kind, vectors: Mapping[str, ArrayLike]) -> tuple[int, ...] | None:
        """How many numbers each component's vector of an item has; None when the item lacks one of them."""
        names = [each.vector_name(kind) for each in self.components]
        return (
            tuple(int(np.size(vectors[name])) for name in names) if all(name in vectors for name in names) else None
        )

    def vector(self, kind: Kind, vectors: Mapping[str, ArrayLike]) -> Floats | None:
        """An item's vector in this space: that of the component, or those of a mix one after another.

        Args:
            kind: of the item.
            vectors: all vectors of the item by name (see `item_vectors`).

        Returns:
            [dimension] numbers, or None when the item lacks one of them or one is not finite.
        """
        found = []
        for component in self.components:
            vector = vectors.get(component.vector_name(kind))
            if vector is None:
                return None
            found.append(np.asarray(vector, dtype=np.float64).reshape(-1))
        joined: Floats = np.concatenate(found)
        return joined if np.isfinite(joined).all() else None

    def measure(self, constants: PairingConstants) -> Measure | None:
        """The similarity of this space; None for a mix whose constants no item has made yet."""
        if not self.is_mix:
            return _plain_measure(self.components[0], constants)
        if len(constants.dimensions) != len(self.components):
            return None
        parts, start = [], 0
        for component, length in zip(self.components, constants.dimensions, strict=True):
            curve = constants.calibrations.get(component.name) or _straight(_plain_measure(component, constants))
            parts.append(
                _Part(component.weight, start, start + length, _plain_measure(component, constants), Curve(curve))
            )
            start += length
        return Mixed(tuple(parts))


def _plain_measure(component: Component, constants: PairingConstants) -> Measure:
    return measure_for("euclidean", constants.sigma) if component.is_va else measure_for("cosine")


def pairing_space(name: str, mix: Iterable[tuple[str, float]] = ()) -> PairingSpace:
    """The pairing space of a name.

    Args:
        name: as the module spells them; `mix` takes its components from `mix`.
        mix: (pairing space, weight) in order.

    Raises:
        ValueError: the spelling is not known, or the mix is empty, names a space twice, or has a weight that is
            not a positive number.
    """
    weights = list(mix)
    if name != MIX:
        if weights:
            raise ValueError(f"only the space mix has weights; {name!r} is one space")
        return PairingSpace(name, (_component(name, 1.0),))
    if not weights:
        raise ValueError("a mix names its spaces and weights, for example rgb15=0.5,va=0.5")
    names = [each for each, _ in weights]
    if len(set(names)) < len(names):
        raise ValueError(f"a mix names each space once, not {', '.join(names)}")
    if not all(np.isfinite(weight) and weight > 0 for _, weight in weights):
        raise ValueError("the weights of a mix are positive numbers")
    total = sum(weight for _, weight in weights)
    return PairingSpace(MIX, tuple(_component(each, weight / total) for each, weight in weights))


def _component(name: str, weight: float) -> Component:
    spelled = _SPELLED.fullmatch(name)
    if spelled is None or name == MIX:
        raise ValueError(
            f"{name!r} is no space to pair in; use rgb, rgb15, rgb-1 to rgb-4, va, a joint space such as "
            "caption-minilm-1, or 'imagebind-1 artwork raw x track caption'"
        )
    base = spelled["name"]
    if spelled["artwork"] is None:
        return Component(name, weight, base, base)
    if base in EMOTION_NAMES:
        raise ValueError(f"{base} has no raw and caption vectors of its own; name it alone")
    form = {"raw": base, "caption": base + CAPTION_FORM}
    return Component(name, weight, form[spelled["artwork"]], form[spelled["track"]])


def space_of(settings: ExhibitionSettings) -> PairingSpace:
    """The pairing space that an exhibition's settings name.

    Raises:
        ValueError: see `pairing_space`.
    """
    return pairing_space(settings.space, settings.mix)


def item_vectors(score: Result, embedded: Result | None = None) -> dict[str, Array]:
    """All vectors of an item that it can be paired by, by name.

    `rgb` [3], `rgb-1` to `rgb-4` [3], `rgb15` [15] in 0-255 and `va` [2] in [0,1] from the score; the joint
    spaces' from the embed stage's result where it is given.

    Raises:
        ValueError: the results are of other stages.
    """
    if not isinstance(score.body, ScoreBody) or (embedded is not None and not isinstance(embedded.body, EmbedBody)):
        raise ValueError("vectors come from a result of score and one of embed")
    rgb = np.asarray(score.body.rgb, np.float32)
    vectors: dict[str, Array] = {
        RGB.name: rgb[-1],
        RGB15.name: rgb.reshape(-1),
        VA.name: np.asarray(score.body.va[-1], np.float32),
    }
    vectors |= {name: rgb[number] for number, name in enumerate(FRAGMENT_SPACES)}
    if embedded is not None and isinstance(embedded.body, EmbedBody):
        vectors |= {name: unpack(text) for name, text in embedded.body.vectors.items() if name not in vectors}
    return vectors


# -- constants ---------------------------------------------------------------------------------------------


def most_frequent(counts: Mapping[Lengths, int]) -> Lengths | None:
    """The dimensions that most items have, the smaller ones where as many have others; None: there are no items.

    Never those of whoever came first: a pairing depends on its items, not on their order.
    """
    return min(counts, key=lambda lengths: (-counts[lengths], lengths), default=None)


def constants_of(space: PairingSpace, items: Iterable[tuple[Kind, Mapping[str, ArrayLike]]]) -> PairingConstants:
    """Sigma and calibrations of a space, taken from all items.

    Args:
        space: the space.
        items: each item's kind and vectors by name; those that lack one, or whose vectors are of another
            dimension than most, do not count.

    Returns:
        Constants; with an empty side, sigma's published value and no curves (they are straight then).
    """
    if not space.has_constants:
        return PairingConstants()
    whole: list[tuple[Kind, Lengths, Floats]] = []
    for kind, vectors in items:
        found, vector = space.dimensions(kind, vectors), space.vector(kind, vectors)
        if vector is not None and found is not None:
            whole.append((kind, found, vector))
    lengths = most_frequent(Counter(found for _, found, _ in whole))
    sides: dict[Kind, list[Floats]] = {kind: [] for kind in Kind}
    for kind, found, vector in whole:
        if found == lengths:
            sides[kind].append(vector)
    dimensions = lengths or () if space.is_mix else ()
    left, right = (np.asarray(sides[kind]) for kind in (Kind.ARTWORK, Kind.TRACK))
    if not len(left) or not len(right) or lengths is None:
        has_va = any(each.is_va for each in space.components)
        return PairingConstants(sigma=DEFAULT_SIGMA if has_va else None, dimensions=dimensions)
    starts = np.cumsum([0, *lengths])
    cut = {
        component.name: (left[:, starts[place] : starts[place + 1]], right[:, starts[place] : starts[place + 1]])
        for place, component in enumerate(space.components)
    }
    sigma = next(
        (round(mean_distance(*cut[each.name], sample=_SAMPLE), 9) for each in space.components if each.is_va), None
    )
    constants = PairingConstants(sigma=sigma, dimensions=dimensions)
    if not space.is_mix:
        return constants
    curves = {}
    for component in space.components:
        measure = _plain_measure(component, constants)
        one, two = (measure.prepare(side) for side in cut[component.name])
        curves[component.name] = _curve_of(_cross_units(one, two, measure), measure)
    return constants.model_copy(update={"calibrations": curves})


def _cross_units(left: Floats, right: Floats, measure: Measure) -> Units:
    if len(left) * len(right) <= _SAMPLE:
        return np.concatenate([block.ravel() for _, block in blocks(left, right, measure)])
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(left), size=_SAMPLE), generator.integers(len(right), size=_SAMPLE)
    return measure.paired(left[chosen[0]], right[chosen[1]])


Points = tuple[tuple[int, int], ...]


def _straight(measure: Measure) -> Points:
    return ((measure.lowest, 0), (UNITS, UNITS))


def _curve_of(units: Units, measure: Measure) -> Points:
    """Rising points through the quantiles of similarities; values never seen are still told apart at both ends."""
    units = np.sort(units)
    knots = units[np.linspace(0, len(units) - 1, _KNOTS).round().astype(np.int64)]
    shares = np.linspace(0, UNITS, _KNOTS + 2)[1:-1]
    points = [(measure.lowest, 0.0)]
    # Equal quantiles are one point, half-way: its ties neither gain nor lose.
    for knot in np.unique(knots):
        points.append((int(knot), float(shares[knots == knot].mean())))
    points.append((UNITS, float(UNITS)))
    rising: list[tuple[int, int]] = []
    for where, share in points:
        if rising and where <= rising[-1][0]:
            # A knot on an end: the end keeps the knot's share, which ties had made fairer.
            if len(rising) == 1:
                rising[0] = (rising[0][0], round(share))
            continue
        rising.append((where, round(share)))
    return tuple(rising)


def drifted(before: PairingConstants, after: PairingConstants) -> bool:
    """True when constants moved by more than `DRIFT`: sigma relative to itself, a curve at any of its points."""
    if (before.sigma is None) != (after.sigma is None) or before.dimensions != after.dimensions:
        return True
    if before.sigma is not None and after.sigma is not None and abs(after.sigma / before.sigma - 1) > DRIFT:
        return True
    for name, points in after.calibrations.items():
        known = before.calibrations.get(name)
        if known is None:
            return True
        old, new = Curve(known), Curve(points)
        where = np.unique(np.concatenate([old.where, new.where]))
        if np.abs(old(where) - new(where)).max() > DRIFT * UNITS:
            return True
    return False


# -- the measure of a mix ----------------------------------------------------------------------------------


class Curve:
    """Straight lines through rising points, in whole units: the same result for the same similarity, always."""

    def __init__(self, points: Sequence[tuple[int, int]]) -> None:
        self.where: Units = np.array([where for where, _ in points], dtype=np.int64)
        self._share: Units = np.array([share for _, share in points], dtype=np.int64)

    def __call__(self, units: Units) -> Units:
        """Shares, in units, of similarities in units; beyond the ends, those of the ends."""
        inside = np.clip(units, self.where[0], self.where[-1])
        place = np.clip(np.searchsorted(self.where, inside, side="right") - 1, 0, len(self.where) - 2)
        low, span = self.where[place], self.where[place + 1] - self.where[place]
        rise = self._share[place + 1] - self._share[place]
        # At most 2e7 * 1e7 in 64 bits.
        result: Units = self._share[place] + (inside - low) * rise // span
        return result


@dataclass(frozen=True, slots=True)
class _Part:
    weight: float
    start: int
    end: int
    measure: Measure
    curve: Curve


@dataclass(frozen=True)
class Mixed:
    """The weighted mean of calibrated similarities, in [0, 1]. A `workers.pairing.similarity.Measure`."""

    parts: tuple[_Part, ...]

    @property
    def lowest(self) -> int:
        """0: a share."""
        return 0

    def prepare(self, vector: ArrayLike) -> Floats:
        """Each component's vectors prepared, one after another. See `Measure.prepare`."""
        values = np.asarray(vector, dtype=np.float64)
        if values.shape[-1] != self.parts[-1].end:
            raise ValueError(
                f"a vector of {values.shape[-1]} numbers is not one of this mix, which has {self.parts[-1].end}"
            )
        joined: Floats = np.concatenate(
            [part.measure.prepare(values[..., part.start : part.end]) for part in self.parts], axis=-1
        )
        return joined

    def row(self, vector: Floats, others: Floats) -> Units:
        """See `Measure.row`."""
        return self._mixed(
            part.measure.row(vector[part.start : part.end], np.ascontiguousarray(others[:, part.start : part.end]))
            for part in self.parts
        )

    def nearly(self, vector: Floats, others: NDArray[np.floating]) -> Floats:
        """See `Measure.nearly`."""
        return self.row(vector, np.asarray(others, dtype=np.float64)).astype(np.float64)

    def single_slack(self, dimension: int) -> float | None:
        """None: calibration has steps, which a little may fall across."""
        return None

    def paired(self, left: Floats, right: Floats) -> Units:
        """See `Measure.paired`."""
        return self._mixed(
            part.measure.paired(left[:, part.start : part.end], right[:, part.start : part.end])
            for part in self.parts
        )

    def matrix(self, left: Floats, right: Floats) -> Units:
        """See `Measure.matrix`."""
        return self._mixed(
            part.measure.matrix(left[:, part.start : part.end], right[:, part.start : part.end])
            for part in self.parts
        )

    def _mixed(self, similarities: Iterable[Units]) -> Units:
        # Whole units times weights, added in one order: the same bits whatever the shape.
        total: Any = 0.0
        for part, units in zip(self.parts, similarities, strict=True):
            total = total + part.weight * part.curve(units)
        mixed: Units = np.rint(total).astype(np.int64)
        return mixed
