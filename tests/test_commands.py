"""Commands as programs use them: every one takes `--json`, and what is printed then is JSON and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from infra.broker import describe
from infra.records import Records
from promenade import cli
from schemas.events import Arrived, new_trace
from schemas.failures import Lasting
from schemas.media import Kind
from schemas.records import DeadLetter, now
from streams.items import unreadable
from tests.made_world import World
from tests.stack_fixtures import Reached, put_item
from tests.test_exhibitions_commands import Typed

WITHOUT_JSON = {"worker"}
"""Serves until it is stopped; its log and its HTTP API speak for it."""


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def test_every_command_takes_json() -> None:
    found = dict(commands(typer.main.get_command(cli.application)))
    assert {"up", "withdraw", "exhibition pin", "dead-letters drop", "evaluate pairs"} <= found.keys()
    without = {
        name for name, command in found.items() if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT_JSON


def test_json_of_a_stack_in_the_foreground_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.application, ["up", "--json", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--detach" in result.stderr


def test_stopping_what_does_not_run_is_told_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.application, ["down", "--json", "--data", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"data": str(tmp_path), "stopped": False}
    assert "nothing runs" in result.stderr


def sentence_of(*words: str) -> str:
    """What a command says that cannot be carried out: one line, exit status 1, nothing on standard output."""
    result = CliRunner().invoke(cli.application, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PROMENADE_"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings_from_outside")
@pytest.mark.parametrize(
    "words",
    [
        ["up", "--detach"],
        ["up"],
        ["up", "--ports-from", "20000"],
        ["down"],
        ["status"],
        ["pairs"],
        ["search", "calm"],
        ["compact"],
        ["demo", "--made"],
    ],
)
def test_a_data_folder_that_is_a_file_is_said_in_one_sentence(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for data in (file, file / "below"):
        assert sentence_of(*words, "--data", str(data)).startswith(f"{file} is a file, not a folder: ")


@pytest.mark.usefixtures("_no_settings_from_outside")
def test_a_data_folder_that_cannot_be_made_is_said_in_one_sentence() -> None:
    # Nothing can be made in this folder, by nobody: the kernel makes what is in it.
    for words in (["up", "--detach"], ["up"], ["demo", "--made"]):
        assert "/proc/data cannot hold data (" in sentence_of(*words, "--data", "/proc/data")


@pytest.mark.usefixtures("_no_settings_from_outside")
@pytest.mark.parametrize("words", [["up"], ["status"], ["pairs"], ["compact"], ["worker"], ["prepare"], ["demo"]])
def test_wrong_settings_are_said_in_one_sentence(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets.json").touch(mode=0o600)
    monkeypatch.setenv("PROMENADE_DATA", str(tmp_path))
    monkeypatch.setenv("PROMENADE_HTTP_PORT", "80000")
    if words[0] not in ("pairs", "compact"):  # which start parts on ports of their own, and ask nobody over HTTP
        assert sentence_of(*words) == "PROMENADE_HTTP_PORT: '80000' is not a whole number from 1 to 65535."
    monkeypatch.delenv("PROMENADE_HTTP_PORT")
    monkeypatch.setenv("PROMENADE_S3_ACCESS_KEY", "an-access-key")
    said = sentence_of(*words)
    assert said == "give both PROMENADE_S3_ACCESS_KEY and PROMENADE_S3_SECRET_KEY, or neither."


@pytest.fixture
async def typed(world: World, object_store: Reached, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The command line over a world with two pictures and two tracks in `spring`."""
    for kind in Kind:
        for number in range(2):
            await world.announce(await put_item(world.records, f"{kind.value}{number}", kind, sequence=number))
    await world.settle()
    return Typed(world, object_store, monkeypatch)


async def items(records: Records) -> list[str]:
    return [state.item for state in await records.all_states() if state.alive]


@pytest.mark.stack
async def test_a_takedown_answers_with_its_tombstone(typed: Typed) -> None:
    item = (await items(typed.world.records))[0]
    told = json.loads(await typed("withdraw", item[:20], "--reason", "asked for", "--json"))
    assert (told["item"], told["generation"], told["reason"]) == (item, 0, "asked for")
    assert item not in await items(typed.world.records)
    # What could not be done prints no JSON: the exit status and the last line of the error output say it.
    assert await typed("withdraw", item, "--json", status=1) == ""


@pytest.mark.stack
async def test_leaving_a_collection_names_who_left_and_who_was_not_in_it(typed: Typed) -> None:
    first, second, *_ = await items(typed.world.records)
    left = json.loads(await typed("collection", "remove", "spring", first, "--json"))
    assert left == {"collection": "spring", "left": [first], "absent": []}
    both = json.loads(await typed("collection", "remove", "spring", first, second, "--json", status=1))
    assert both == {"collection": "spring", "left": [second], "absent": [first]}


@pytest.mark.stack
async def test_dead_letters_are_retried_and_dropped_one_by_one(typed: Typed) -> None:
    world = typed.world
    item = (await items(world.records))[0]
    await world.records.set_aside(
        DeadLetter(
            item=item,
            revision=1,
            stage="caption",
            reason="it was blank",
            reference="here",
            event=describe(Arrived(trace=new_trace(), item=item, generation=0, revision=1)),
            made=now(),
        )
    )
    await unreadable(
        world.records, world.publish, "caption", world.delivery(b"?", "promenade.arrived"), Lasting("not JSON", "")
    )
    listed = [each["key"] for each in json.loads(await typed("dead-letters", "list", "--json"))]
    assert len(listed) == 2
    shown = json.loads(await typed("dead-letters", "show", listed[0], "--json"))
    assert shown["stage"] == "caption"

    told = json.loads(await typed("dead-letters", "retry", "--all", "--json", status=1))
    assert {each["key"]: each["done"] for each in told} == {key: key.startswith("items/") for key in listed}
    assert [bool(each["reason"]) for each in told] == [not each["done"] for each in told]
    left = [each["key"] for each in json.loads(await typed("dead-letters", "list", "--json"))]
    assert left == [key for key in listed if not key.startswith("items/")]
    assert json.loads(await typed("dead-letters", "drop", *left, "--json")) == [
        {"key": left[0], "done": True, "reason": ""}
    ]
    assert json.loads(await typed("dead-letters", "drop", "--all", "--json")) == []
    assert await typed("dead-letters", "drop", "--all", told=True) == "0 dropped\n"
    assert await typed("dead-letters", "retry", "--all", told=True) == "0 announced again\n"


@pytest.mark.stack
async def test_a_deleted_exhibition_and_pins_are_told(typed: Typed) -> None:
    names = await items(typed.world.records)
    picture = next(name for name in names if name.startswith("artwork"))
    track = next(name for name in names if name.startswith("track"))
    await typed("exhibition", "create", "best", "--no-wait", "--json")
    pinned = json.loads(await typed("exhibition", "pin", "best", picture, track, "--no-wait", "--json"))
    assert pinned["pins"] == [[picture, track]]
    unpinned = json.loads(await typed("exhibition", "unpin", "best", picture, track, "--no-wait", "--json"))
    assert unpinned["pins"] == []
    assert json.loads(await typed("exhibition", "delete", "best", "--json")) == {
        "exhibition": "best",
        "deleted": True,
    }
