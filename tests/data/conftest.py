"""Small sound files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

RATE = 8000


def write(path: Path, wave: np.ndarray, rate: int = RATE) -> None:  # type: ignore[type-arg]
    """A WAV file of 16-bit samples."""
    soundfile = pytest.importorskip("soundfile")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="PCM_16")


def syllables(pitch: float, seconds: float = 1.5, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """A harmonic tone that comes and goes: half a second on, half a second off."""
    time = np.arange(round(RATE * seconds)) / RATE
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3))
    on = (time % 1.0) < 0.5
    return 0.2 * tone * on + 1e-4 * np.random.default_rng(seed).standard_normal(len(time))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept in the home folder is kept in one of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def sound_root(tmp_path: Path) -> Path:
    """``speech`` with three languages that differ in pitch, ``environment`` with white and low noise."""
    pytest.importorskip("kaldi_native_fbank")
    for place, language in enumerate(("aa", "bb", "cc")):
        for clip in range(5):
            wave = syllables(120.0 * 2**place, 1.2 + 0.4 * clip, seed=clip)
            write(tmp_path / "speech" / language / f"{clip:04}.wav", wave)
    draw = np.random.default_rng(1)
    for clip in range(4):
        hiss = 0.1 * draw.standard_normal(2 * RATE)
        write(tmp_path / "environment" / "hiss" / f"1-{clip}-A.wav", hiss)
        write(tmp_path / "environment" / "hum" / f"2-{clip}-A.wav", np.cumsum(hiss) / 40)
        write(tmp_path / "environment" / "hum" / f"2-{clip}-B.wav", np.cumsum(hiss[::-1]) / 40)
    return tmp_path
