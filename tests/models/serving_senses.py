"""A real model server over chosen folders of model_repository/full with networks at a tiny size.

The folders are copied, the networks exported into the copy by the very command's functions, and the CPU server of the
embedded stack serves it. Where the environment lacks the server, tests skip and say so.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from full_models import export
from full_models.export import Made
from full_models.onnx_networks import NETWORKS
from full_models.reading import TOWERS

from infra.serving import triton
from tests.serving_fixtures import Served, running

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "model_repository" / "full"
TRAINED = ROOT / "model_repository" / "full_trained"
EDGE = ROOT / "model_repository" / "edge"
PYTHON_MODELS = (
    "embed_picture",
    "embed_sound",
    "embed_text",
    "va_picture",
    "va_sound",
    "va_text",
    "match_va",
    "score_caption",
    "measure_picture",
    "measure_sound",
)
FROM_EDGE = ("efficientnet_lite0", "musicnn_mtt", "musicnn_msd", "minilm")
ENVIRONMENT = Path(sys.prefix)


def copied(target: Path, models: Sequence[str]) -> Path:
    """A repository folder of these models as the clone has them, nothing built; those that are trained lie beside."""
    repository = target / "model_repository" / "full"
    repository.mkdir(parents=True)
    for name in models:
        source = config_folder(name)
        shutil.copytree(
            source,
            repository.with_name(source.parent.name) / name,
            ignore=shutil.ignore_patterns("*.onnx*", "*.json", "__pycache__", ".making-*"),
        )
    return repository


def config_folder(model: str) -> Path:
    """Where the clone keeps a model's config.pbtxt."""
    return TRAINED / model if model in TOWERS else FULL / model


def exported(target: Path, environment: Mapping[str, str]) -> tuple[Path, list[Made]]:
    """A repository with every network exported from the weights that the environment names."""
    if not (EDGE.parent / "edge.built.json").exists():
        pytest.skip("the edge models are not built (make setup)")
    folder = copied(target, [*NETWORKS, *PYTHON_MODELS, *FROM_EDGE])
    export.take_edge_files(folder, EDGE)
    export.write_clip_tokenizer(folder, environment)
    made = [export.export(folder, model, environment) for model in NETWORKS]
    assert export.note_towers(folder), "all towers are made, of one training"
    return folder, made


@contextlib.contextmanager
def serve(
    repository: Path, folder: Path, environment: Mapping[str, str] | None = None, seconds: float = 150
) -> Iterator[Served]:
    """A server of a repository, its state in `folder`; stopped at the end."""
    try:
        triton.prepare(ENVIRONMENT, folder / "serving")
    except triton.ServingError as error:
        pytest.skip(str(error))
    with running(repository, folder, environment=ENVIRONMENT, variables=environment, seconds=seconds) as server:
        yield server
