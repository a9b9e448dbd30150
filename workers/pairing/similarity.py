"""Similarity between artworks and tracks: how near two vectors of one space are, rounded so that order is exact.

Everything that compares similarities does so in *units*: whole numbers of 1e-7 (int64), so that sorting, ties and
prices of an assignment are exact integer arithmetic. A similarity gets the same units whether it is computed
alone, in a row or in a matrix, whatever the shape: fast linear algebra may differ in the last bits, so the few
values that lie near a rounding boundary are computed again in a fixed order of summation.

Which space is used, where vectors come from and what is done with the numbers is left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Units = NDArray[np.int64]

UNITS: Final = 10_000_000
"""Units in a similarity of 1: similarities are rounded to 1e-7 before any ordering."""

DEFAULT_SIGMA: Final = 0.34
"""Scale of MMVA's match score that fits the published list; used until sigma is computed from a collection."""


def _guard(dimension: int) -> float:
    """How near a rounding boundary, in units, two orders of summation may round differently.

    A sum of d products of unit vectors is off by at most d * 2**-53 in any order; this allows eight times that.
    """
    return max(dimension, 8) * 2.0**-50 * UNITS


def _single_slack(dimension: int, size: float) -> float:
    """How far off the product of two vectors in single precision may be, where their lengths have this product.

    With u = 2**-24, a sum of d products of rounded numbers is off by at most n u / (1 - n u) of the lengths,
    n = d + 2, in any order (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Two more and four
    units allow for rounding the factor and the result.
    """
    share = (dimension + 4) * 2.0**-24
    return share / (1 - share) * size + 4


class Measure(Protocol):
    """What a space's distance means for pairing. Vectors go through `prepare` once, then rows are cheap."""

    @property
    def lowest(self) -> int:
        """No similarity of this measure is lower than this, in units."""
        ...

    def prepare(self, vector: ArrayLike) -> Floats:
        """The form [dimension] or [n, dimension] in which the other calls want vectors.

        Raises:
            ValueError: a number is not finite, or the array is empty or has the wrong number of axes.
        """
        ...

    def row(self, vector: Floats, others: Floats) -> Units:
        """Similarity of one prepared vector [dimension] with prepared others [n, dimension]: int64 units [n]."""
        ...

    def nearly(self, vector: Floats, others: NDArray[np.floating]) -> Floats:
        """As `row`, but not rounded and off by at most one unit: a cheap way to see who is out of question.

        Others may be in single precision, half as much to read, where `single_slack` says how far off it is then.
        """
        ...

    def single_slack(self, dimension: int) -> float | None:
        """How far off `nearly` may be with others in single precision, in units; None: they may not be."""
        ...

    def paired(self, left: Floats, right: Floats) -> Units:
        """Similarity of left[i] with right[i], both [n, dimension]: int64 units [n]."""
        ...

    def matrix(self, left: Floats, right: Floats) -> Units:
        """Similarity of all of left [n, dimension] with all of right [m, dimension]: int64 units [n, m]."""
        ...


def _checked(vector: ArrayLike) -> Floats:
    values = np.array(vector, dtype=np.float64, ndmin=1)
    if values.ndim > 2 or values.shape[-1] == 0:
        raise ValueError(f"a vector of shape {values.shape} cannot be paired; give [dimension] or [n, dimension]")
    if not np.isfinite(values).all():
        raise ValueError("a vector holds a number that is not finite; make the item's vector again")
    return values


def _ordered_dot(left: Floats, right: Floats) -> Floats:
    """Row-wise dot products summed coordinate by coordinate: the same bits whatever the number of rows."""
    total: Floats = np.zeros(np.broadcast_shapes(left.shape[:-1], right.shape[:-1]))
    for coordinate in range(left.shape[-1]):
        total += left[..., coordinate] * right[..., coordinate]
    return total


