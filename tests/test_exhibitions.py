"""Spaces to pair in, their constants, and how the wall follows the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promenade.profile import read_profile
from promenade.settings import CLONE
from schemas.events import PairingCommand, decode, encode
from schemas.failures import Lasting, Refused
from schemas.media import Kind, digest_of, item_id
from schemas.records import (
    EmbedBody,
    ExhibitionSettings,
    PairingConstants,
    PairingRevision,
    PairingSnapshot,
    Provenance,
    Result,
    ScoreBody,
    now,
)
from schemas.spaces import Space
from streams.exhibitions import check, command, pinned, unpinned, updated
from workers.models import pack
from workers.pairing.calm import exchanges, hanging
from workers.pairing.rules import batch_stable
from workers.pairing.similarity import UNITS, Cosine, Measure, ValenceArousal, as_units
from workers.pairing.spaces import Curve, constants_of, drifted, item_vectors, pairing_space

ARTWORKS = [item_id(Kind.ARTWORK, digest_of(f"{number}".encode())) for number in range(6)]
TRACKS = [item_id(Kind.TRACK, digest_of(f"{number}".encode())) for number in range(6)]
PROFILE = read_profile(CLONE / "model_repository" / "edge.toml")


def result(item: str, body: Any) -> Result:
    provenance = Provenance(models={}, profile="made", made=now(), seconds=0)
    return Result(item=item, generation=0, revision=1, digest="0" * 32, provenance=provenance, body=body)


def scored(item: str = ARTWORKS[0]) -> Result:
    rgb = tuple((float(number), number + 1.0, number + 2.0) for number in range(5))
    va = tuple((number / 10, number / 20) for number in range(5))
    return result(item, ScoreBody(rgb=rgb, va=va, va_medium=va, va_scored=va, evidence=((),) * 5))


# -- spaces ------------------------------------------------------------------------------------------------


def test_each_emotion_space_pairs_by_its_own_part_of_the_score() -> None:
    vectors = item_vectors(scored())
    expected = {"rgb": [4, 5, 6], "rgb-1": [0, 1, 2], "rgb-3": [2, 3, 4], "rgb-4": [3, 4, 5], "va": [0.4, 0.2]}
    for name, numbers in expected.items():
        for kind in Kind:
            vector = pairing_space(name).vector(kind, vectors)
            assert vector is not None
            assert vector.tolist() == pytest.approx(numbers)
    fifteen = pairing_space("rgb15").vector(Kind.TRACK, vectors)
    assert fifteen is not None
    assert fifteen.tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6]
    assert not any(pairing_space(name).needs_embedding for name in expected)


def test_the_measure_of_va_is_mmvas_and_of_all_others_the_cosine() -> None:
    assert pairing_space("va").measure(PairingConstants(sigma=0.25)) == ValenceArousal(0.25)
    for name in ("rgb", "rgb15", "rgb-2", "caption-minilm-1", "imagebind-1 artwork raw x track caption"):
        assert pairing_space(name).measure(PairingConstants()) == Cosine()


@pytest.mark.parametrize("artwork", ["raw", "caption"])
@pytest.mark.parametrize("track", ["raw", "caption"])
def test_artsounds_four_strategies_take_the_named_vectors_of_each_side(artwork: str, track: str) -> None:
    axes = {"raw": [1.0, 0.0], "caption": [0.0, 1.0]}
    embedded = EmbedBody(
        vectors={
            "imagebind-1": pack(np.array(axes["raw"], np.float32)),
            "imagebind-1-caption": pack(np.array(axes["caption"], np.float32)),
        }
    )
    space = pairing_space(f"imagebind-1 artwork {artwork} x track {track}")
    vectors = item_vectors(scored(), result(ARTWORKS[0], embedded))
    assert space.needs_embedding
    for kind, form in ((Kind.ARTWORK, artwork), (Kind.TRACK, track)):
        vector = space.vector(kind, vectors)
        assert vector is not None
        assert vector.tolist() == axes[form]
    left, right = (space.vector(kind, vectors) for kind in Kind)
    assert left is not None
    assert right is not None
    assert batch_stable({"artwork-1": left}, {"track-1": right}, Cosine()) == {
        "artwork-1": ("track-1", 1.0 if artwork == track else 0.0)
    }


def test_an_item_that_lacks_a_vector_has_none_in_the_space() -> None:
    vectors = item_vectors(scored())
    assert pairing_space("caption-minilm-1").vector(Kind.ARTWORK, vectors) is None
    assert pairing_space("mix", [("rgb", 1), ("caption-minilm-1", 1)]).vector(Kind.ARTWORK, vectors) is None
    assert pairing_space("rgb").vector(Kind.ARTWORK, {"rgb": np.array([1, np.nan, 0])}) is None


@pytest.mark.parametrize(
    ("name", "mix", "says"),
    [
        ("RGB", (), "no space to pair in"),
        ("rgb artwork raw x track raw", (), "name it alone"),
        ("imagebind-1 artwork raw x track sound", (), "no space to pair in"),
        ("mix", (), "names its spaces and weights"),
        ("mix", (("rgb", 1.0), ("rgb", 2.0)), "each space once"),
        ("mix", (("rgb", 0.0),), "positive"),
        ("mix", (("mix", 1.0),), "no space to pair in"),
        ("rgb", (("va", 1.0),), "only the space mix has weights"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_words(name: str, mix: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pairing_space(name, mix)


def test_settings_that_the_profile_cannot_serve_are_refused_before_anything_is_written() -> None:
    def settings(**values: Any) -> ExhibitionSettings:
        return ExhibitionSettings.model_validate({"name": "spring", **values})

    for space in ("rgb", "rgb15", "rgb-4", "va", "caption-minilm-1"):
        check(settings(space=space), PROFILE)
    check(settings(space="mix", mix=(("caption-minilm-1", 1.0), ("va", 1.0))), PROFILE)
    for values in (
        {"space": "imagebind-1"},
        {"space": "picture-tags-1"},
        {"rule": "random"},
        {"floor": 1.5},
        {"floor": -1e300},
        {"pins": ((ARTWORKS[0], TRACKS[0]), (ARTWORKS[0], TRACKS[1]))},
    ):
        with pytest.raises(Refused):
            check(settings(**values), PROFILE)
    spaces = tuple(Space(name=name, dimension=4, distance="cosine", maker="made") for name in ("x-1", "x-1-caption"))
    full = PROFILE.model_copy(update={"spaces": spaces})
    for artwork in ("raw", "caption"):
        for track in ("raw", "caption"):
            check(settings(space=f"x-1 artwork {artwork} x track {track}"), full)
    with pytest.raises(Refused):
        check(settings(space="x-2 artwork raw x track raw"), full)


# -- constants ---------------------------------------------------------------------------------------------


def made_items(count: int, seed: int = 0, shift: float = 0.0) -> list[tuple[Kind, dict[str, Any]]]:
    generator = np.random.default_rng(seed)
    return [
        (kind, {"rgb": generator.random(3) + shift, "va": np.clip(generator.random(2), shift / 4, 1)})
        for _ in range(count)
        for kind in Kind
    ]


MIX = pairing_space("mix", [("rgb", 1.0), ("va", 3.0)])


def test_a_calibrated_similarity_is_the_share_of_all_possible_pairs_that_are_less_similar() -> None:
    items = made_items(60)
    constants = constants_of(MIX, items)
    for name, measure in (("rgb", Cosine()), ("va", ValenceArousal(constants.sigma or 0))):
        left, right = (
            measure.prepare(np.array([vectors[name] for kind, vectors in items if kind is wanted])) for wanted in Kind
        )
        units = measure.matrix(left, right).ravel()
        shares = Curve(constants.calibrations[name])(units) / UNITS
        true = np.argsort(np.argsort(units)) / len(units)
        assert np.abs(shares - true).max() < 0.03
        assert shares.mean() == pytest.approx(0.5, abs=0.01)
        order = np.argsort(units)
        assert (np.diff(shares[order])[np.diff(units[order]) > 1000] > 0).all()


def measure_of_mix() -> tuple[Measure, Any, Any]:
    items = made_items(40)
    measure = MIX.measure(constants_of(MIX, items))
    assert measure is not None
    left, right = (
        measure.prepare(np.array([MIX.vector(kind, vectors) for kind, vectors in items if kind is wanted]))
        for wanted in Kind
    )
    return measure, left, right


def test_a_mix_gives_the_same_units_alone_in_a_row_and_in_a_matrix() -> None:
    measure, left, right = measure_of_mix()
    matrix = measure.matrix(left, right)
    assert (matrix >= measure.lowest).all()
    assert (matrix <= UNITS).all()
    for number in range(len(left)):
        assert (measure.row(left[number], right) == matrix[number]).all()
        assert (measure.nearly(left[number], right) == matrix[number]).all()
        assert measure.single_slack(right.shape[1]) is None
        assert measure.paired(left[number][None], right[number][None])[0] == matrix[number, number]


def test_the_weights_of_a_mix_are_shares_of_their_sum() -> None:
    measure, left, right = measure_of_mix()
    items = made_items(40)
    constants = constants_of(MIX, items)
    curves = {name: Curve(points) for name, points in constants.calibrations.items()}
    rgb = curves["rgb"](Cosine().paired(left[:, :3], right[:, :3]))
    va = curves["va"](ValenceArousal(constants.sigma or 0).paired(left[:, 3:], right[:, 3:]))
    assert (measure.paired(left, right) == np.rint(0.25 * rgb + 0.75 * va).astype(np.int64)).all()


def test_constants_drift_only_where_the_items_as_a_whole_changed() -> None:
    before = constants_of(MIX, made_items(150))
    assert not drifted(before, before)
    assert not drifted(before, constants_of(MIX, made_items(151)))
    assert drifted(before, constants_of(MIX, made_items(150, shift=2.0)))
    va = pairing_space("va")
    assert not drifted(PairingConstants(sigma=0.40), PairingConstants(sigma=0.419))
    assert drifted(PairingConstants(sigma=0.40), PairingConstants(sigma=0.421))
    assert drifted(PairingConstants(sigma=0.40), PairingConstants(sigma=0.379))
    assert constants_of(va, ()).sigma is not None
    assert constants_of(pairing_space("rgb"), made_items(5)) == PairingConstants()


def test_equal_similarities_everywhere_are_calibrated_to_the_middle() -> None:
    items = [(kind, {"rgb": np.ones(3), "va": np.array([0.5, 0.5])}) for kind in Kind for _ in range(5)]
    measure = MIX.measure(constants_of(MIX, items))
    assert measure is not None
    vector = measure.prepare(MIX.vector(Kind.TRACK, items[0][1])[None])  # type: ignore[index]
    assert measure.paired(vector, vector)[0] == pytest.approx(UNITS / 2, abs=UNITS / 100)


# -- the wall ----------------------------------------------------------------------------------------------


@st.composite
def pairings(draw: st.DrawFn) -> dict[tuple[str, str], float]:
    tracks = draw(st.permutations(TRACKS))
    count = draw(st.integers(0, len(TRACKS)))
    artworks = draw(st.permutations(ARTWORKS))
    return {pair: draw(st.integers(0, 10)) / 10 for pair in zip(artworks[:count], tracks[:count], strict=True)}


def one_to_one(pairs: Any) -> bool:
    return all(len({pair[side] for pair in pairs}) == len(pairs) for side in (0, 1))


@given(hung=pairings(), target=pairings(), threshold=st.sampled_from([0.0, 0.05, 0.5, 3.0]), chosen=st.integers())
def test_the_wall_moves_by_whole_exchanges_and_is_one_to_one_after_each_change(
    hung: dict[tuple[str, str], float], target: dict[tuple[str, str], float], threshold: float, chosen: int
) -> None:
    # A pair has one similarity, whether it hangs or is wanted.
    target = {pair: hung.get(pair, value) for pair, value in target.items()}
    pins = sorted(target)[chosen % len(target) :][:1] if target else []
    wall = dict(hung)
    for change in hanging(hung, target, threshold=threshold, why={}, pinned=pins):
        pair = change.artwork, change.track
        assert change.why
        assert (pair in wall) == (change.what == "parted")
        if change.what == "parted":
            del wall[pair]
        else:
            wall[pair] = change.similarity
        assert one_to_one(wall)
    assert set(pins) <= set(wall)
    if threshold == 0:
        assert wall == target
    together = list(exchanges(hung, target))
    assert {pair for each in together for pair in (*each.parted, *each.formed)} == set(hung) ^ set(target)
    for exchange in together:
        gain = sum(target[pair] for pair in exchange.formed) - sum(hung[pair] for pair in exchange.parted)
        assert exchange.gain == as_units(gain)
        moved = (
            threshold == 0 or not exchange.parted or gain >= threshold - 1e-9 or bool(set(pins) & {*exchange.formed})
        )
        for pair in exchange.formed:
            assert (pair in wall) == moved
        for pair in exchange.parted:
            assert (pair in wall) == (not moved)


def test_free_items_hang_at_once_however_little_they_gain() -> None:
    target = {(ARTWORKS[0], TRACKS[0]): 0.001}
    (change,) = hanging({}, target, threshold=5.0, why={})
    assert (change.what, change.why) == ("formed", "formed: both were free")


# -- documents ---------------------------------------------------------------------------------------------


def test_documents_from_before_walls_and_settings_by_number_are_still_read() -> None:
    settings = ExhibitionSettings.model_validate_json(
        '{"schema_version":1,"name":"default","collections":null,"space":"rgb15","rule":"stable"}'
    )
    assert (settings.threshold, settings.home, settings.pins) == (0.0, "default", ())
    made = now().isoformat()
    revision = PairingRevision.model_validate_json(
        f'{{"schema_version":1,"exhibition":"default","number":1,"owner":"a","made":"{made}"}}'
    )
    assert revision.hung is None
    snapshot = PairingSnapshot.model_validate_json(
        f'{{"schema_version":1,"exhibition":"default","number":1,"members":{{}},"pairs":[],"made":"{made}"}}'
    )
    assert snapshot.hung is None


def test_commands_name_an_item_where_it_is_due_and_none_elsewhere() -> None:
    for event in (command("spring", "changed"), command("spring", "item-ready", ARTWORKS[0], (0, 3))):
        assert decode(encode(event), PairingCommand) == event
    old = encode(command("spring", "item-left", ARTWORKS[0], (1, 2)))
    assert b'"generation":1' in old
    for what, item in (("changed", ARTWORKS[0]), ("item-ready", None)):
        with pytest.raises(ValueError, match="name an item"):
            command("spring", what, item)
    with pytest.raises(Lasting):
        decode(old.replace(ARTWORKS[0].encode(), b""), PairingCommand)


def test_an_item_is_pinned_to_one_other_only() -> None:
    settings = pinned(ARTWORKS[0], TRACKS[0])(ExhibitionSettings(name="spring"))
    assert settings.pins == ((ARTWORKS[0], TRACKS[0]),)
    assert pinned(ARTWORKS[0], TRACKS[0])(settings) == settings
    for pair in ((ARTWORKS[0], TRACKS[1]), (ARTWORKS[1], TRACKS[0])):
        with pytest.raises(Refused, match="unpin"):
            pinned(*pair)(settings)
    with pytest.raises(Refused, match="artwork, then a track"):
        pinned(TRACKS[0], ARTWORKS[0])
    with pytest.raises(Refused, match="not pinned"):
        unpinned(ARTWORKS[1], TRACKS[1])(settings)
    assert unpinned(ARTWORKS[0], TRACKS[0])(settings).pins == ()


def test_values_that_do_not_fit_are_refused_with_their_name() -> None:
    infinity = float("inf")
    for values, name in (
        ({"hour": 24}, "hour"),
        ({"threshold": -1.0}, "threshold"),
        ({"hour": 3.5}, "hour"),
        ({"threshold": infinity}, "threshold"),
        ({"floor": float("nan")}, "floor"),
        ({"mix": (("rgb", infinity),)}, "mix"),
    ):
        with pytest.raises(Refused, match=name):
            updated(ExhibitionSettings(name="spring"), values)
