"""`promenade models fetch` against a hub on this machine: resume, checksums, licences, folders, and clear errors."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock
import huggingface_hub
import huggingface_hub.constants
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from promenade import cli, models_fetch
from promenade.profile import read_profile
from promenade.settings import CLONE, Settings
from promenade.weights import (
    AGREED,
    MARKER,
    Agreements,
    Entry,
    chosen_files,
    missing_shards,
    note_of,
    read_list,
    state_of,
)
from schemas.failures import Refused
from tests.made_hub import REVISION, MadeHub, running_hub, sha256_of

SIZE = 200_000
WEIGHTS = random.Random(1).randbytes(SIZE)
SECOND = random.Random(2).randbytes(SIZE)
PLAIN = random.Random(3).randbytes(SIZE)
REPOSITORY = "Org/Net"
PLACE = f"Org--Net/{REVISION}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeHub]:
    """A hub with one repository of weights, and one plain file."""
    with running_hub() as made:
        made.repositories[REPOSITORY] = {
            "config.json": b'{"layers": 2}',
            "README.md": b"Not fetched.",
            "model-1.safetensors": WEIGHTS,
            "model-2.safetensors": SECOND,
            "pytorch_model.bin": b"?" * SIZE,
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
            ).encode(),
            "tokenizer/vocab.json": b"{}",
        }
        made.files["network.pth"] = PLAIN
        monkeypatch.setenv("HF_ENDPOINT", made.address)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(models_fetch, "_PAUSE", 0.01)
        yield made


class House:
    """A clone with a list of weights, and the command as a person types it."""

    def __init__(self, folder: Path, hub: MadeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        self.root = folder / "weights"
        self.list = folder / "model_repository" / "full_weights.toml"
        self.list.parent.mkdir()
        self.entries: list[dict[str, Any]] = [
            {
                "name": "net",
                "repository": REPOSITORY,
                "revision": REVISION,
                "files": ["*.json", "*.safetensors|*.bin"],
                "size": 3 * SIZE,
                "licence": "Apache-2.0",
                "non_commercial": False,
                "needed_by": ["caption_picture"],
                "source": "made",
            },
            {
                "name": "plain",
                "address": f"{hub.address}/files/network.pth",
                "revision": "first",
                "files": ["network.pth"],
                "sha256": {"network.pth": sha256_of(PLAIN)},
                "size": SIZE,
                "licence": "CC-BY-NC-4.0",
                "non_commercial": True,
                "needed_by": ["imagebind_vision"],
                "source": "made",
            },
        ]
        self.write()
        monkeypatch.setattr(models_fetch, "CLONE", folder)

    def write(self) -> None:
        """The list as it stands now."""
        lines = ['profile = "full"']
        for entry in self.entries:
            lines += ["[[weights]]"]
            for name, value in entry.items():
                text = json.dumps(value).replace('": "', '" = "') if isinstance(value, dict) else json.dumps(value)
                lines.append(f"{name} = {text}")
        self.list.write_text("\n".join(lines) + "\n")

    def __call__(self, *words: str, status: int = 0) -> Any:
        arguments = ["models", "fetch", "--profile", "full", "--weights", str(self.root), *words]
        result = CliRunner().invoke(cli.application, arguments)
        assert result.exit_code == status, result.output
        return result

    def entry(self, name: str) -> Entry:
        """As it is in the list."""
        return read_list(self.list).chosen([name])[0]

    def folder(self, name: str) -> Path:
        """Where its files lie."""
        return self.entry(name).folder(self.root)


@pytest.fixture
def house(tmp_path: Path, hub: MadeHub, monkeypatch: pytest.MonkeyPatch) -> House:
    """A clone with its list."""
    return House(tmp_path, hub, monkeypatch)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- all goes well ---------------------------------------------------------------------------------------------


def test_weights_come_whole_are_compared_and_need_no_network_again(house: House, hub: MadeHub) -> None:
    told = json.loads(house("--yes", "--json").stdout)
    assert {each["name"]: each["state"] for each in told["entries"]} == {"net": "there", "plain": "there"}
    folder = house.folder("net")
    assert folder == house.root / PLACE
    # Safetensors were preferred, the page was not fetched, and what the client kept for itself is gone.
    assert files_below(folder) == {
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer/vocab.json",
        MARKER,
    }
    assert (folder / "model-1.safetensors").read_bytes() == WEIGHTS
    assert (house.folder("plain") / "network.pth").read_bytes() == PLAIN
    note = note_of(folder)
    assert note is not None
    assert (note.name, note.source, note.revision, note.licence) == ("net", REPOSITORY, REVISION, "Apache-2.0")
    assert {file.checked for file in note.files.values()} == {"source"}
    assert note.files["model-1.safetensors"].sha256 == sha256_of(WEIGHTS)
    plain = note_of(house.folder("plain"))
    assert plain is not None and plain.files["network.pth"].checked == "list"

    asked = len(hub.requests)
    house("--yes")
    assert len(hub.requests) == asked


def test_models_find_what_was_fetched(house: House) -> None:
    house("--yes")
    weights = serving_weights()
    found = weights.find(REPOSITORY, needed_by="caption_picture", setting="X", root=house.root)
    assert (found.folder, found.revision) == (house.folder("net"), REVISION)
    assert weights.find("plain", needed_by="x", setting="X", root=house.root).file("network.pth").is_file()
    (house.folder("net") / MARKER).unlink()
    with pytest.raises(weights.MissingWeights, match="models fetch --profile full"):
        weights.find(REPOSITORY, needed_by="caption_picture", setting="X", root=house.root)


def serving_weights() -> ModuleType:
    """How the served models look for weights; their package is not installed here, and this module needs nothing."""
    path = CLONE / "infra" / "serving" / "full_models" / "src" / "full_models" / "weights.py"
    specification = importlib.util.spec_from_file_location("serving_weights", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["serving_weights"] = module
    specification.loader.exec_module(module)
    return module


def test_only_what_is_named_comes_and_optional_ones_only_so(house: House, hub: MadeHub) -> None:
    house.entries[0]["optional"] = "when somebody wants it"
    house.write()
    house("--yes")
    assert state_of(house.entry("net"), house.root) == "missing"
    house("net")
    assert state_of(house.entry("net"), house.root) == "there"
    assert "'nothing'" in house("nothing", status=1).stderr


# -- resume ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("net", "model-1.safetensors"), ("plain", "network.pth")])
def test_a_broken_connection_goes_on_in_the_same_command(house: House, hub: MadeHub, name: str, file: str) -> None:
    hub.break_off[file] = [70_000, 0, 0, 50_000, 0]
    house(name, "--yes")
    assert state_of(house.entry(name), house.root) == "there"
    starts = [each.start for each in hub.asked if each.path == file]
    assert starts[0] == 0
    assert starts == sorted(starts) and starts[-1] > 70_000
    # Only what was on the way when the connection broke came twice.
    assert SIZE <= hub.sent(file) < 1.5 * SIZE


@pytest.mark.parametrize(("name", "file"), [("net", "model-2.safetensors"), ("plain", "network.pth")])
def test_an_interrupted_fetch_goes_on_in_the_next_command(house: House, hub: MadeHub, name: str, file: str) -> None:
    hub.break_off[file] = [120_000, *[0] * 20]
    failed = house(name, "--yes", status=1)
    assert "does not answer" in failed.stderr and "goes on where it stopped" in failed.stderr
    assert state_of(house.entry(name), house.root) == "begun"
    assert note_of(house.folder(name)) is None
    before = len(hub.asked)
    hub.break_off.clear()
    house(name, "--yes")
    later = hub.asked[before:]
    # The broken file goes on where it stopped; what had come whole is not asked for again.
    assert later[0].path == file
    assert not {each.path for each in later} & {each.path for each in hub.asked[:before] if each.path != file}
    assert later[0].start > 100_000
    assert later[0].start + later[0].sent == SIZE
    content = {"model-2.safetensors": SECOND, "network.pth": PLAIN}[file]
    assert (house.folder(name) / file).read_bytes() == content


def test_large_files_come_from_another_host_that_is_not_told_the_token(
    house: House, hub: MadeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made")
    with running_hub() as elsewhere:
        elsewhere.files["large"] = WEIGHTS
        elsewhere.break_off["large"] = [80_000]
        hub.redirects["model-1.safetensors"] = f"{elsewhere.address}/files/large"
        house("net")
        assert (house.folder("net") / "model-1.safetensors").read_bytes() == WEIGHTS
        assert hub.authorizations == ["Bearer hf_made"] * 2
        assert [(each.start > 0, each.authorization) for each in elsewhere.asked] == [(False, ""), (True, "")]


@pytest.mark.parametrize(("name", "file"), [("net", "model-1.safetensors"), ("plain", "network.pth")])
def test_a_fetch_that_was_killed_goes_on(house: House, hub: MadeHub, name: str, file: str) -> None:
    hub.holds[file] = 150_000
    code = (
        "import sys; from pathlib import Path\n"
        "from promenade import cli, models_fetch\n"
        f"models_fetch.CLONE = Path({str(house.list.parents[1])!r})\n"
        f"sys.argv = ['promenade', 'models', 'fetch', {name!r}, '--yes', '--weights', {str(house.root)!r}]\n"
        "cli.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=CLONE, stderr=subprocess.DEVNULL) as process:
        assert hub.held.wait(60)
        until = time.monotonic() + 30
        while sum(path.stat().st_size for path in house.root.rglob("*") if path.is_file()) < 120_000:
            assert time.monotonic() < until, "what came is not on the disk"
            time.sleep(0.02)
        process.kill()
    hub.holds.clear()
    hub.goes_on.set()
    assert state_of(house.entry(name), house.root) == "begun"
    before = len(hub.asked)
    house(name, "--yes")
    assert state_of(house.entry(name), house.root) == "there"
    (again,) = [each for each in hub.asked[before:] if each.path == file]
    assert again.start >= 100_000


def test_a_server_that_knows_no_ranges_begins_anew(house: House, hub: MadeHub) -> None:
    hub.break_off["network.pth"] = [90_000]
    hub.ignores_ranges = True
    house("plain", "--yes")
    assert (house.folder("plain") / "network.pth").read_bytes() == PLAIN


def test_a_file_that_came_whole_before_the_end_is_compared_not_fetched(house: House, hub: MadeHub) -> None:
    part = house.folder("plain") / "network.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(PLAIN)
    house("plain", "--yes")
    assert hub.sent("network.pth") == 0


# -- checksums -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"), [("net", "model-1.safetensors"), ("net", "config.json"), ("plain", "network.pth")]
)
def test_damaged_bytes_are_found_and_removed(house: House, hub: MadeHub, name: str, file: str) -> None:
    hub.damaged.add(file)
    told = house(name, "--yes", "--json", status=1)
    (entry,) = json.loads(told.stdout)["entries"]
    assert file in entry["problem"] and "checksum" in entry["problem"]
    assert entry["state"] != "there"
    assert not (house.folder(name) / file).exists()
    hub.damaged.clear()
    house(name, "--yes")
    assert state_of(house.entry(name), house.root) == "there"


def test_a_part_of_another_file_does_not_pass(house: House) -> None:
    part = house.folder("plain") / "network.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    assert "checksum" in house("plain", "--yes", status=1).stderr
    house("plain", "--yes")


def test_the_lists_own_checksum_is_stronger_than_the_hubs(house: House, hub: MadeHub) -> None:
    house.entries[0]["sha256"] = {"model-1.safetensors": sha256_of(SECOND)}
    house.write()
    assert "pins" in house("net", status=1).stderr
    assert hub.asked == []


def test_what_is_here_can_be_read_again(house: House, hub: MadeHub) -> None:
    house("net")
    path = house.folder("net") / "model-1.safetensors"
    path.write_bytes(bytes(SIZE))
    asked = len(hub.asked)
    house("net")
    assert len(hub.asked) == asked
    assert "model-1.safetensors" in house("net", "--check").stderr
    assert [each.path for each in hub.asked[asked:]] == ["model-1.safetensors"]
    assert path.read_bytes() == WEIGHTS
    house("net", "--check")
    assert len(hub.asked) == asked + 1
    # A file that lost bytes is missed without being read.
    path.write_bytes(b"")
    assert state_of(house.entry("net"), house.root) == "begun"


# -- licences --------------------------------------------------------------------------------------------------


def test_nobody_there_to_agree_means_nothing_is_fetched(house: House, hub: MadeHub) -> None:
    refused = house(status=1)
    assert "plain: CC-BY-NC-4.0" in refused.stderr and "--yes" in refused.stderr
    assert hub.requests == []
    # Free ones need no word.
    house("net")


def test_agreement_is_asked_for_once_and_remembered(
    house: House, hub: MadeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    answers = [False, True]

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    def confirm(text: str, err: bool) -> bool:
        questions.append(text)
        return answers.pop(0)

    monkeypatch.setattr(models_fetch.sys, "stdin", Terminal())
    monkeypatch.setattr(models_fetch.typer, "confirm", confirm)

    def typed(status: int = 0) -> str:
        said: list[str] = []
        try:
            models_fetch._carried_out(
                [], "full", house.root, None, said.append, models_fetch.Console(stderr=True), yes=False,
                listing=False, check=False,
            )  # fmt: skip
        except Refused as error:
            assert status == 1
            return str(error)
        assert status == 0
        return "\n".join(said)

    assert "nothing was fetched" in typed(status=1)
    assert hub.requests == [] and not (house.root / AGREED).exists()
    assert "plain: CC-BY-NC-4.0" in typed()
    assert len(questions) == 2
    (agreed,) = Agreements(house.root).read()
    assert (agreed.name, agreed.licence) == ("plain", "CC-BY-NC-4.0")
    # It is not asked again, not even when the weights are fetched anew.
    shutil.rmtree(house.folder("plain"))
    typed()
    assert len(questions) == 2
    # Other terms are another question.
    house.entries[1]["licence"] = "CC-BY-NC-SA-4.0"
    house.write()
    answers.append(False)
    typed(status=1)
    assert len(questions) == 3


def test_yes_on_the_command_line_is_remembered_too(house: House) -> None:
    house("plain", "--yes")
    shutil.rmtree(house.folder("plain"))
    house("plain")
    assert len(Agreements(house.root).read()) == 1


def test_a_harmed_note_of_agreements_means_asking_again(house: House) -> None:
    house.root.mkdir()
    for text in ("{", "[1]", '{"name": 1}', ""):
        (house.root / AGREED).write_text(text)
        house("plain", status=1)


# -- folders instead of a network ------------------------------------------------------------------------------


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("place", [PLACE, "Org--Net", "Org/Net", "Net", "net"])
def test_weights_are_taken_from_a_folder(house: House, hub: MadeHub, tmp_path: Path, place: str) -> None:
    brought = tmp_path / "stick"
    laid_out(brought / place, hub.repositories[REPOSITORY])
    (entry,) = json.loads(house("net", "--from", str(brought), "--json").stdout)["entries"]
    assert entry["state"] == "there"
    assert hub.requests == []
    assert (house.folder("net") / "model-2.safetensors").read_bytes() == SECOND
    # Nothing was there to compare with, and that is said.
    assert set(entry["unchecked"]) == files_below(house.folder("net")) - {MARKER}


def test_a_cache_of_the_hubs_client_brings_its_checksums(house: House, hub: MadeHub, tmp_path: Path) -> None:
    for name in hub.repositories[REPOSITORY]:
        huggingface_hub.hf_hub_download(
            REPOSITORY, name, revision=REVISION, cache_dir=tmp_path / "cache", endpoint=hub.address
        )
    asked = len(hub.requests)
    (entry,) = json.loads(house("net", "--from", str(tmp_path / "cache"), "--json").stdout)["entries"]
    assert (entry["state"], entry["unchecked"]) == ("there", [])
    assert len(hub.requests) == asked

    shutil.rmtree(house.root)
    blob = next(path for path in (tmp_path / "cache").rglob("blobs/*") if path.name == sha256_of(WEIGHTS))
    blob.write_bytes(bytes(SIZE))
    assert "checksum" in house("net", "--from", str(tmp_path / "cache"), status=1).stderr


def test_a_copied_weights_folder_brings_its_checksums(house: House, tmp_path: Path) -> None:
    house("net", "plain", "--yes")
    copied = tmp_path / "copied"
    house.root.rename(copied)
    told = json.loads(house("--yes", "--from", str(copied), "--json").stdout)
    assert [(each["state"], each["unchecked"]) for each in told["entries"]] == [("there", [])] * 2
    shutil.rmtree(house.root)
    (copied / PLACE / "model-1.safetensors").write_bytes(bytes(SIZE))
    assert "checksum" in house("net", "--from", str(copied), status=1).stderr


def test_a_folder_that_lacks_something_is_named_with_what_it_lacks(
    house: House, hub: MadeHub, tmp_path: Path
) -> None:
    brought = laid_out(tmp_path / "stick" / "Net", {"config.json": b"{}"}).parent
    assert "*.safetensors|*.bin" in house("net", "--from", str(brought), status=1).stderr
    # A shard of which the index speaks is missed too.
    files = {name: content for name, content in hub.repositories[REPOSITORY].items() if "model-2" not in name}
    laid_out(brought / "Net", files)
    assert "no complete net" in house("net", "--from", str(brought), status=1).stderr
    assert house("net", "--from", str(tmp_path / "none"), status=2)


def test_a_file_for_the_hand_is_asked_for_and_taken_from_a_folder(house: House, tmp_path: Path) -> None:
    del house.entries[1]["address"]
    house.entries[1]["page"] = "https://example.org/network"
    house.write()
    failed = house("--yes", status=1)
    assert "by hand" in failed.stderr and "https://example.org/network" in failed.stderr
    # The other one came all the same.
    assert state_of(house.entry("net"), house.root) == "there"
    brought = laid_out(tmp_path / "downloads", {"network.pth": PLAIN, "other.txt": b"?"})
    house("plain", "--from", str(brought))
    assert files_below(house.folder("plain")) == {"network.pth", MARKER}
    # Its checksum is pinned, so another file under this name does not pass.
    shutil.rmtree(house.root / "plain")
    laid_out(brought, {"network.pth": SECOND})
    assert "checksum" in house("plain", "--from", str(brought), status=1).stderr


# -- errors ----------------------------------------------------------------------------------------------------


def test_no_network_is_said_in_one_sentence(house: House, hub: MadeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    house.entries[1]["address"] = "http://127.0.0.1:9/network.pth"
    house.write()
    for name in ("net", "plain"):
        failed = house(name, "--yes", status=1)
        assert "does not answer" in failed.stderr and "--from" in failed.stderr
        assert "Traceback" not in failed.output


def test_offline_by_setting_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    failed = house("net", status=1).stderr
    assert "HF_HUB_OFFLINE" in failed or "does not answer" in failed
    assert "--from" in failed


def test_without_the_hubs_client_the_extra_is_named(
    house: House, hub: MadeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    failed = house("--yes", status=1)
    assert "promenade[weights]" in failed.stderr
    # Web addresses and folders need no client.
    assert state_of(house.entry("plain"), house.root) == "there"
    laid_out(tmp_path / "stick" / "Net", hub.repositories[REPOSITORY])
    house("net", "--from", str(tmp_path / "stick"))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "RepoNotFound", "has no repository"),
        (404, "RepoNotFound", "has no repository"),
        (403, "GatedRepo", "HF_TOKEN"),
        (500, "", "500"),
    ],
)
def test_what_the_hub_refuses_is_told(house: House, hub: MadeHub, status: int, code: str, words: str) -> None:
    hub.statuses[REPOSITORY], hub.errors[REPOSITORY] = status, code
    assert words in house("net", status=1).stderr


def test_a_revision_that_is_gone_or_another_one_is_told(house: House, hub: MadeHub) -> None:
    hub.answers_for = "f" * 40
    assert f"the revision {'f' * 40}" in house("net", status=1).stderr
    hub.answers_for = REVISION
    house.entries[0]["revision"] = "e" * 40
    house.write()
    assert "no revision" in house("net", status=1).stderr
    assert hub.asked == []


def test_a_web_address_that_is_gone_is_told(house: House, hub: MadeHub) -> None:
    hub.statuses["network.pth"] = 404
    assert "404" in house("plain", "--yes", status=1).stderr


def test_a_missing_pattern_is_told_before_anything_comes(house: House, hub: MadeHub) -> None:
    del hub.repositories[REPOSITORY]["model-1.safetensors"]
    del hub.repositories[REPOSITORY]["model-2.safetensors"]
    del hub.repositories[REPOSITORY]["pytorch_model.bin"]
    assert "*.safetensors or *.bin" in house("net", status=1).stderr
    assert hub.asked == []


def test_too_little_room_is_told_before_anything_comes(
    house: House, hub: MadeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = models_fetch._SPARE + 100_000

    monkeypatch.setattr(models_fetch.shutil, "disk_usage", lambda _: Usage)
    failed = house("net", status=1).stderr
    assert "make room" in failed and "--weights" in failed
    assert hub.asked == []


def test_two_fetches_at_once_are_one_too_many(house: House) -> None:
    house.root.mkdir()
    with filelock.FileLock(house.root / ".fetch.lock"):
        assert "another command" in house("net", status=1).stderr


def test_other_profiles_are_told_what_to_do(house: House) -> None:
    runner = CliRunner()
    built = runner.invoke(cli.application, ["models", "fetch", "--profile", "edge"])
    assert built.exit_code == 1 and "models build" in built.stderr
    none = runner.invoke(cli.application, ["models", "fetch", "--profile", "../other"])
    assert none.exit_code == 1 and "other_weights.toml" in none.stderr


def test_a_list_shows_sizes_licences_and_what_is_here(house: House, hub: MadeHub) -> None:
    house("net")
    asked = len(hub.requests)
    text = house("--list").stdout
    assert re.search(r"plain\s+imagebind_vision\s+CC-BY-NC-4.0\s+yes\s+0.00\s+no", text)
    assert re.search(r"net\s+caption_picture\s+Apache-2.0\s+0.00\s+yes", text)
    told = json.loads(house("--list", "--json").stdout)["entries"]
    assert [(each["name"], each["state"], each["non_commercial"]) for each in told] == [
        ("net", "there", False),
        ("plain", "missing", True),
    ]
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "main"}, "whole commit"),
        ({"page": "https://example.org"}, "give one of"),
        ({"files": []}, "files"),
        ({"name": "a/b"}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_list_that_does_not_fit_names_the_place(house: House, change: dict[str, Any], words: str) -> None:
    house.entries[0] |= change
    house.write()
    assert words in house("net", status=1).stderr


# -- building from them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "environment", "maker"),
    [("edge", ".serving", "edge_models.build"), ("full", ".models", "full_models.export")],
)
def test_each_profile_is_built_by_its_own_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, environment: str, maker: str
) -> None:
    monkeypatch.setattr(cli, "CLONE", tmp_path)
    monkeypatch.setenv("PROMENADE_WEIGHTS", str(tmp_path / "weights"))
    command = ["models", "build", "--profile", profile, "--json"]
    missing = CliRunner().invoke(cli.application, command)
    assert missing.exit_code == 1 and "make " in missing.stderr and environment in missing.stderr
    python = tmp_path / environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    runs: list[tuple[list[str], str]] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        runs.append((command, env["PROMENADE_WEIGHTS"]))
        return subprocess.CompletedProcess(command, len(runs) - 1)

    monkeypatch.setattr(cli.subprocess, "run", run)
    built = CliRunner().invoke(cli.application, command)
    repository = tmp_path / "model_repository" / profile
    assert json.loads(built.stdout) == {"profile": profile, "repository": str(repository), "built": True}
    asked = [str(python), "-m", maker, "--repository", str(repository)]
    assert runs == [(asked, str(tmp_path / "weights"))]
    failed = CliRunner().invoke(cli.application, command)
    assert failed.exit_code == 1 and json.loads(failed.stdout)["built"] is False


def test_a_profile_that_nobody_builds_is_wrong_usage() -> None:
    assert CliRunner().invoke(cli.application, ["models", "build", "--profile", "other"]).exit_code == 2


# -- names of files --------------------------------------------------------------------------------------------

ENTRY: dict[str, Any] = {
    "name": "net",
    "repository": REPOSITORY,
    "revision": REVISION,
    "size": 1,
    "licence": "MIT",
    "non_commercial": False,
    "needed_by": ["x"],
    "source": "made",
}


@pytest.mark.parametrize("name", ["../a.json", "/a.json", "b/../../a.json", "a\\b.json", "./a.json", "b//a.json"])
def test_a_hub_cannot_write_outside_its_folder(name: str) -> None:
    with pytest.raises(Refused, match="outside"):
        chosen_files(Entry(**ENTRY, files=("*.json",)), [name])


STEPS = st.sampled_from(["a", "b", "unet", "model-1"])
NAMES = st.lists(
    st.builds(
        lambda steps, suffix: "/".join(steps) + suffix,
        st.lists(STEPS, min_size=1, max_size=3),
        st.sampled_from([".json", ".safetensors", ".bin", ".md"]),
    ),
    unique=True,
)


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_files_are_chosen_by_the_first_pattern_that_fits(names: list[str]) -> None:
    entry = Entry(**ENTRY, files=("*.json", "*.safetensors|*.bin"))
    suffixes = {Path(name).suffix for name in names}
    if ".json" not in suffixes or not suffixes & {".safetensors", ".bin"}:
        with pytest.raises(Refused, match="no file"):
            chosen_files(entry, names)
        return
    weights = ".safetensors" if ".safetensors" in suffixes else ".bin"
    assert chosen_files(entry, names) == sorted(name for name in names if name.endswith((".json", weights)))


def test_an_index_names_its_shards(tmp_path: Path) -> None:
    index = tmp_path / "unet" / "model.safetensors.index.json"
    laid_out(tmp_path, {"unet/model.safetensors.index.json": b'{"weight_map": {"x": "one", "y": "two"}}'})
    held = ["unet/model.safetensors.index.json", "unet/one"]
    assert missing_shards(tmp_path, held) == ["unet/two"]
    index.write_text("[]")
    with pytest.raises(Refused, match="no index"):
        missing_shards(tmp_path, held)


# -- the list itself -------------------------------------------------------------------------------------------

LIST = read_list(CLONE / "model_repository" / "full_weights.toml")


def test_the_list_pins_everything_and_says_where_it_has_it_from() -> None:
    assert LIST.profile == "full"
    for entry in LIST.weights:
        assert entry.licence and entry.source
        assert entry.repository is None or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    non_commercial = {entry.name for entry in LIST.weights if entry.non_commercial}
    assert {"imagebind", "audioldm2-music", "mert-95m", "lp-music-caps"} <= non_commercial


def test_whatever_a_served_model_names_is_in_the_list() -> None:
    known = {entry.repository for entry in LIST.weights} | {entry.name for entry in LIST.weights}
    named: dict[str, str] = {}
    for path in sorted((CLONE / "model_repository").glob("full*/*/config.pbtxt")):
        for value in re.findall(r'key: "weights\w*" value: \{ string_value: "([^"]*)"', path.read_text()):
            named[value.partition("@")[0]] = path.parent.name
    for path in sorted((CLONE / "infra" / "serving" / "full_models" / "src").rglob("*.py")):
        for value in re.findall(r'(?:weights|default)="(\w[\w.-]*/[\w.-]+)"', path.read_text()):
            named[value] = path.name
    assert {"FacebookAI/roberta-large", "Qwen/Qwen2-Audio-7B-Instruct"} <= named.keys()
    # MMVA's towers and the aligner are trained, not published.
    missing = {value: model for value, model in named.items() if "/" in value and value not in known}
    assert missing == {}
    profile = read_profile(CLONE / "model_repository" / "full.toml", towers=False)
    served = profile.models.keys() | profile.trained.keys()
    assert {name for entry in LIST.weights for name in entry.needed_by} <= served


def test_the_weights_folder_is_the_one_that_the_stack_hands_to_models() -> None:
    assert Settings().weights == CLONE / "weights" or "PROMENADE_WEIGHTS" in os.environ
