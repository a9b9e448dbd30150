"""What people read in a terminal: tables and bars. Programs take `--json` instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gallery.views import ExhibitionView, ItemView, PairsView, SideView, StatusView
from promenade.supervisor import StackState
from schemas.profile import Profile
from schemas.records import CaptionGate
from streams.ingest import Outcome, Report

_PART_COLOURS = {"ready": "green", "stopped": "dim", "restarting": "red", "not answering": "red"}


def swatch(rgb: Iterable[int]) -> Text:
    """Two blocks in a colour with its numbers: movement, calm, nostalgia."""
    red, green, blue = rgb
    text = Text("██ ", style=f"rgb({red},{green},{blue})")
    text.append(f"{red:3d} {green:3d} {blue:3d}", style="default")
    return text


def _named(side: SideView) -> Text:
    text = Text(side.title, style="bold")
    if side.year:
        text.append(f" ({side.year})", style="default")
    return text


def _affect(side: SideView) -> str:
    return f"{side.valence:.2f} {side.arousal:.2f}"


WIDE: Final = 150
"""Columns that one line for each pair needs; in a narrower terminal a pair takes two lines."""


def pairs_table(view: PairsView, width: int) -> Table:
    """Pairs, best first: who hangs with whom, what each feels like, how similar, beside chance.

    RGB reads movement, calm, nostalgia; VA reads valence, arousal.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    chance = "" if view.chance_similarity is None else f"{view.chance_similarity:.4f}"
    wide = width >= WIDE
    sides: tuple[tuple[str, dict[str, Any]], ...] = (
        ("picture", {"ratio": 5, "overflow": "fold"}),
        ("artist", {"ratio": 3, "overflow": "fold"}),
        ("feels", {"ratio": 4, "overflow": "fold"}),
        ("RGB", {"no_wrap": True}),
        ("VA", {"no_wrap": True}),
        ("track", {"ratio": 5, "overflow": "fold"}),
        ("feels", {"ratio": 4, "overflow": "fold"}),
        ("RGB", {"no_wrap": True}),
        ("VA", {"no_wrap": True}),
    )
    if not wide:
        sides = (
            ("picture and track", {"ratio": 5, "overflow": "fold"}),
            ("feels", {"ratio": 3, "overflow": "fold"}),
            ("RGB", {"no_wrap": True}),
            ("VA", {"no_wrap": True}),
        )
    for heading, options in (
        *sides,
        ("similar", {"justify": "right", "no_wrap": True}),
        ("chance", {"justify": "right", "no_wrap": True}),
        ("beats", {"justify": "right", "no_wrap": True}),
    ):
        table.add_column(heading, **options)
    for pair in view.pairs:
        artwork, track = pair.artwork, pair.track
        figures = (f"{pair.similarity:.4f}", chance, f"{pair.percentile:.0f} %")
        if wide:
            table.add_row(
                _named(artwork), artwork.artist, artwork.feeling, swatch(artwork.rgb), _affect(artwork),
                _named(track), track.feeling, swatch(track.rgb), _affect(track), *figures,
            )  # fmt: skip
            continue
        first = _named(artwork).append(f", {artwork.artist}" if artwork.artist else "", style="default")
        table.add_row(first, artwork.feeling, swatch(artwork.rgb), _affect(artwork), *figures)
        table.add_row(_named(track), track.feeling, swatch(track.rgb), _affect(track), end_section=True)
    return table


def pairs_summary(view: PairsView) -> str:
    """One paragraph under the table."""
    made = f"space {_space(view)}, rule {view.rule}" + ("" if view.floor is None else f", floor {view.floor:g}")
    notes = ""
    if view.pairing_anew:
        notes += " Its settings ask for another pairing, which is being made and comes in one step."
    if view.waiting and view.shown == "hung":
        notes += f" {view.waiting} pairs of the target gain too little to move the wall (`--target` shows them)."
    if not view.pairs:
        return f"No pairs in exhibition {view.exhibition!r} yet ({made}).{notes}"
    what = "pairs on the wall of" if view.shown == "hung" else "pairs of the target of"
    lift = "" if view.lift is None else f", lift {view.lift:.3f}"
    return (
        f"{len(view.pairs)} {what} exhibition {view.exhibition!r} ({made}); "
        f"{view.unpaired_artworks} pictures and {view.unpaired_tracks} tracks have no partner yet.{notes} "
        f"Mean similarity {view.mean_similarity:.4f}; random pairs of the same items reach "
        f"{view.chance_similarity:.4f} ± {view.chance_spread:.4f}{lift}. "
        "RGB: movement, calm, nostalgia. VA: valence, arousal. "
        "“beats”: the share of all possible pairs that are less similar."
    )


def _space(view: PairsView | ExhibitionView) -> str:
    if view.mix:
        return "mix of " + " and ".join(f"{weight:g} {name}" for name, weight in view.mix.items())
    return view.space + ("" if view.sigma is None else f" (sigma {view.sigma:.4f})")


