"""Two speech tasks from folders of clips: speech activity detection (SAD) and language identification (LID).

Source: Hurault, "Compression et accélération de l'inférence sur GPU des réseaux de neurones", report, 2019,
table 1: 41 frames of 13 MFCC in two classes, 300 frames of 80 features in five languages. The report's own
recordings are not public; ours are made from open ones: clips of speech and of everyday noises at 8 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from gracile.errors import BadArgument, DataError, import_extra

from .audio import read_waves, sound_files, split_files
from .audio_folder import audio_folder, cache_folder, check_share
from .bundle import DataBundle
from .feature_cache import cached, fingerprint
from .mixtures import COEFFICIENTS, FRAMES, mixtures
from .windows import WindowData, statistics

SAMPLE_RATE = 8000
_MADE = 1  # raise it when the examples come out otherwise


def speech_lid(
    root: Path | None = None,
    *,
    frames: int = 300,
    bins: int = 80,
    hop: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    cache: Path | str | None = None,
) -> DataBundle:
    """Which language: windows of 3 s from the sub-folders of ``root/speech``, one for each language.

    With one speaker a language, this can turn into the easier task of telling speakers and recording rooms
    apart: compare before and after, and quote no figure as language identification.

    Args:
        root: Holds ``speech/LANGUAGE/*.ogg``.
        frames: Length of a window, in frames of 10 ms.
        bins: Mel bands.
        hop: Frames between windows of a clip; ``frames`` where not given.
        test_share: Share of each language's clips in the test part.
        seed: Of the split.
        cache: Folder for the features; ``~/.cache/gracile/features`` where not given.

    Raises:
        DataError: The folder is absent, or a clip cannot be read.
        BadArgument: An option is out of range.
        MissingExtra: soundfile or kaldi-native-fbank is not installed.
    """
    return audio_folder(_folder(root, "speech"), sample_rate=SAMPLE_RATE, frames=frames, bins=bins, hop=hop,
                        test_share=test_share, seed=seed, cache=cache, name="speech:lid")  # fmt: skip


def speech_sad(
    root: Path | None = None,
    *,
    examples: int = 9000,
    test_examples: int = 2000,
    snr_db: Sequence[float] = (0.0, 5.0, 10.0, 20.0),
    test_share: float = 0.2,
    seed: int = 0,
    cache: Path | str | None = None,
) -> DataBundle:
    """Is somebody talking: 41 frames of 13 MFCC, half of them with speech under noise.

    Class 1 is speech mixed with a noise at a signal-to-noise ratio drawn from ``snr_db``; class 0 is a noise
    alone, a pause between words with such a noise, or silence; see :func:`gracile.data.mixtures.mixtures`.
    Clips of speech and recordings of noise are split before anything is mixed.

    Args:
        root: Holds ``speech/*/`` and ``environment/*/``.
        examples: In the training part.
        test_examples: In the test part.
        snr_db: Signal-to-noise ratios in decibels.
        test_share: Share of the clips, and of the recordings of noise, in the test part.
        seed: Of the split and of every draw.
        cache: Folder for the features; ``~/.cache/gracile/features`` where not given.

    Raises:
        DataError: A folder is absent, a clip cannot be read, or no clip holds both speech and a pause.
        BadArgument: An option is out of range.
        MissingExtra: soundfile or kaldi-native-fbank is not installed.
    """
    _check(examples, test_examples, snr_db)
    check_share(test_share)
    for module in ("soundfile", "kaldi_native_fbank"):
        import_extra(module, "audio")
    folders = [_folder(root, name) for name in ("speech", "environment")]
    sounds = [[path for paths in sound_files(folder).values() for path in paths] for folder in folders]
    splits = [
        split_files(sounds[0], test_share, seed=seed),
        split_files(sounds[1], test_share, seed=seed, recording=source_recording),
    ]
    counts = (examples, test_examples)
    key = fingerprint(
        [*sounds[0], *sounds[1]],
        folders[0].parent,
        {"made": _MADE, "kaldi": version("kaldi-native-fbank"), "numpy": np.__version__, "counts": counts,
         "snr_db": list(snr_db), "test_share": test_share, "seed": seed},
    )  # fmt: skip
    file = cache_folder(cache) / f"sad-{key}.safetensors"

    def compute() -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for side, part in enumerate(("train", "test")):
            speech, noise = (read_waves(split[side], SAMPLE_RATE) for split in splits)
            made = mixtures(speech, noise, counts[side], sample_rate=SAMPLE_RATE, snr_db=snr_db,
                            seed=2 * seed + side)  # fmt: skip
            found |= {f"{part}.{name}": tensor for name, tensor in made.items()}
        return found

    found = cached(file, compute)
    train, test = (_part(found, name) for name in ("train", "test"))
    train.mean, train.std = test.mean, test.std = statistics(train.features)
    return DataBundle(
        name="speech:sad",
        train=train,
        test=test,
        classes=2,
        input_shape=(COEFFICIENTS, FRAMES),
        mean=tuple(train.mean.tolist()),
        std=tuple(train.std.tolist()),
    )


def source_recording(path: Path) -> str:
    """What a file of the ESC collections was cut from: ``2-77945-A`` and ``2-77945-B`` are one recording.

    Example:
        >>> source_recording(Path("2-77945-A.ogg")), source_recording(Path("rain.ogg"))
        ('2-77945', 'rain')
    """
    start, dash, take = path.stem.rpartition("-")
    return start if dash and len(take) == 1 and take.isupper() else path.stem


def _part(found: dict[str, torch.Tensor], name: str) -> WindowData:
    features, labels = found[f"{name}.features"], found[f"{name}.labels"]  # (n, bins, frames), (n,)
    count = len(labels)
    return WindowData(
        features.transpose(0, 1).reshape(COEFFICIENTS, count * FRAMES).contiguous(),
        torch.full((count,), FRAMES),
        torch.zeros(count),
        torch.arange(count),
        labels,
        frames=FRAMES,
        groups=found[f"{name}.groups"],
        can_shift=False,
    )


def _folder(root: Path | None, name: str) -> Path:
    if root is None:
        raise DataError(
            f"speech: {name}",
            wanted=f"a data root that holds {name}/",
            found="no data root",
            do="Name it with --data-root or GRACILE_DATA.",
        )
    return root / name


def _check(examples: int, test_examples: int, snr_db: Sequence[float]) -> None:
    for name, count in (("examples", examples), ("test_examples", test_examples)):
        if count < 8:
            raise BadArgument(f"speech:sad: {name}", wanted="at least 8", found=f"{name}={count}")
    if not snr_db or not np.isfinite(snr_db).all():
        raise BadArgument("speech:sad: snr_db", wanted="one or more decibels", found=f"{snr_db=}")
