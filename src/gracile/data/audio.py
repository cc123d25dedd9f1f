"""Sound files: found, read whole, and split into training and test clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gracile.errors import DataError, import_extra

Wave: TypeAlias = NDArray[np.float32]
"""One channel of samples, ``(n,)``, full scale being 1."""

SUFFIXES = (".ogg", ".wav", ".flac")


def read_wave(path: Path, sample_rate: int) -> Wave:
    """Read a whole file as one channel; several are averaged.

    Args:
        path: Ogg, WAV or FLAC.
        sample_rate: That the file must have, in Hz: nothing is resampled in silence.

    Returns:
        Samples ``(n,)``, full scale being 1.

    Raises:
        DataError: The file is damaged, empty, of another rate, or holds NaN or infinity.
        MissingExtra: soundfile is not installed.
    """
    soundfile = import_extra("soundfile", "audio")
    try:
        samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise DataError(
            str(path),
            wanted="a whole sound file",
            found=str(error).strip(" ."),
            do="Repair it, or take it out of the folder.",
        ) from error
    if found != sample_rate:
        raise DataError(
            str(path),
            wanted=f"{sample_rate} samples a second",
            found=str(found),
            do="Convert the clips, for instance with ffmpeg -ar, or name their rate as sample_rate.",
        )
    wave: Wave = np.ascontiguousarray(samples.mean(axis=1), dtype=np.float32)
    if len(wave) == 0 or not np.isfinite(wave).all():
        raise DataError(
            str(path), wanted="finite samples", found="NaN or infinity" if len(wave) else "an empty clip"
        )
    return wave


def sound_files(folder: Path) -> dict[str, list[Path]]:
    """Sound files of each sub-folder, both sorted by name; the sub-folders are the classes.

    Raises:
        DataError: No such folder, no sub-folder, or one without sound files.
    """
    if not folder.is_dir():
        raise DataError(
            str(folder),
            wanted="a folder of sound files, a sub-folder for each class",
            found="a file" if folder.exists() else "no such folder",
            do="A relative folder is looked for in the data root: --data-root or GRACILE_DATA.",
        )
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {part.name: sorted(p for p in part.rglob("*") if p.suffix.lower() in SUFFIXES) for part in inside}
    if not found:
        raise DataError(str(folder), wanted="a sub-folder for each class", found="none")
    empty = next((name for name, files in found.items() if not files), None)
    if empty is not None:
        kinds = ", ".join(SUFFIXES)
        raise DataError(str(folder / empty), wanted=f"sound files ({kinds})", found="none")
    return found


def split_files(
    files: Sequence[Path],
    test_share: float,
    *,
    seed: int,
    recording: Callable[[Path], str] = lambda path: str(path),
) -> tuple[list[Path], list[Path]]:
    """Split files at random into training and test; what belongs to one recording stays together.

    Args:
        files: At least two recordings.
        test_share: Share of the recordings that goes to the test part; each part gets at least one.
        seed: Same seed, same split.
        recording: Names the recording that a file was cut from; each file is one where not given.

    Raises:
        DataError: Fewer than two recordings.

    Example:
        >>> train, test = split_files([Path(f"{i}.wav") for i in range(10)], 0.2, seed=0)
        >>> len(train), len(test), set(train) & set(test)
        (8, 2, set())
    """
    names = sorted({recording(path) for path in files})
    if len(names) < 2:
        where = str(files[0].parent) if files else "sound files"
        raise DataError(where, wanted="at least 2 recordings to split", found=str(len(names)))
    count = min(max(round(test_share * len(names)), 1), len(names) - 1)
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    held = {names[i] for i in drawn}
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in files:
        parts[recording(path) in held].append(path)
    return parts


def read_waves(paths: Iterable[Path], sample_rate: int) -> list[Wave]:
    """All of ``paths`` by :func:`read_wave`."""
    return [read_wave(path, sample_rate) for path in paths]
