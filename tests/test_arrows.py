"""Arrows between the rooms only point down, and heavy or foreign packages stay in the rooms that may have them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = (
    "schemas",
    "workers",
    "infra",
    "streams",
    "gallery",
    "promenade",
    "networks",
    "training",
    "benchmarks",
    "tests",
)

ALLOWED: dict[str, set[str]] = {
    "schemas": set(),
    "networks": set(),
    "workers": {"schemas"},
    "infra": {"schemas"},
    "streams": {"schemas", "workers", "infra"},
    "gallery": {"schemas", "workers", "infra"},
    "training": {"schemas", "networks", "infra"},
    "promenade": {"schemas", "workers", "infra", "streams", "gallery", "training"},
}

FORBIDDEN: dict[str, set[str]] = {
    # Broker, settings and stores are the business of others; outside parts are handed in.
    "workers": {
        "faust",
        "kafka",
        "aiokafka",
        "pydantic_settings",
        "minio",
        "qdrant_client",
        "tritonclient",
        "fastapi",
    },
    "schemas": {
        "faust",
        "kafka",
        "aiokafka",
        "minio",
        "qdrant_client",
        "tritonclient",
        "fastapi",
        "httpx",
        "urllib3",
    },
    "infra": {"faust", "pydantic_settings", "fastapi"},
    "streams": {"pydantic_settings", "fastapi", "qdrant_client", "tritonclient"},
    "gallery": {"faust", "kafka", "aiokafka", "pydantic_settings"},
    "networks": {"tritonclient", "onnxruntime", "kafka", "minio", "qdrant_client", "fastapi", "pydantic_settings"},
    "training": {"faust", "kafka", "aiokafka", "fastapi", "tritonclient"},
}

# The papers' networks, what trains and what serves them may have torch; nobody else.
FULL_MODELS = ("infra", "serving", "full_models")
WITHOUT_TORCH = (*(room for room in ALLOWED if room not in ("networks", "training")), "model_repository/edge")


def imports_of(path: Path) -> set[str]:
    """Full names of all modules that a file imports anywhere, with relative imports resolved."""
    found: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def top(module: str) -> str:
    return module.split(".", 1)[0]


def files_of(folder: str) -> list[Path]:
    """Python files of a room; the serving environment below infra is a room of its own."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if folder != "infra" or not is_serving(path)]


def is_serving(path: Path) -> bool:
    steps = path.relative_to(ROOT).parts
    return steps[:3] in (
        ("infra", "serving", "edge_models"),
        ("infra", "serving", "onnxruntime_backend"),
        FULL_MODELS,
    )


def may_have_networks(path: Path) -> bool:
    """The full profile's models, which stand on the papers' networks."""
    steps = path.relative_to(ROOT).parts
    return steps[:3] == FULL_MODELS or steps[:2] == ("model_repository", "full")


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    files = files_of(room)
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imports_of(path)
        if top(module) in ROOMS and top(module) not in ALLOWED[room] | {room}
    ]
    assert wrong == []


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_keeps_off_the_packages_that_are_not_its_business(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files_of(room)
        for module in imports_of(path)
        if top(module) in FORBIDDEN[room]
    ]
    assert wrong == []


def test_nobody_imports_the_front_door() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for room in ALLOWED
        if room != "promenade"
        for path in sorted((ROOT / room).rglob("*.py"))
        for module in imports_of(path)
        if top(module) == "promenade"
    ]
    assert wrong == []


def test_models_and_their_serving_import_nothing_of_the_pipeline() -> None:
    files = [path for path in sorted((ROOT / "infra" / "serving").rglob("*.py")) if is_serving(path)]
    files += sorted((ROOT / "model_repository").rglob("*.py"))
    assert any("model_repository" in path.parts for path in files)
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imports_of(path)
        if top(module) in ROOMS and not (top(module) == "networks" and may_have_networks(path))
    ]
    assert wrong == []


def test_no_torch_in_the_default_rooms() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for room in WITHOUT_TORCH
        for path in sorted((ROOT / room).rglob("*.py"))
        if not may_have_networks(path)
        for module in imports_of(path)
        if top(module) in {"torch", "torchvision", "torchaudio", "transformers", "diffusers", "tensorflow"}
    ]
    assert wrong == []


def test_each_file_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in (*ALLOWED, "model_repository", "tests")
        for path in sorted((ROOT / room).rglob("*.py"))
        if ast.get_docstring(ast.parse(path.read_text())) is None and path != ROOT / "tests" / "__init__.py"
    ]
    assert silent == []
