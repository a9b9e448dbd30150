"""`python -m training`: what needs torch, in the environment that has it. `promenade train` and `promenade export`
call it, and read their options here, so this module imports torch only when work begins.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from training import processes
from training.settings import AlignerSettings, RunError, VaSettings, add_options, settings_from

CLIP: Final = "openai/clip-vit-base-patch32"
MERT: Final = "m-a-p/MERT-v1-95M"
ROBERTA: Final = "FacebookAI/roberta-base"
AUDIOLDM2: Final = "cvssp/audioldm2"


def parser() -> argparse.ArgumentParser:
    """The options of every command."""
    top = argparse.ArgumentParser(prog="promenade train", description="Train the papers' models on your collection.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    prepare = commands.add_parser(
        "prepare",
        help="compute what training reads many times: latents and vectors, or features; goes on where it was",
    )
    prepare.add_argument("data", type=Path, help="the data set")
    prepare.add_argument("--windows", type=int, default=3, help="stretches of 10.24 s of each track (default: 3)")
    prepare.add_argument("--seconds", type=float, default=10.24, help="length of a stretch (default: 10.24)")
    prepare.add_argument("--batch", type=int, default=16, help="items computed at once (default: 16)")
    prepare.add_argument(
        "--most-bad", type=float, default=0.05, help="share of items that may be bad (default: 0.05)"
    )
    prepare.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    _weights(prepare, audioldm2=AUDIOLDM2, clip=CLIP, mert=MERT, roberta=ROBERTA)

    aligner = commands.add_parser("aligner", help="train Art2Mus's image aligner on a data set of pairs")
    _run(aligner)
    aligner.add_argument(
        "--processes", type=int, default=1, help="processes that share each step, one a GPU (default: 1)"
    )
    _weights(aligner, audioldm2=AUDIOLDM2)
    add_options(aligner, AlignerSettings)

    va = commands.add_parser("va", help="train MMVA's towers on a data set of emotions")
    _run(va)
    add_options(va, VaSettings)

    export = commands.add_parser(
        "export", prog="promenade export", help="export a run's model and install it where the served models look"
    )
    export.add_argument("run", type=Path, help="the run's folder")
    export.add_argument("--weights", type=Path, default=weights_root(), help="the weights folder to install into")
    export.add_argument("--repository", type=Path, help="model_repository/full: make the served towers there as well")
    export.add_argument("--server", help="HTTP address of a model server that shall load them now")
    for command in (prepare, aligner, va, export):
        command.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return top


def weights_root() -> Path:
    """PROMENADE_WEIGHTS, or the folder `weights` here."""
    return Path(os.environ.get("PROMENADE_WEIGHTS") or "weights")


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", type=Path, help="the data set")
    command.add_argument("--run", type=Path, required=True, help="the run's folder")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def _weights(command: argparse.ArgumentParser, **names: str) -> None:
    command.add_argument("--weights", type=Path, default=weights_root(), help="the folder of all weights")
    for option, name in names.items():
        command.add_argument(
            f"--{option}", default=name, help=f"a folder, or a name in the weights (default: {name})"
        )


def found_weights(value: str, root: Path) -> Path:
    """The folder that holds weights: as named, or below the weights folder where the fetch put them.

    Raises RunError, saying what to do, where there are none or several.
    """
    if Path(value).is_dir():
        return Path(value)
    name, _, revision = value.partition("@")
    held = root / name.replace("/", "--")
    found = sorted(path.parent for path in held.glob(f"{revision or '*'}/fetched.json"))
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(f"{held} holds several revisions: name one, as {name}@{found[0].name}")
    raise RunError(
        f"there are no weights {value} in {root}: `promenade models fetch --profile full` gets them, or name a folder"
    )


def device_of(asked: str) -> str:
    """`auto` is a GPU where there is one."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _prepare(options: Any) -> dict[str, Any]:
    from training import prepare, va
    from training.runs import Progress
    from training.tables import Dataset, read_description

    description = read_description(options.data)
    root, device = options.weights, device_of(options.device)
    common = {"most_bad": options.most_bad}
    said: list[str] = []
    if description.kind == "emotions":
        clip, mert, roberta = (found_weights(getattr(options, name), root) for name in ("clip", "mert", "roberta"))
        encoders = va.published_encoders(clip, mert, roberta, device)
        skipped = va.make_features(
            Dataset(options.data, "emotions"), encoders, batch=options.batch, told=Progress("items", 1), **common
        )
    else:
        from networks.audioldm2 import AudioLDM2

        dataset = Dataset(options.data, "pairs")
        model = AudioLDM2.from_folder(found_weights(options.audioldm2, root), device=device, text=False)
        skipped = prepare.make_latents(
            dataset,
            model,
            count=options.windows,
            seconds=options.seconds,
            batch=options.batch,
            told=Progress("tracks", 1),
            **common,
        )
        if not description.space:
            encode, size, digest = prepare.clip_encoder(found_weights(options.clip, root), device)
            without = prepare.make_vectors(
                dataset,
                encode,
                source="clip-vit-b32",
                size=size,
                weights=digest,
                batch=options.batch,
                told=Progress("pictures", 1),
                **common,
            )
            said = without.lines()
    said = [*said, *skipped.lines()]
    say(*said, f"{options.data} is ready to train on")
    return {"data": str(options.data), "kind": description.kind, "skipped": said}


