"""Sound files: read, refused, split."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gracile.data.audio import read_wave, sound_files, split_files
from gracile.errors import DataError, MissingExtra

from .conftest import RATE, write

pytest.importorskip("soundfile")


def test_samples_come_back(tmp_path: Path) -> None:
    wave = np.linspace(-0.5, 0.5, 400)
    write(tmp_path / "a.wav", wave)
    np.testing.assert_allclose(read_wave(tmp_path / "a.wav", RATE), wave, atol=1 / 32768)


def test_channels_are_averaged(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.stack([np.full(200, 0.5), np.full(200, -0.25)], axis=1))
    np.testing.assert_allclose(read_wave(tmp_path / "a.wav", RATE), 0.125, atol=1 / 32768)


def test_damaged_absent_empty_and_other_rates(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes(b"OggS nothing more")
    write(tmp_path / "b.wav", np.zeros(100), rate=16000)
    write(tmp_path / "c.wav", np.zeros(0))
    for name, message in (
        ("a.ogg", r"a\.ogg: wanted a whole sound file, found .*Repair it"),
        ("none.ogg", r"none\.ogg: wanted a whole sound file"),
        ("b.wav", r"b\.wav: wanted 8000 samples a second, found 16000\. Convert"),
        ("c.wav", r"c\.wav: wanted finite samples, found an empty clip"),
    ):
        with pytest.raises(DataError, match=message):
            read_wave(tmp_path / name, RATE)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"soundfile: .*pip install 'gracile\[audio\]'"):
        read_wave(tmp_path / "a.ogg", RATE)


def test_files_by_class(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.wav", "a/deep/3.wav"):
        write(tmp_path / name, np.zeros(10))
    (tmp_path / "a" / "notes.txt").write_text("no sound")
    found = sound_files(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "a": ["3.wav"],
        "b": ["1.wav", "2.wav"],
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "wanted a sub-folder for each class, found none"),
        (["en/notes.txt"], r"en: wanted sound files \(\.ogg, \.wav, \.flac\), found none"),
    ],
)
def test_folders_without_sounds(tmp_path: Path, make: list[str], message: str) -> None:
    for name in make:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=message):
        sound_files(tmp_path)
    with pytest.raises(DataError, match=r"found no such folder.*data root"):
        sound_files(tmp_path / "none")


def test_split_is_seeded_and_keeps_recordings_together() -> None:
    files = [Path(f"{i // 2}-{i % 2}.wav") for i in range(40)]
    train, test = split_files(files, 0.25, seed=1, recording=lambda path: path.stem[:-2])
    assert sorted(train + test) == sorted(files)
    assert not {p.stem[:-2] for p in train} & {p.stem[:-2] for p in test}
    assert len(test) == 10
    assert split_files(files, 0.25, seed=1) == split_files(files, 0.25, seed=1)
    assert split_files(files, 0.25, seed=1) != split_files(files, 0.25, seed=2)


def test_one_recording_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2 recordings to split, found 1"):
        split_files([Path("x/a.wav")], 0.5, seed=0)
