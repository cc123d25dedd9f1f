"""Speech tasks and folders of sounds: parts, classes, kept features, and what is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from gracile.data import DataBundle, WindowData, audio_folder, load_data
from gracile.data.speech import source_recording
from gracile.errors import BadArgument, DataError, MissingExtra

from .conftest import syllables, write

pytest.importorskip("kaldi_native_fbank")


def part(bundle: DataBundle, name: str) -> WindowData:
    found = getattr(bundle, name)
    assert isinstance(found, WindowData)
    return found


def test_lid_windows_and_split(sound_root: Path) -> None:
    data = load_data("speech:lid", sound_root, frames=100, test_share=0.4)
    assert (data.name, data.classes, data.input_shape) == ("speech:lid", 3, (80, 100))
    train, test = part(data, "train"), part(data, "test")
    assert len(set(train.groups.tolist())) == 9
    assert len(set(test.groups.tolist())) == 6
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    assert torch.cat([train.labels, test.labels]).unique().tolist() == [0, 1, 2]
    frames = [1 + (round(8000 * (1.2 + 0.4 * clip)) - 400) // 80 for clip in range(5)]
    assert len(train) + len(test) == 3 * sum(max(n - 100, 0) // 100 + 1 for n in frames)


def test_features_of_the_training_part_are_normalised(sound_root: Path) -> None:
    data = load_data("speech:lid", sound_root, frames=20, hop=1)
    train = part(data, "train")
    clips = torch.unique(train.clips)
    sequences = torch.split(train.features, train.lengths.tolist(), dim=1)
    together = torch.cat([sequences[int(clip)] for clip in clips], dim=1)
    torch.testing.assert_close(torch.tensor(data.mean), together.mean(dim=1))
    torch.testing.assert_close(part(data, "test").mean, train.mean)


def test_hop_gives_more_windows(sound_root: Path) -> None:
    few, many = (load_data("speech:lid", sound_root, frames=50, hop=hop) for hop in (50, 25))
    assert len(many.train) > 1.5 * len(few.train)


def test_sad(sound_root: Path) -> None:
    data = load_data("speech:sad", sound_root, examples=64, test_examples=32, test_share=0.4)
    assert (data.name, data.classes, data.input_shape) == ("speech:sad", 2, (13, 41))
    assert (len(data.train), len(data.test)) == (64, 32)
    assert part(data, "train").labels.unique().tolist() == [0, 1]
    images, _ = next(data.train.batches(64))
    torch.testing.assert_close(images.mean(dim=(0, 2)), torch.zeros(13), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2), correction=0), torch.ones(13), atol=1e-4, rtol=0)
    with pytest.raises(BadArgument, match="windows that may be shifted"):
        next(data.train.batches(8, augment=True))


def test_takes_of_one_recording_stay_together() -> None:
    assert source_recording(Path("2-77945-A.ogg")) == source_recording(Path("2-77945-B.ogg"))
    assert source_recording(Path("2-77945-A.ogg")) != source_recording(Path("3-77945-A.ogg"))
    assert source_recording(Path("rain-01.ogg")) == "rain-01"


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("speech:lid", {"frames": 50}),
        ("speech:sad", {"examples": 16, "test_examples": 8, "test_share": 0.4}),
        ("audio:speech", {"frames": 50}),
    ],
)
def test_features_are_kept_and_a_damaged_file_is_made_again(
    sound_root: Path, spec: str, options: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    folder = sound_root / "kept"
    first = load_data(spec, sound_root, cache=folder, **options)
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    again = load_data(spec, sound_root, cache=folder, **options)
    assert file.stat().st_mtime_ns == written
    assert torch.equal(first.train[0][0], again.train[0][0])
    file.write_bytes(b"cut short")
    with caplog.at_level(logging.WARNING, "gracile.data"):
        repaired = load_data(spec, sound_root, cache=folder, **options)
    assert "is damaged" in caplog.text
    assert torch.equal(first.train[0][0], repaired.train[0][0])
    assert file.stat().st_size > 100


def test_a_changed_clip_is_computed_again(sound_root: Path) -> None:
    kept = sound_root / "kept"
    first = load_data("speech:lid", sound_root, frames=50, cache=kept)
    write(sound_root / "speech" / "aa" / "0000.wav", syllables(700.0, 1.2, seed=9))
    second = load_data("speech:lid", sound_root, frames=50, cache=kept)
    assert len(list(kept.iterdir())) == 2
    assert not torch.equal(part(first, "train").features, part(second, "train").features)


def test_features_that_cannot_be_kept_are_a_warning(
    sound_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (sound_root / "a file").write_text("")
    with caplog.at_level(logging.WARNING, "gracile.data"):
        data = load_data("speech:lid", sound_root, frames=50, cache=sound_root / "a file")
    assert len(data.train) > 3
    assert "the features are not kept" in caplog.text


def test_audio_folder_by_name(sound_root: Path) -> None:
    data = load_data("audio:environment", sound_root, bins=20, frames=40)
    assert (data.name, data.classes, data.input_shape) == ("audio:environment", 2, (20, 40))


def test_missing_folder_and_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"speech: wanted a folder of sound files, .* found no such folder"):
        load_data("speech:lid", tmp_path)
    with pytest.raises(DataError, match="wanted a folder of sound files"):
        load_data("speech:sad", tmp_path)
    monkeypatch.delenv("GRACILE_DATA", raising=False)
    with pytest.raises(DataError, match="speech: wanted a data root that holds speech/, found no data root"):
        load_data("speech:sad")
    with pytest.raises(DataError, match=r"found 'audio:'\. Name a folder: audio:FOLDER"):
        load_data("audio:", tmp_path)


def test_a_damaged_clip_is_named(sound_root: Path) -> None:
    (sound_root / "speech" / "bb" / "0003.wav").write_bytes(b"RIFF and no more")
    for spec in ("speech:lid", "speech:sad"):
        with pytest.raises(DataError, match=r"bb/0003\.wav: wanted a whole sound file"):
            load_data(spec, sound_root)


def test_a_clip_shorter_than_a_frame_is_named(sound_root: Path) -> None:
    write(sound_root / "speech" / "bb" / "0003.wav", syllables(100.0, 0.03))
    with pytest.raises(BadArgument, match=r"bb/0003\.wav: wanted at least 50 ms, found 30 ms"):
        load_data("speech:lid", sound_root)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("speech:lid", {"frames": 0}, "audio: frames: wanted at least 1, found frames=0"),
        ("speech:lid", {"test_share": 1.0}, "test_share: wanted between 0 and 1"),
        ("speech:sad", {"examples": 3}, "speech:sad: examples: wanted at least 8"),
        ("speech:sad", {"snr_db": ()}, "snr_db: wanted one or more decibels"),
        ("speech:sad", {"snr_db": (float("nan"),)}, "snr_db: wanted one or more decibels"),
    ],
)
def test_options_out_of_range(sound_root: Path, spec: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        load_data(spec, sound_root, **options)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    for clip in range(3):
        write(tmp_path / "only" / f"{clip}.wav", syllables(100.0))
    with pytest.raises(DataError, match="at least 2 classes, found classes=1"):
        audio_folder(tmp_path, cache=tmp_path / "kept")


def test_missing_extra_is_told_before_anything_is_read(
    sound_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaldi_native_fbank", None)
    for spec in ("speech:lid", "speech:sad"):
        with pytest.raises(MissingExtra, match=r"pip install 'gracile\[audio\]'"):
            load_data(spec, sound_root)


def test_shared_speech(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "speech").is_dir() or not (data_root / "environment").is_dir():
        pytest.skip(f"needs speech/ and environment/ in {data_root}")
    for language in ("en", "ru"):  # a few real clips, long enough for pauses: the whole set takes a minute
        every = (data_root / "speech" / language).glob("*.ogg")
        for clip in sorted(every, key=lambda path: path.stat().st_size)[-8:]:
            (tmp_path / "speech" / language).mkdir(parents=True, exist_ok=True)
            (tmp_path / "speech" / language / clip.name).symlink_to(clip)
    for sound in ("002_-_Rain", "001_-_Dog_bark"):
        (tmp_path / "environment" / sound).mkdir(parents=True)
        for clip in sorted((data_root / "environment" / sound).glob("*.ogg"))[:6]:
            (tmp_path / "environment" / sound / clip.name).symlink_to(clip)
    sad = load_data("speech:sad", tmp_path, examples=100, test_examples=50)
    lid = load_data("speech:lid", tmp_path)
    assert (len(sad.train), lid.classes, lid.input_shape) == (100, 2, (80, 300))
    for data in (sad, lid):
        assert torch.isfinite(data.calibration(10)).all()
