"""Data sets: the split, the papers' layouts, tables and shards, and bad data named, counted, refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor

from networks.audioldm2 import AudioLDM2
from networks.checkpoints import CheckpointError
from tests.models import tiny_training as made
from tests.models.tiny import audioldm2_parts
from tests.models.tiny_senses import tiny_clip
from tests.models.tiny_training import one_thread  # noqa: F401
from training.aligner import Pairs
from training.emotions import cleaned, clips, to_unit
from training.layouts import read_artsound, read_imemnet
from training.pictures import clip_pixels, read_picture
from training.prepare import LATENTS, clip_encoder, encoded, make_latents, make_vectors
from training.sound import log_mel, read_sound, windows
from training.splits import TEST, TRAIN, VALIDATION, stratified_split
from training.tables import BadData, Dataset, ShardReader, Shards, Skipped, write_dataset


def test_the_papers_split_on_worked_numbers() -> None:
    # 10,000 items: 900 test, 100 validate, 9,000 train, in every style the same shares.
    styles = ["Impressionism"] * 6_000 + ["Cubism"] * 3_000 + ["Symbolism"] * 1_000
    names = [f"picture-{number}" for number in range(10_000)]
    parts = stratified_split(styles, names)
    assert Counter(parts) == {TRAIN: 9_000, TEST: 900, VALIDATION: 100}
    table = Counter(zip(styles, parts, strict=True))
    assert [table["Cubism", part] for part in (TRAIN, TEST, VALIDATION)] == [2_700, 270, 30]
    assert [table["Symbolism", part] for part in (TRAIN, TEST, VALIDATION)] == [900, 90, 10]


@settings(deadline=None, max_examples=50)
@given(
    styles=st.lists(st.sampled_from(["a", "b", "c", None, ""]), min_size=20, max_size=120),
    seed=st.integers(0, 5),
    groups=st.integers(10, 60),
)
def test_a_split_keeps_groups_together_whatever_the_order(
    styles: list[str | None], seed: int, groups: int
) -> None:  # fmt: skip
    names = [str(number % groups) for number in range(len(styles))]
    parts = stratified_split(styles, names, seed=seed)
    part_of = dict(zip(names, parts, strict=True))
    assert [part_of[name] for name in names] == parts
    count = len(part_of)
    assert sum(part != TRAIN for part in part_of.values()) == round(count * 0.1)
    # Another order of the same groups, each with its own style: the same parts.
    first = dict(reversed(list(zip(names, styles, strict=True))))
    again = stratified_split([first[name] for name in reversed(first)], list(reversed(first)), seed=seed)
    assert dict(zip(reversed(first), again, strict=True)) == part_of


def test_too_few_items_are_not_split() -> None:
    with pytest.raises(ValueError, match="would be empty"):
        stratified_split(["a"] * 3, ["1", "2", "3"])


def test_scales_and_clips_of_worked_numbers() -> None:
    assert (to_unit(0.0, "deam"), to_unit(5.0, "iaps"), to_unit(10.0, "emotic")) == (0.5, 0.5, 1.0)
    with pytest.raises(ValueError, match="off the scale"):
        to_unit(1.5, "deam")
    # Six values of half a second: one whole clip of 2 s (15 to 17), and half of the next.
    values = [(14.0, 1.0), (15.0, 0.0), (15.5, 0.2), (16.0, 0.2), (16.5, 0.4), (17.0, 1.0), (17.5, 1.0)]
    (clip,) = clips(values, values)
    assert (clip.start, clip.seconds) == (15.0, 2.0)
    assert clip.valence == pytest.approx(0.6)
    # Thirty seconds: 15 clips, the first joined with the four that follow it, the last alone.
    long = [(15 + number / 2, number / 60) for number in range(60)]
    found = clips(long, long)
    assert [each.seconds for each in found] == [10.0] * 11 + [8.0, 6.0, 4.0, 2.0]
    assert found[0].valence == pytest.approx((sum(number / 60 for number in range(20)) / 20 + 1) / 2)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("The low quality recording features a male vocal.", "The recording features a male vocal."),
        ("The recording is noisy and in mono. A piano plays.", "A piano plays."),
        ("A piano plays slow chords, and the audio quality is poor.", "A piano plays slow chords."),
        ("The song is of poor audio quality, and features drums.", "The song features drums."),
        ("This is a low quality recording.", ""),
        ("It sounds calming, like something in a spa.", "It sounds calming, like something in a spa."),
    ],
)
def test_captions_lose_what_they_say_of_the_recording(said: str, kept: str) -> None:
    assert cleaned(said) == kept


def _sound(path: Path, seconds: float = 0.3, frequency: float = 440.0, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time), rate)
    return path


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 10, 30)).save(path)
    return path


def _artsound(folder: Path, count: int = 20) -> Path:
    """The layout of the release: a table by columns, sounds named with folders that are not there."""
    for number in range(count):
        _picture(folder / "images" / "imagesf2" / f"painter_work-{number}.jpg")
        _sound(folder / "audio" / "fma_large" / "001" / f"{number:06d}.wav", 0.1)
    columns = {
        "Image": {str(number): f"painter_work-{number}.jpg" for number in range(count)},
        "Audio": {str(number): f"fma-full/fma_large/001/{number:06d}.wav" for number in range(count)},
        "Style": {str(number): "Cubism" if number % 2 else "Realism" for number in range(count)},
        "Similarity": {str(number): 0.1 + number / 100 for number in range(count)},
    }
    (folder / "extra").mkdir(parents=True, exist_ok=True)
    (folder / "extra" / "pairs.json").write_text(json.dumps(columns))
    return folder


def test_artsounds_layout_is_read(tmp_path: Path) -> None:
    source = _artsound(tmp_path / "artsound")
    (source / "images" / "imagesf2" / "painter_work-3.jpg").unlink()
    np.savez(
        tmp_path / "vectors.npz",
        ids=np.array([f"painter_work-{number}" for number in range(19)]),
        vectors=np.ones((19, 6), np.float32),
    )
    told = read_artsound(source, tmp_path / "data", vectors=tmp_path / "vectors.npz", space="imagebind-1")
    # The picture that is gone still has its vector; the last picture has none.
    assert told.skipped == {"no vector": {"count": 1, "names": ["painter_work-19.jpg"]}}
    dataset = Dataset(tmp_path / "data", "pairs")
    assert len(dataset) == 19
    assert dataset.description.space == "imagebind-1"
    assert Path(dataset.column("sound")[4]).samefile(source / "audio" / "fma_large" / "001" / "000004.wav")
    assert dataset.column("style")[:2] == ["Realism", "Cubism"]
    assert dataset.column("similarity")[4] == pytest.approx(0.14)
    assert set(dataset.column("part")) == {TRAIN, TEST, VALIDATION}
    # Without vectors the missing picture counts.
    without = read_artsound(source, tmp_path / "other")
    assert without.skipped["no such picture"]["names"] == ["painter_work-3.jpg"]
    # The paper writes sounds as 001/001556; CSV is read as well.
    table = source / "images" / "pairs.csv"
    lines = ["artwork,audio,audio_caption", *(f"painter_work-{n}.jpg,001/{n:06d},slow" for n in range(4, 20))]
    table.write_text("\n".join(lines))
    (source / "images" / "link").symlink_to(source / "audio")
    with pytest.raises(BadData, match="several tables"):
        read_artsound(source, tmp_path / "third")


def test_imemnets_parts_are_read(tmp_path: Path) -> None:
    source = tmp_path / "imemnet"
    rows = ["file,valence,arousal,scale"]
    for number in range(40):
        _picture(source / "pictures" / f"p{number}.png")
        rows.append(f"p{number}.png,{1 + number / 5},{9 - number / 5},iaps")
    rows += ["gone.png,1,1,iaps", "p1.png,12,1,iaps"]
    (source / "images.csv").write_text("\n".join(rows))
    annotations = source / "annotations" / "dynamic (per second annotations)"
    annotations.mkdir(parents=True)
    seconds = [15_000 + 500 * number for number in range(8)]
    head = ",".join(["song_id", *(f"sample_{each}ms" for each in seconds)])
    for name, sign in (("valence", 1), ("arousal", -1)):
        lines = [head, *(f"{song}," + ",".join(["%.2f" % (sign * song / 20)] * 8) for song in range(2, 14))]
        (annotations / f"{name}.csv").write_text("\n".join(lines))
    for song in range(2, 13):
        _sound(source / "MEMD_audio" / f"{song}.wav", 0.05)
    captions = ["song_id,start,caption"]
    captions += [
        f'{song},{start},"The low quality recording features a harp."' for song in range(2, 13) for start in (15, 17)
    ]
    (source / "captions.csv").write_text("\n".join(captions[:-1]))
    told = read_imemnet(source, tmp_path / "data")
    assert {reason: each["count"] for reason, each in told.skipped.items()} == {
        "no such picture": 1,
        "off its scale": 1,
        "no such sound": 1,
        "a clip without a caption": 1,
    }
    dataset = Dataset(tmp_path / "data", "emotions")
    rows_of = dict(
        zip(
            dataset.column("id"),
            zip(*map(dataset.column, ("valence", "arousal", "seconds")), strict=True),
            strict=True,
        )
    )
    assert rows_of["sound-10-15"] == pytest.approx((0.75, 0.25, 4.0))
    assert rows_of["sound-10-17"] == pytest.approx((0.75, 0.25, 2.0))
    assert rows_of["picture-000000"][:2] == pytest.approx((0.0, 1.0))
    assert set(dataset.column("text")) == {None, "The recording features a harp."}
    # A song's clips and captions fall into one part.
    by_song: dict[str, set[str]] = {}
    for modality, group, part in zip(*map(dataset.column, ("modality", "group", "part")), strict=True):
        if modality != "picture":
            by_song.setdefault(group, set()).add(part)
    assert all(len(parts) == 1 for parts in by_song.values())


def _small_model() -> AudioLDM2:
    return AudioLDM2(**audioldm2_parts())


def _pairs_of_sounds(folder: Path, count: int = 6) -> Dataset:
    rows = [
        {
            "id": f"pair-{number}",
            "sound": str(_sound(folder / "heard" / f"{number}.wav", 0.2, 200.0 * (number + 1)).resolve()),
            "vector": [float(number), 1.0],
            "picture": str(_picture(folder / "seen" / f"{number}.png").resolve()),
            "part": TRAIN,
        }
        for number in range(count)
    ]
    write_dataset(folder / "data", "pairs", rows, source="made", space="made-1")
    return Dataset(folder / "data", "pairs")


def test_log_mels_are_audioldms() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(163_840) / 16_000)[None] * 0.1 + 0.4
    mel = log_mel(tone)
    assert mel.shape == (1, 1, 1024, 64)
    # Mean removed, peak 0.5: louder or softer, with or without an offset, is the same.
    assert torch.allclose(mel.exp(), log_mel(tone * 3).exp(), atol=1e-3)
    # 1 kHz is mel 15 of 45.2 (8 kHz) on Slaney's scale, and so about band 20 of 64.
    assert abs(int(mel[0, 0, 500].argmax()) - 20) <= 1
    assert log_mel(torch.zeros(1, 16_000)).max() == pytest.approx(np.log(1e-5))


def test_windows_go_from_the_beginning_to_the_end() -> None:
    samples = np.arange(100, dtype=np.float32)
    assert windows(samples, 20, 3)[:, 0].tolist() == [0, 40, 80]
    assert windows(samples, 20, 1)[:, 0].tolist() == [40]
    short = windows(samples[:5], 8, 2)
    assert short.tolist() == [[0, 1, 2, 3, 4, 0, 0, 0]] * 2


def test_latents_are_computed_once_and_bad_sounds_are_named(tmp_path: Path) -> None:
    dataset = _pairs_of_sounds(tmp_path)
    Path(dataset.column("sound")[2]).write_bytes(b"not a sound")
    Path(dataset.column("sound")[4]).unlink()
    model = _small_model()
    with pytest.raises(BadData, match=r"2 of 6 rows .* are bad, more than the 5%"):
        make_latents(dataset, model, count=2, seconds=0.064)
    skipped = make_latents(dataset, model, count=2, seconds=0.064, most_bad=0.5, rows_a_shard=4, batch=3)
    assert skipped.counts == {"cannot be decoded (LibsndfileError)": 1, "no such file": 1}
    shards = Shards.opened(dataset, LATENTS)
    assert (shards.count, shards.shape) == (2, (2, 2, 4, 128, 4))
    assert shards.bad_rows().tolist() == [False, False, True, False, True, False]
    # What is stored is what encoding says, as exact as half precision is.
    heard = windows(read_sound(Path(dataset.column("sound")[5])), 1024, 2)
    fresh = encoded(model, heard).numpy()
    stored = ShardReader(shards).rows([5])[0]
    assert np.allclose(stored, fresh, rtol=1e-3, atol=1e-3)
    # Again: nothing is computed, so nothing is read.
    before = {path: path.stat().st_mtime_ns for path in dataset.folder.glob("latents-*.npy")}
    Path(dataset.column("sound")[0]).unlink()
    assert len(make_latents(dataset, model, count=2, seconds=0.064, most_bad=0.5, rows_a_shard=4)) == 0
    assert {path: path.stat().st_mtime_ns for path in dataset.folder.glob("latents-*.npy")} == before
    # A shard that is missing is made alone.
    shards.path(1).unlink()
    make_latents(dataset, model, count=2, seconds=0.064, most_bad=0.5, rows_a_shard=4)
    assert shards.path(0).stat().st_mtime_ns == before[shards.path(0)]


def test_vectors_are_computed_where_there_are_none(tmp_path: Path) -> None:
    dataset = _pairs_of_sounds(tmp_path)

    def encode(paths: list[Path]) -> np.ndarray:
        if any(path.name == "3.png" for path in paths):
            raise BadData("cannot be decoded")
        return np.array([[1.0, 2.0, float(path.stem)] for path in paths])

    skipped = make_vectors(dataset, encode, source="made", size=3, most_bad=0.5)
    assert skipped.names == {"cannot be decoded": ["pair-3"]}
    stored = np.concatenate(Shards.opened(dataset, "vectors").mapped())
    assert [row[2] for row in stored.tolist() if np.isfinite(row).all()] == [0, 1, 2, 4, 5]
    assert stored[0].tolist() == [1.0, 2.0, 0.0]
    # Other weights, other vectors.
    again = make_vectors(
        dataset, lambda paths: np.zeros((len(paths), 3)), source="made", size=3, weights="others", most_bad=0.5
    )
    assert len(again) == 0
    assert not np.concatenate(Shards.opened(dataset, "vectors").mapped()).any()


def test_bad_rows_are_left_out_by_name_and_too_many_refused(tmp_path: Path) -> None:
    dataset = made.made_pairs(tmp_path, 60)
    values = np.load(tmp_path / "latents-00000.npy")
    values[7, 0, 0, 0, 0, 0] = np.nan
    values[9] = np.inf
    np.save(tmp_path / "latents-00000.npy", values)
    pairs = Pairs(dataset)
    assert pairs.skipped.names == {
        "latents that are missing or not finite": ["artwork-0007+track", "artwork-0009+track"]
    }
    kept = np.concatenate([pairs.rows_of(part) for part in (TRAIN, TEST, VALIDATION)])
    assert sorted(kept) == [row for row in range(60) if row not in (7, 9)]
    with pytest.raises(BadData, match=r"2 of 60 rows .* --most-bad"):
        Pairs(dataset, most_bad=0.01)


def test_one_place_opens_pictures_and_says_what_is_wrong(tmp_path: Path) -> None:
    grey = _picture(tmp_path / "grey.png")
    Image.new("LA", (30, 20), (7, 100)).save(grey)
    assert (read_picture(grey).mode, read_picture(grey).size) == ("RGB", (30, 20))
    with pytest.raises(BadData, match="no such file"):
        read_picture(tmp_path / "gone.png")
    cut = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(BadData, match="cannot be decoded"):
        read_picture(cut)


def test_an_encoder_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    tiny_clip(1).save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    encode, size, digest = clip_encoder(tmp_path)
    assert (size, len(digest)) == (512, 16)
    (vector,) = encode([_picture(tmp_path / "seen.png")])
    whole = tiny_clip(1)
    with torch.inference_mode():
        pixels = clip_pixels(tmp_path)([tmp_path / "seen.png"])
        right = whole.visual_projection(whole.vision_model(pixel_values=pixels).pooler_output)
    assert np.allclose(vector, right[0].numpy(), atol=1e-5)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("visual_projection.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .*visual_projection"):
        clip_encoder(tmp_path)


def test_vectors_of_another_size_are_named(tmp_path: Path) -> None:
    dataset = _pairs_of_sounds(tmp_path)
    rows = dataset.table.to_pylist()
    rows[1]["vector"], rows[2]["vector"], rows[3]["vector"] = [1.0], None, [float("nan"), 0.0]
    write_dataset(tmp_path / "data", "pairs", rows, source="made", space="made-1")
    _, skipped = Dataset(tmp_path / "data", "pairs").vectors()
    assert skipped.names == {
        "a vector of another size than 2": ["pair-1"],
        "no vector": ["pair-2"],
        "a vector with numbers that are not finite": ["pair-3"],
    }


def test_a_data_set_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="is no data set"):
        Dataset(tmp_path, "pairs")
    dataset = _pairs_of_sounds(tmp_path)
    with pytest.raises(BadData, match="one of emotions is needed"):
        Dataset(dataset.folder, "emotions")
    with pytest.raises(BadData, match="has no latents yet"):
        Pairs(dataset)
    rows = dataset.table.to_pylist()
    with pytest.raises(BadData, match="there twice"):
        write_dataset(tmp_path / "data", "pairs", [*rows, rows[0]], source="made")
    skipped = Skipped()
    skipped.add("no such file", "a.mp3")
    with pytest.raises(BadData, match=r"1 skipped: no such file \(a.mp3\)"):
        write_dataset(tmp_path / "none", "pairs", [], source="made", skipped=skipped)
    # Other rows: shards of the old ones go.
    make_latents(dataset, _small_model(), count=1, seconds=0.064)
    write_dataset(tmp_path / "data", "pairs", rows[:4], source="made", space="made-1")
    assert not list(dataset.folder.glob("latents*"))
