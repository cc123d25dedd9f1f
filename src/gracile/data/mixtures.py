"""Examples for speech activity detection: speech and its pauses under noise, noise alone, silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gracile.errors import DataError

from .audio import Wave
from .sound_features import mfcc

COEFFICIENTS, FRAMES = 13, 41
FRAME_S, SHIFT_S = 0.025, 0.010
SPEECH_DB, NOISE_DB, FLOOR_DB = (-35.0, -15.0), (-45.0, -15.0), (-80.0, -60.0)
_ACTIVE_DB = 30.0  # a frame this far below the loud ones of its clip is a pause
_SPOKEN, _PAUSE = 0.5, 0.1  # share of active frames: at least, at most
_KINDS = ("speech", "noise", "pause", "silence")
_SHARES = (0.5, 0.25, 0.125, 0.125)


def mixtures(
    speech: Sequence[Wave],
    noise: Sequence[Wave],
    count: int,
    *,
    sample_rate: int,
    snr_db: Sequence[float],
    seed: int,
) -> dict[str, Tensor]:
    """Draw examples of 41 frames: half speech, a quarter noise, an eighth each pauses and silence.

    A frame of a clip is active when its power lies within 30 dB of the clip's loud ones (95th percentile). A
    window with half of its frames active is speech, one with a tenth at most a pause. Speech is set to a
    level between -35 and -15 dB of full scale, noise ``snr_db`` below it; noise alone is between -45 and -15
    dB, so that loudness does not tell the classes apart. Under everything lies white noise between -80 and
    -60 dB, which alone is silence.

    Args:
        speech: Clips of clean speech.
        noise: Clips of noise.
        count: Examples.
        sample_rate: In Hz.
        snr_db: Signal-to-noise ratios that are drawn from.
        seed: Same seed, same examples.

    Returns:
        ``features`` ``(count, 13, 41)``, ``labels`` ``(count,)`` (1 for speech), ``groups`` ``(count,)``
        (the clip that an example was cut from) and ``kinds`` ``(count,)`` (index into speech, noise, pause,
        silence).

    Raises:
        DataError: No clip has a window with speech, or none with a pause, or every noise is silent.
    """
    length = round(sample_rate * (SHIFT_S * (FRAMES - 1) + FRAME_S))
    spoken, pauses = _places(speech, sample_rate, length)
    loud = _noise_places(noise, length)
    for name, places in (("speech", spoken), ("a pause", pauses), ("noise", loud)):
        if not places:
            raise DataError(
                "speech:sad",
                wanted=f"clips with a window of {length / sample_rate:.3f} s that holds {name}",
                found=f"none in {len(speech)} clips of speech and {len(noise)} of noise",
            )
    draw = np.random.default_rng(seed)
    made = []
    for place, kind in enumerate(draw.choice(len(_KINDS), size=count, p=_SHARES)):
        floor = _at_level(draw.standard_normal(length), draw.uniform(*FLOOR_DB))
        wave, group = floor, len(speech) + len(noise) + place  # silence belongs to nothing
        if _KINDS[kind] in ("speech", "pause"):
            places = spoken if _KINDS[kind] == "speech" else pauses
            group, starts, clip_db = places[draw.integers(len(places))]
            level = draw.uniform(*SPEECH_DB)
            window = _cut(speech[group], starts[draw.integers(len(starts))], length)
            wave = wave + window * _factor(level - clip_db)
            wave = wave + _at_level(_noise(draw, noise, loud, length)[0], level - draw.choice(snr_db))
        elif _KINDS[kind] == "noise":
            window, source = _noise(draw, noise, loud, length)
            wave, group = wave + _at_level(window, draw.uniform(*NOISE_DB)), len(speech) + source
        features = mfcc(wave.clip(-1, 1).astype(np.float32), sample_rate, count=COEFFICIENTS)
        made.append((torch.from_numpy(features), int(kind == 0), group, int(kind)))
    labels, groups, kinds = torch.tensor([facts for _, *facts in made]).T.contiguous()
    return {
        "features": torch.stack([example for example, *_ in made]),
        "labels": labels,
        "groups": groups,
        "kinds": kinds,
    }


_Places = list[tuple[int, NDArray[np.intp], float]]


def _places(speech: Sequence[Wave], sample_rate: int, length: int) -> tuple[_Places, _Places]:
    """For each clip where there are any: sample offsets of spoken windows, those of pauses, and its level."""
    shift, frame = round(sample_rate * SHIFT_S), round(sample_rate * FRAME_S)
    spoken: _Places = []
    pauses: _Places = []
    for index, wave in enumerate(speech):
        if len(wave) < length:
            continue
        total = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
        starts = np.arange(0, len(wave) - frame + 1, shift)
        power = (total[starts + frame] - total[starts]) / frame
        threshold = np.quantile(power, 0.95) / _factor(_ACTIVE_DB) ** 2
        if threshold <= 0:
            continue
        active = power > threshold
        windows = np.lib.stride_tricks.sliding_window_view(active, FRAMES).mean(axis=1)
        level = 10 * np.log10(power[active].mean())
        for places, chosen in ((spoken, windows >= _SPOKEN), (pauses, windows <= _PAUSE)):
            if chosen.any():
                places.append((index, shift * np.flatnonzero(chosen), float(level)))
    return spoken, pauses


def _noise_places(noise: Sequence[Wave], length: int) -> list[tuple[int, NDArray[np.intp]]]:
    """For each noise: offsets of windows that are not far quieter than the noise on average."""
    places = []
    for index, wave in enumerate(noise):
        total = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
        starts = np.arange(0, len(wave) - length + 1, length // 4)
        power = (total[starts + length] - total[starts]) / length
        chosen = starts[(power > 0.1 * total[-1] / max(len(wave), 1)) & (power > 1e-10)]
        if len(chosen):
            places.append((index, chosen))
    return places


def _noise(
    draw: np.random.Generator, noise: Sequence[Wave], places: list[tuple[int, NDArray[np.intp]]], length: int
) -> tuple[NDArray[np.float64], int]:
    index, starts = places[draw.integers(len(places))]
    return _cut(noise[index], starts[draw.integers(len(starts))], length), index


def _cut(wave: Wave, start: int, length: int) -> NDArray[np.float64]:
    return wave[start : start + length].astype(np.float64)


def _at_level(wave: NDArray[np.float64], level_db: float) -> NDArray[np.float64]:
    """``wave`` with a root mean square of ``level_db`` below full scale."""
    return wave * (_factor(level_db) / float(np.sqrt(np.mean(wave**2))))


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