def exhibitions_table(views: Iterable[ExhibitionView]) -> Table:
    """Each exhibition and how its pairing stands."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("exhibition", "collections", "space", "rule"):
        table.add_column(heading, overflow="fold")
    for heading in ("pictures", "tracks", "pairs", "hung"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    for view in views:
        notes = ["pairing anew"] if view.pairing_anew else []
        notes += [f"{view.waiting} pairs wait"] if view.waiting else []
        table.add_row(
            view.name,
            "all" if view.collections is None else ", ".join(view.collections),
            _space(view),
            view.rule,
            *(str(number) for number in (view.artworks, view.tracks, view.pairs, view.hung)),
            ", ".join(notes),
        )
    return table


def show_exhibition(console: Console, view: ExhibitionView) -> None:
    """One exhibition, whole."""
    console.print(exhibitions_table([view]))
    floor = "no floor" if view.floor is None else f"pairs below {view.floor:g} are not made"
    calm = "the wall follows at once" if not view.threshold else f"an exchange hangs when it gains {view.threshold:g}"
    hour = "" if view.hour is None else f"; everything hangs from {view.hour}:00 to {view.hour}:59 UTC"
    composer = (
        "" if view.composer is None else f", by {'every composer' if view.composer == 'all' else view.composer}"
    )
    console.print(f"revision {view.revision}; {floor}; {calm}{hour}; music: {view.music}{composer}")
    for artwork, track in view.pins:
        console.print(f"pinned: {artwork} with {track}", markup=False)


def stack_table(state: StackState) -> Table:
    """Each part of the embedded stack."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("part", "state", "ready after", "restarts", "memory", "last exit"):
        table.add_column(heading)
    for name, part in state.parts.items():
        phase = part.phase if state.alive else "stopped"
        table.add_row(
            name,
            Text(phase, style=_PART_COLOURS.get(phase, "yellow")),
            "" if part.ready_seconds is None else f"{part.ready_seconds:.1f} s",
            str(part.restarts),
            "" if not part.memory_bytes or not state.alive else f"{part.memory_bytes / 2**20:.0f} MB",
            part.last_exit or "",
        )
    return table


def status_table(view: StatusView, waiting: Mapping[str, Any] | None) -> Table:
    """Each stage: done, waiting, failed, per second, and what it waits for."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    for heading in ("done", "waiting", "failed", "per second"):
        table.add_column(heading, justify="right")
    table.add_column("waits for", overflow="fold")
    for stage in view.stages:
        reasons = (waiting or {}).get(stage.stage, {}).get("waiting_for", [])
        why = "; ".join(sorted({f"{each['part']}: {each['reason']}" for each in reasons}))
        table.add_row(
            stage.stage,
            str(stage.done),
            str(stage.waiting),
            Text(str(stage.failed), style="red" if stage.failed else "default"),
            f"{stage.per_second:.2f}" if stage.per_second else "",
            why,
        )
    return table


def gates_line(profile: Profile) -> str:
    """Whether captions go through gates, in words."""
    if not profile.gates_captions:
        return "captions are not gated: this profile serves no score_caption"
    gates = profile.gates
    if not gates.regenerations:
        return f"captions are scored; below {gates.threshold:g} they are kept all the same"
    return (
        f"captions are gated: below {gates.threshold:g} they are asked for again, {gates.regenerations} times at most"
    )


def gate_line(gate: CaptionGate, threshold: float) -> str:
    """What came of one caption at its gate, in words."""
    if not gate.attempts:
        return "caption not gated: nothing to score it against"
    scores = gate.attempts[gate.kept].scores
    parts = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.parts.items())
    outcome = "passed" if gate.passed else f"below {threshold:g}"
    tried = f"attempt {gate.kept + 1} of {len(gate.attempts)}"
    stopped = f"; not asked again: {gate.stopped}" if gate.stopped else ""
    return f"caption scored {scores.score:.3f}{f' ({parts})' if parts else ''}, {outcome}, {tried}{stopped}"


def collections_table(view: StatusView) -> Table:
    """Items of each collection."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("collection")
    table.add_column("pictures", justify="right")
    table.add_column("tracks", justify="right")
    for name, counts in view.collections.items():
        table.add_row(name, str(counts.get("artwork", 0)), str(counts.get("track", 0)))
    return table


def show_item(console: Console, view: ItemView) -> None:
    """One item, whole."""
    title = view.catalogue.get("title", "untitled")
    by = f" by {view.catalogue['artist']}" if "artist" in view.catalogue else ""
    console.print(Text(f"{title}{by}", style="bold"))
    console.print(f"{view.id}\nversion {view.version}, in {', '.join(view.collections) or 'no collection'}")
    console.print(", ".join(f"{key} {value}" for key, value in view.media.items() if key != "notes" and value))
    for note in view.media.get("notes", ()):
        console.print(f"note: {note}")
    console.print("stages: " + ", ".join(f"{name} {state}" for name, state in view.stages.items()))
    for name, partner in view.partners.items():
        console.print(f"hangs in {name} with {partner}")
    for failure in view.failures:
        console.print(Text(f"failed at {failure['stage']}: {failure['reason']} {failure['advice']}", style="red"))
    for part in view.parts:
        if not part.caption:
            continue
        console.print()
        heading = Text(part.part, style="bold")
        if part.rgb is not None:
            heading.append("  ").append(swatch(part.rgb))
            heading.append(f"  valence {part.valence:.2f}  arousal {part.arousal:.2f}  {part.feeling}")
        console.print(heading)
        console.print(part.caption, markup=False)
        if part.gate is not None and view.caption_threshold is not None:
            console.print(Text(gate_line(part.gate, view.caption_threshold), style="dim"))
        if part.evidence:
            carried = ", ".join(f"{each.get('what')} ({each.get('source')})" for each in part.evidence[:5])
            console.print(Text(f"carried by: {carried}", style="dim"))
    console.print()
    for stage, source in view.provenance.items():
        models = ", ".join(f"{name} {version}" for name, version in source["models"].items()) or "no model"
        console.print(Text(f"{stage}: {models}; {source['made']}; {source['seconds']} s", style="dim"))


def report_line(report: Report) -> Text | None:
    """One line for a file worth mentioning; None for a plain success."""
    if report.outcome in (Outcome.REFUSED, Outcome.WITHDRAWN):
        return Text(f"{report.name}: {report.outcome.value}: {report.reason} {report.advice}".rstrip(), style="red")
    if report.notes:
        return Text(f"{report.name}: {'; '.join(report.notes)}", style="yellow")
    return None