def _rounded(sums: Floats, dimension: int, again: Callable[[tuple[NDArray[np.intp], ...]], Floats]) -> Units:
    """Sums of products as units; those near a rounding boundary come from `again`, which sums them in order.

    `sums` is overwritten.
    """
    sums *= UNITS
    rounded = np.rint(sums)
    sums -= rounded
    np.abs(sums, out=sums)
    certain = 0.5 - _guard(dimension)
    if sums.size and sums.max() > certain:
        near = np.nonzero(sums > certain)
        rounded[near] = np.rint(again(near) * UNITS)
    return rounded.astype(np.int64)


@dataclass(frozen=True)
class Cosine:
    """Cosine similarity in [-1, 1] (rgb, rgb15 and the joint spaces); a zero vector is similar to nothing: 0."""

    @property
    def lowest(self) -> int:
        """-1, in units."""
        return -UNITS

    def prepare(self, vector: ArrayLike) -> Floats:
        """Vectors of length 1 (or 0). See `Measure.prepare`."""
        values = _checked(vector)
        # Dividing by the largest coordinate first keeps huge and tiny vectors from overflowing when squared.
        largest = np.abs(values).max(axis=-1, keepdims=True)
        values = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
        length = np.sqrt(_ordered_dot(values, values))[..., None]
        prepared: Floats = np.divide(values, length, out=values, where=length > 0)
        return prepared

    def row(self, vector: Floats, others: Floats) -> Units:
        """See `Measure.row`."""
        return _rounded(others @ vector, len(vector), lambda near: _ordered_dot(vector[None, :], others[near[0]]))

    def nearly(self, vector: Floats, others: NDArray[np.floating]) -> Floats:
        """See `Measure.nearly`."""
        products: Floats = (others @ (vector * UNITS).astype(others.dtype)).astype(np.float64)
        return products

    def single_slack(self, dimension: int) -> float | None:
        """See `Measure.single_slack`."""
        return _single_slack(dimension, UNITS)

    def paired(self, left: Floats, right: Floats) -> Units:
        """See `Measure.paired`."""
        sums = np.einsum("ij,ij->i", left, right)
        return _rounded(sums, left.shape[1], lambda near: _ordered_dot(left[near[0]], right[near[0]]))

    def matrix(self, left: Floats, right: Floats) -> Units:
        """See `Measure.matrix`."""
        return _rounded(left @ right.T, left.shape[1], lambda near: _ordered_dot(left[near[0]], right[near[1]]))


@dataclass(frozen=True)
class ValenceArousal:
    """MMVA's match score S = exp(-d/sigma) in [0, 1], d the Euclidean distance of two points of the va space.

    `sigma` is the mean distance over all pairs (see `mean_distance`); it is a constant of a pairing, computed
    once, because a sigma that moved with every arrival would change every similarity.
    """

    sigma: float = DEFAULT_SIGMA

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be a positive number, not {self.sigma!r}; compute it with mean_distance")

    @property
    def lowest(self) -> int:
        """0: distances have no upper end."""
        return 0

    def prepare(self, vector: ArrayLike) -> Floats:
        """Points as they are. See `Measure.prepare`."""
        return _checked(vector)

    def _units(self, left: Floats, right: Floats) -> Units:
        squares: Floats = np.zeros(np.broadcast_shapes(left.shape[:-1], right.shape[:-1]))
        for coordinate in range(left.shape[-1]):
            difference = left[..., coordinate] - right[..., coordinate]
            squares += difference * difference
        units: Units = np.rint(np.exp(np.sqrt(squares) / -self.sigma) * UNITS).astype(np.int64)
        return units

    def row(self, vector: Floats, others: Floats) -> Units:
        """See `Measure.row`."""
        return self._units(vector[None, :], others)

    def nearly(self, vector: Floats, others: NDArray[np.floating]) -> Floats:
        """See `Measure.nearly`."""
        return self._units(vector[None, :], np.asarray(others, dtype=np.float64)).astype(np.float64)

    def single_slack(self, dimension: int) -> float | None:
        """None: points are few numbers, and the score is computed exactly at once."""
        return None

    def paired(self, left: Floats, right: Floats) -> Units:
        """See `Measure.paired`."""
        return self._units(left, right)

    def matrix(self, left: Floats, right: Floats) -> Units:
        """See `Measure.matrix`."""
        return self._units(left[:, None, :], right[None, :, :])