def _aligner(options: Any) -> dict[str, Any]:
    from networks.audioldm2 import AudioLDM2
    from training import aligner
    from training.card import write_card
    from training.tables import Dataset

    settings = settings_from(AlignerSettings, vars(options))
    accelerator = aligner.accelerator_for(settings.precision, cpu=options.device == "cpu")
    pairs = aligner.Pairs(Dataset(options.data, "pairs"), settings.most_bad)
    precision = {"no": "fp32"}.get(settings.precision, settings.precision)
    model = AudioLDM2.from_folder(
        found_weights(options.audioldm2, options.weights), precision=precision, device=str(accelerator.device)
    )
    with aligner.begun(options.run, settings, pairs, model, options.resume, accelerator.is_main_process) as run:
        training = aligner.AlignerTraining(settings, pairs, model, run, accelerator, say=say)
        path = training.train()
        outcome: dict[str, Any] = {"run": str(options.run)}
        if path is not None:
            test = training.measure()
            lines = [f"- {name.replace('_', ' ')}: {value:.5f}" for name, value in test.items()]
            card = write_card(run, lines)
            say(f"trained: {path}", f"card: {card}")
            outcome |= {"trained": str(path), "card": str(card), "test": dict(test)}
    return outcome


def _va(options: Any) -> dict[str, Any]:
    from training import va
    from training.card import write_card
    from training.splits import TEST
    from training.tables import Dataset

    settings = settings_from(VaSettings, vars(options))
    emotions = va.Emotions.opened(Dataset(options.data, "emotions"), settings.most_bad)
    with va.begun(options.run, settings, emotions, options.resume) as run:
        training = va.VaTraining(settings, emotions, run, device_of(options.device), say=say)
        path = training.train()
        table = va.table_of(training.measure(TEST))
        card = write_card(run, table)
        say(f"trained: {path}", f"card: {card}")
    return {"run": str(options.run), "trained": str(path), "card": str(card), "table": list(table)}


def _export(options: Any) -> dict[str, Any]:
    from training import export

    made = export.export_run(options.run, options.weights)
    say(f"checked: onnxruntime differs from torch by {made.difference:.1e}", f"installed: {made.installed}")
    if made.set_aside:
        say(f"set aside: revision {', '.join(made.set_aside)}")
    if options.repository is not None and made.kind == "mmva":
        export.served_towers(options.repository, options.weights, dict(os.environ))
        say(f"made: {', '.join(export.SERVED['mmva'])} in {options.repository}")
    loaded = export.reload(options.server, made.kind) if options.server else []
    if loaded:
        say(f"loaded by the server: {', '.join(loaded)}")
        if made.kind == "mmva":
            say("start the workers again before anything is scored: results name the reading they were started with")
    return {
        "kind": made.kind,
        "installed": str(made.installed),
        "set_aside": list(made.set_aside),
        "difference": made.difference,
        "loaded": list(loaded),
    }


def say(*lines: str) -> None:
    """Words for people, apart from results."""
    for line in lines:
        # In one piece: processes that share a terminal would cut into each other's lines.
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 could not be done (the last line says why), 2 wrong usage."""
    options = parser().parse_args(arguments)
    processes.end_with_starter()
    work = {"prepare": _prepare, "aligner": _aligner, "va": _va, "export": _export}[options.command]
    try:
        asked = getattr(options, "processes", 1)
        if asked > 1 and not processes.shared():
            if options.batch % asked:
                raise RunError(f"a batch of {options.batch} cannot be shared by {asked} processes evenly")
            return processes.together(asked, sys.argv[1:] if arguments is None else arguments)
        outcome = work(options)
        # Of several processes that share the steps, the first one speaks.
        if options.json and os.environ.get("RANK", "0") == "0":
            print(json.dumps(outcome, ensure_ascii=False))
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        # What these say is meant for people; a fault of ours has another type, or its trace is asked for.
        if os.environ.get("PROMENADE_TRACE"):
            raise
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command with --resume goes on from the last checkpoint")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
