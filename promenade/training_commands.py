"""`promenade train` and `promenade export`: the front door of the room `training`.

Data sets are made in this process, which needs no torch. What trains needs the environment of the full profile's
models and runs there; where it is missing, these commands say so and nothing else breaks.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promenade.reach import reading
from promenade.settings import CLONE

if TYPE_CHECKING:
    from training.tables import Description

PASSED_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    "add_help_option": False,
}

Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]

train_commands = typer.Typer(
    help="Train the papers' models on your own collection: data, prepare, aligner, va.", no_args_is_help=True
)


def interpreter() -> Path:
    """The Python that has torch: this one, or that of the environment `.models`.

    Exits with 1, saying what to do, where there is none.
    """
    if importlib.util.find_spec("torch") is not None:
        return Path(sys.executable)
    python = CLONE / ".models" / "bin" / "python"
    if python.exists():
        return python
    typer.echo(
        "training needs torch and the libraries around it, which the default install leaves out: "
        "`make .models/.made` makes an environment with them, or `pip install 'promenade[training]'` adds them to "
        "this one.",
        err=True,
    )
    raise typer.Exit(1)


def passed_on(command: str, given: list[str], as_json: bool) -> None:
    """Read a command's options here, and run it where torch is; its exit status is ours."""
    from training.__main__ import parser

    arguments = [*given, "--json"] if as_json else given
    parser().parse_args([command, *arguments])
    status = subprocess.run(  # noqa: S603 - our own module in our own environment
        [str(interpreter()), "-m", "training", command, *arguments], check=False
    ).returncode
    raise typer.Exit(status)


@train_commands.command(**PASSED_ON)
def prepare(context: typer.Context, as_json: Json = False) -> None:
    """Compute what training reads many times, once: latents and vectors of pairs, or features of emotions."""
    passed_on("prepare", context.args, as_json)


@train_commands.command(**PASSED_ON)
def aligner(context: typer.Context, as_json: Json = False) -> None:
    """Train Art2Mus's image aligner: DATA --run FOLDER [--resume]; --help tells every setting."""
    passed_on("aligner", context.args, as_json)


@train_commands.command(**PASSED_ON)
def va(context: typer.Context, as_json: Json = False) -> None:
    """Train MMVA's towers of valence and arousal: DATA --run FOLDER [--resume]; --help tells every setting."""
    passed_on("va", context.args, as_json)


def export(context: typer.Context, as_json: Json = False) -> None:
    """Export a run's model, checked against torch, to where the served models look: RUN [--server URL]."""
    passed_on("export", context.args, as_json)


@train_commands.command("data")
def make_data(
    out: Annotated[Path, typer.Argument(help="The data set to make: a folder.")],
    exhibition: Annotated[str | None, typer.Option(help="Pairs of this exhibition, out of the store.")] = None,
    space: Annotated[str, typer.Option(help="Of the pictures' vectors.")] = "imagebind-1",
    emotions: Annotated[
        bool, typer.Option("--emotions", help="Items of the store with the valence and arousal they were given.")
    ] = False,
    artsound: Annotated[Path | None, typer.Option(help="Pairs in ArtSound's layout: a folder or its table.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="With --artsound: the pictures' vectors, .safetensors or .npz.")
    ] = None,
    imemnet: Annotated[Path | None, typer.Option(help="Emotions in IMEMNet-C's layout: a folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    data: Annotated[
        Path, typer.Option("--data", envvar="PROMENADE_DATA", help="The data folder of the stack.")
    ] = Path("promenade-data"),
    as_json: Json = False,
) -> None:
    """Make a data set: out of the store (--exhibition, --emotions), or of the papers' own layouts on a disk."""
    from promenade.cli import carry_out
    from training.layouts import read_artsound, read_imemnet
    from training.tables import BadData

    if sum(bool(each) for each in (exhibition, emotions, artsound, imemnet)) != 1:
        typer.echo("name one of --exhibition, --emotions, --artsound and --imemnet.", err=True)
        raise typer.Exit(2)

    async def out_of_the_store() -> Description:
        from training.collect import collect_emotions, collect_pairs

        async with reading(data, lambda text: typer.echo(text, err=True)) as (_, records):
            if exhibition is None:
                return await collect_emotions(records, out, seed=seed)
            return await collect_pairs(records, out, exhibition=exhibition, space=space, seed=seed)

    try:
        if artsound is not None:
            made = read_artsound(artsound, out, vectors=vectors, space=space, seed=seed)
        elif imemnet is not None:
            made = read_imemnet(imemnet, out, seed=seed)
        else:
            made = carry_out(out_of_the_store())
    except BadData as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"data": str(out), **dataclasses.asdict(made)}, ensure_ascii=False))
        return
    parts = ", ".join(f"{count} {part}" for part, count in sorted(made.parts.items()))
    typer.echo(f"{out}: {made.rows} rows of {made.source} ({parts}), version {made.version}")
    for reason, each in made.skipped.items():
        typer.echo(f"{each['count']} skipped: {reason} ({', '.join(each['names'])})", err=True)


def register(application: typer.Typer) -> None:
    """Put the commands of training among the others."""
    application.add_typer(train_commands, name="train")
    application.command(**PASSED_ON)(export)