def measure_for(distance: str, sigma: float | None = None) -> Measure:
    """The measure of a space: its `distance` as the space declares it ("cosine" or "euclidean").

    Args:
        distance: "cosine", or "euclidean" (MMVA's exp(-d/sigma)).
        sigma: for "euclidean" only; None takes DEFAULT_SIGMA.

    Raises:
        ValueError: another distance, or a sigma that is not positive.
    """
    if distance == "cosine":
        return Cosine()
    if distance == "euclidean":
        return ValenceArousal(DEFAULT_SIGMA if sigma is None else sigma)
    raise ValueError(f"no similarity is known for the distance {distance!r}; use cosine or euclidean")


def as_similarity(units: int | np.int64) -> float:
    """The similarity that a number of units stands for."""
    return int(units) / UNITS


def as_units(similarity: float) -> int:
    """A similarity as units, rounded to 1e-7."""
    return round(similarity * UNITS)


def blocks(left: Floats, right: Floats, measure: Measure, rows: int = 256) -> Iterator[tuple[int, Units]]:
    """All similarities of two sides, `rows` rows at a time: (index of the first row, units [<= rows, m])."""
    for start in range(0, len(left), rows):
        yield start, measure.matrix(left[start : start + rows], right)


class Rough:
    """Similarities of whole blocks, quickly and off by no more than a known error: to see who is worth a look.

    Args:
        measure: of the space.
        others: prepared vectors [n, dimension].
        prices: of the others [n], in units, which are taken off; None: nothing is.
    """

    def __init__(self, measure: Measure, others: Floats, prices: Units | None = None) -> None:
        self._measure = measure
        self._others = others
        self._prices = prices
        self._single: NDArray[np.float32] | None = None
        self.offset = 0
        """What `rows` has too much, for all pairs alike: small numbers are more precise."""
        self.error = 0.0
        """How far `rows` may be off."""
        if not isinstance(measure, Cosine):
            return
        terms, size = others * UNITS, float(UNITS)
        if prices is not None and len(prices):
            self.offset = (int(prices.max()) + int(prices.min())) // 2
            terms = np.hstack([terms, (self.offset - prices)[:, None]])
            size += float(np.abs(prices - self.offset).max())
        self._single = np.ascontiguousarray(terms.astype(np.float32).T)
        self.error = _single_slack(terms.shape[1], size)

    def rows(self, vectors: Floats) -> NDArray[np.floating]:
        """Units (less prices, plus `offset`) [rows, n] of prepared vectors [rows, dimension]; not rounded."""
        if self._single is None:
            units = self._measure.matrix(vectors, self._others)
            return (units if self._prices is None else units - self._prices).astype(np.float64)
        if self._single.shape[0] > vectors.shape[1]:
            vectors = np.hstack([vectors, np.ones((len(vectors), 1))])
        products: NDArray[np.float32] = vectors.astype(np.float32) @ self._single
        return products


def mean_distance(left: ArrayLike, right: ArrayLike, *, sample: int = 1_000_000, seed: int = 0) -> float:
    """MMVA's sigma: the mean Euclidean distance over all pairs of artworks [n, d] and tracks [m, d].

    Above `sample` pairs a seeded sample of that size is taken. DEFAULT_SIGMA where a side is empty or all
    points coincide.
    """
    if not np.size(left) or not np.size(right):
        return DEFAULT_SIGMA
    one, two = np.atleast_2d(_checked(left)), np.atleast_2d(_checked(right))
    if len(one) * len(two) <= sample:
        first, second = np.divmod(np.arange(len(one) * len(two)), len(two))
    else:
        generator = np.random.default_rng(seed)
        first, second = generator.integers(len(one), size=sample), generator.integers(len(two), size=sample)
    difference: Any = one[first] - two[second]
    mean = float(np.sqrt((difference * difference).sum(axis=1)).mean())
    return mean if mean > 0 else DEFAULT_SIGMA
