"""A folder of sound files: class sub-folders become windows of log mel energies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from gracile.errors import BadArgument, import_extra

from .audio import read_wave, sound_files, split_files
from .bundle import DataBundle
from .feature_cache import cached, fingerprint
from .sound_features import log_mel
from .windows import WindowData, statistics

_MADE = 1  # raise it when the features come out otherwise, so that kept files are left alone


def audio_folder(
    folder: Path,
    *,
    sample_rate: int = 8000,
    bins: int = 80,
    frames: int = 300,
    hop: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    cache: Path | str | None = None,
    name: str | None = None,
) -> DataBundle:
    """Windows of log mel energies from sound files in class sub-folders, split by file.

    A window has ``frames`` frames of 10 ms; a file gives one every ``hop`` frames, and one at least: a
    shorter file is repeated. Features are normalised by the mean and deviation of the training part. They are
    computed once and kept in ``cache``.

    Args:
        folder: Its sub-folders are the classes, in alphabetical order.
        sample_rate: Of all files, in Hz.
        bins: Mel bands.
        frames: Length of a window.
        hop: Frames between windows of a file; ``frames`` where not given.
        test_share: Share of each class's files in the test part, between 0 and 1.
        seed: Of the split.
        cache: Folder for the features; ``~/.cache/gracile/features`` where not given.
        name: For reports.

    Raises:
        DataError: No such folder, fewer than two classes, a damaged file, or one of another rate.
        BadArgument: An option is out of range.
        MissingExtra: soundfile or kaldi-native-fbank is not installed.
    """
    hop = frames if hop is None else hop
    for option, value in (("sample_rate", sample_rate), ("bins", bins), ("frames", frames), ("hop", hop)):
        if value < 1:
            raise BadArgument(f"audio: {option}", wanted="at least 1", found=f"{option}={value}")
    check_share(test_share)
    for module in ("soundfile", "kaldi_native_fbank"):
        import_extra(module, "audio")
    files = sound_files(folder)
    every = [path for paths in files.values() for path in paths]
    key = fingerprint(every, folder, {"made": _MADE, "kaldi": version("kaldi-native-fbank"), "bins": bins,
                                      "sample_rate": sample_rate})  # fmt: skip
    keep = cache_folder(cache) / f"log-mel-{key}.safetensors"
    found = cached(keep, lambda: _features(every, sample_rate, bins))
    index = {path: place for place, path in enumerate(every)}
    split = [split_files(paths, test_share, seed=seed) for paths in files.values()]
    train, test = (
        _windows(found, [[index[path] for path in parts[side]] for parts in split], frames, hop)
        for side in (0, 1)
    )
    train_features = torch.cat(
        [part for clip, part in enumerate(_clips(found)) if clip in set(train.clips.tolist())], dim=1
    )
    train.mean, train.std = test.mean, test.std = statistics(train_features)
    return DataBundle(
        name=name or f"audio:{folder.name}",
        train=train,
        test=test,
        classes=len(files),
        input_shape=(bins, frames),
        mean=tuple(train.mean.tolist()),
        std=tuple(train.std.tolist()),
    )


def cache_folder(cache: Path | str | None) -> Path:
    """Where features are kept: not beside the data, which may be shared or read-only."""
    return Path(cache).expanduser() if cache is not None else Path.home() / ".cache" / "gracile" / "features"


def check_share(test_share: float) -> None:
    """Refuse a share that leaves one part without files."""
    if not 0 < test_share < 1:
        raise BadArgument("test_share", wanted="between 0 and 1", found=f"{test_share=}")


def _features(files: Sequence[Path], sample_rate: int, bins: int) -> dict[str, Tensor]:
    """All files one behind the other; a file shorter than a frame is an error that names it."""
    parts = []
    for path in files:
        wave = read_wave(path, sample_rate)
        try:
            parts.append(torch.from_numpy(log_mel(wave, sample_rate, bins=bins)))
        except BadArgument as error:
            raise BadArgument(str(path), wanted=error.wanted, found=error.found) from error
    return {
        "features": torch.cat(parts, dim=1),
        "lengths": torch.tensor([part.shape[1] for part in parts]),
    }


def _clips(found: dict[str, Tensor]) -> Sequence[Tensor]:
    return torch.split(found["features"], found["lengths"].tolist(), dim=1)


def _windows(
    found: dict[str, Tensor], by_class: Sequence[Sequence[int]], frames: int, hop: int
) -> WindowData:
    """Windows over the clips of one part; ``by_class`` lists the clips of each class."""
    rows = [
        (start, clip, label)
        for label, clips in enumerate(by_class)
        for clip in clips
        for start in range(0, max(int(found["lengths"][clip]) - frames, 0) + 1, hop)
    ]
    starts, clips, labels = torch.tensor(rows).T
    return WindowData(found["features"], found["lengths"], starts, clips, labels, frames=frames)
