"""The profile with and without what was trained here: entries, versions, and who settles it.

MMVA publishes no weights, so that the full profile starts without its towers and reads valence and arousal as the
edge profile does; the models themselves are tested where torch is (tests/models).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promenade.profile import read_profile, trained_here
from promenade.settings import CLONE, Settings
from promenade.supervisor import embedded_settings
from promenade.supervisor.parts import ModelsPart, WorkerPart
from schemas.failures import Refused
from schemas.media import Kind
from workers.contract import Array
from workers.models import Models
from workers.score import STAGE

FULL = CLONE / "model_repository" / "full.toml"
TOWERS = ("mmva_picture", "mmva_sound", "mmva_text", "mmva_similarity")

Export = Callable[[str], None]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The full profile in a folder of its own, beside a repository of two models."""
    path = tmp_path / "full.toml"
    path.write_bytes(FULL.read_bytes())
    for model in ("va_picture", "va_text"):
        (tmp_path / "full" / model / "1").mkdir(parents=True)
        (tmp_path / "full" / model / "1" / "model.py").touch()
    return path


@pytest.fixture
def export(profile: Path) -> Export:
    """Does what the export of towers does beside a profile."""

    def made(revision: str) -> None:
        for tower in TOWERS:
            (profile.with_suffix("") / tower / "1").mkdir(parents=True, exist_ok=True)
            (profile.with_suffix("") / tower / "1" / "model.onnx").touch()
        names = ", ".join(f'"{name}"' for name in TOWERS)
        profile.with_name("full_trained.toml").write_text(f'revision = "{revision}"\nmodels = [{names}]\n')

    return made


def test_towers_change_versions_and_what_is_waited_for(profile: Path, export: Export) -> None:
    before = read_profile(profile)
    assert not set(TOWERS) & before.models.keys()
    assert before.version("va_picture") == "edge-1" and not before.reads("va_picture", "media")
    assert before.version("score_emotion") == "1+edge-va"
    export("0f3a")
    after = read_profile(profile)
    assert set(TOWERS) <= after.models.keys()
    assert after.version("va_picture") == "1@0f3a" and after.reads("va_picture", "media")
    assert after.version("score_emotion") == "1@0f3a" and after.version("caption_picture") == "1"
    # Towers of another training are another version; no others are taken for them.
    export("77b2")
    assert read_profile(profile).version("va_sound") == "1@77b2"
    assert read_profile(profile, towers=False) == before


def test_every_version_of_the_score_stage_names_its_reading(profile: Path, export: Export) -> None:
    seen = []
    for revision in (None, "0f3a", "77b2"):
        if revision:
            export(revision)
        now = read_profile(profile)
        seen.append({kind: {name: now.version(name) for name in STAGE.models(kind, now)} for kind in Kind})
    assert seen[0][Kind.ARTWORK] == {"score_emotion": "1+edge-va", "va_picture": "edge-1"}
    assert seen[1][Kind.TRACK] == {"score_emotion": "1@0f3a", "va_sound": "1@0f3a"}
    for kind in Kind:
        assert len({tuple(each[kind].items()) for each in seen}) == 3


def test_a_note_without_its_towers_counts_for_nothing_but_in_an_image(profile: Path, export: Export) -> None:
    export("0f3a")
    (profile.with_suffix("") / "mmva_text" / "1" / "model.onnx").unlink()
    assert trained_here(profile) is None
    assert read_profile(profile).version("va_text") == "edge-2"
    with pytest.raises(Refused, match="promenade train va"):
        read_profile(profile, towers=True)
    # The note travels with the profile, the repository does not.
    alone = profile.parent / "image"
    alone.mkdir()
    for path in (profile, profile.with_name("full_trained.toml")):
        (alone / path.name).write_bytes(path.read_bytes())
    assert read_profile(alone / "full.toml").version("va_text") == "1@0f3a"
    (alone / "full_trained.toml").write_text("revision = 3\n")
    with pytest.raises(Refused, match=r"full_trained\.toml does not fit at revision"):
        read_profile(alone / "full.toml")


def test_a_stack_settles_it_at_its_start_for_models_and_workers(
    profile: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMENADE_TOWERS", raising=False)

    def told(settings: Settings) -> tuple[str, str]:
        models = ModelsPart(settings=settings, folder=tmp_path / "models")
        worker = WorkerPart(settings=settings)
        return models._choices()["PROMENADE_MODELS_TOWERS"], worker.environment()["PROMENADE_TOWERS"]

    first = embedded_settings(tmp_path / "data", profile=profile)
    assert told(first) == ("no", "false")
    export("0f3a")
    # Parts that are started again belong to the stack as it was started.
    assert told(first) == ("no", "false")
    assert told(embedded_settings(tmp_path / "data", profile=profile)) == ("yes", "true")
    assert "PROMENADE_TOWERS" not in embedded_settings(tmp_path / "data").environment(secrets=False)


def test_without_towers_nothing_is_missing_before_the_start(profile: Path, tmp_path: Path) -> None:
    if not (CLONE / ".serving" / "bin" / "python").exists():
        pytest.skip("the serving environment .serving is missing (make setup)")
    settings = embedded_settings(tmp_path / "data", profile=profile, serving=CLONE / ".serving")
    ModelsPart(settings=settings, folder=tmp_path / "models").prepare()


class Noting:
    """A model server that answers (.5, .5) and notes what it was sent."""

    def __init__(self) -> None:
        self.sent: dict[str, Mapping[str, Array]] = {}

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.sent[model] = inputs
        return {"VA": np.full((len(inputs["MEASUREMENTS"]), 2), 0.5, np.float32)}

    def stream(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is streamed here")


async def test_a_probe_asks_as_the_profile_reads(profile: Path, export: Export) -> None:
    noting = Noting()
    for towers in (False, True):
        if towers:
            export("0f3a")
        models = Models(noting, read_profile(profile))
        await models.answers("va_picture")
        await models.answers("va_sound")
        assert bool(noting.sent["va_picture"]["IMAGE"][0, 0]) is towers
        assert bool(noting.sent["va_sound"]["LENGTHS"].any()) is towers
