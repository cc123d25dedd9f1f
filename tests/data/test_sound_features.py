"""Features against numpy, and what they must tell apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from gracile.data import log_mel, mfcc
from gracile.errors import BadArgument, MissingExtra

pytest.importorskip("kaldi_native_fbank")
RATE = 8000


def mel(hertz: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return 1127.0 * np.log1p(hertz / 700.0)


def by_hand(wave: np.ndarray, bins: int, frame: int, size: int) -> np.ndarray:  # type: ignore[type-arg]
    """Log mel energies of the first frame, from the definition."""
    samples = wave[:frame].astype(np.float64) * 32768
    samples = samples - samples.mean()
    samples = samples - 0.97 * np.concatenate([samples[:1], samples[:-1]])
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / (frame - 1))) ** 0.85
    power = np.abs(np.fft.rfft(samples * window, size)) ** 2
    edges = np.linspace(mel(np.array(20.0)), mel(np.array(RATE / 2)), bins + 2)
    lines = mel(np.arange(size // 2 + 1) * RATE / size)
    energies = []
    for left, middle, right in zip(edges, edges[1:], edges[2:], strict=False):
        rise, fall = (lines - left) / (middle - left), (right - lines) / (right - middle)
        energies.append((power * np.clip(np.minimum(rise, fall), 0, None))[: size // 2].sum())
    return np.log(energies)


def test_log_mel_by_definition() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    np.testing.assert_allclose(log_mel(wave, RATE)[:, 0], by_hand(wave, 80, 400, 512), atol=0.02)


def test_mfcc_is_the_cosine_transform_of_log_mel() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    bands = log_mel(wave, RATE, bins=23, frame_ms=25.0)
    k, n = np.arange(13)[:, None], np.arange(23)[None]
    basis = np.sqrt(2 / 23) * np.cos(np.pi * k * (n + 0.5) / 23)
    basis[0] = np.sqrt(1 / 23)
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    np.testing.assert_allclose(mfcc(wave, RATE), lifter[:, None] * (basis @ bands), atol=1e-2)


def test_no_band_is_empty() -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    bands = log_mel(wave, RATE)
    assert bands.std(axis=1).min() > 0.1
    assert bands.min() > -10  # an empty band is the logarithm of the smallest number


def test_a_tone_is_loudest_in_its_band() -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    edges = np.linspace(mel(np.array(20.0)), mel(np.array(4000.0)), 82)
    nearest = int(np.abs(edges[1:-1] - mel(np.array(1000.0))).argmin())
    assert abs(int(log_mel(wave, RATE).mean(axis=1).argmax()) - nearest) <= 1


def test_the_same_clip_gives_the_same_numbers() -> None:
    wave = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    assert torch.equal(torch.from_numpy(mfcc(wave, RATE)), torch.from_numpy(mfcc(wave, RATE)))


def test_too_short() -> None:
    with pytest.raises(BadArgument, match=r"wave: wanted at least 25 ms, found 12\.5 ms"):
        mfcc(np.zeros(100, np.float32), RATE)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldi_native_fbank", None)
    with pytest.raises(MissingExtra, match=r"kaldi_native_fbank: .*gracile\[audio\]"):
        log_mel(np.zeros(8000, np.float32), RATE)
