"""Examples for speech activity detection: what is in them, and how loud."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gracile.data import mixtures
from gracile.data.audio import Wave
from gracile.data.mixtures import _noise_places, _places
from gracile.errors import DataError

from .conftest import RATE, syllables

pytest.importorskip("kaldi_native_fbank")


def clips(count: int = 4) -> list[Wave]:
    return [syllables(150.0 + 40 * i, 3.0, seed=i).astype(np.float32) for i in range(count)]


def noises(count: int = 3) -> list[Wave]:
    draw = np.random.default_rng(5)
    return [0.1 * draw.standard_normal(2 * RATE).astype(np.float32) for _ in range(count)]


def draw(count: int = 200, seed: int = 0, snr_db: tuple[float, ...] = (0.0, 20.0)) -> dict[str, torch.Tensor]:
    return mixtures(clips(), noises(), count, sample_rate=RATE, snr_db=snr_db, seed=seed)


def test_shares_labels_and_groups() -> None:
    made = draw()
    assert made["features"].shape == (200, 13, 41)
    assert torch.equal(made["labels"], (made["kinds"] == 0).long())
    assert 0.4 < made["labels"].float().mean() < 0.6
    counts = made["kinds"].bincount(minlength=4).tolist()
    assert counts[1] > counts[2] > 10
    assert counts[3] > 10
    of_kind = [set(made["groups"][made["kinds"] == kind].tolist()) for kind in range(4)]
    assert of_kind[0] | of_kind[2] <= {0, 1, 2, 3}
    assert of_kind[1] <= {4, 5, 6}
    assert len(of_kind[3]) == counts[3]  # silence belongs to nothing
    assert min(of_kind[3]) >= 7


def test_seeded() -> None:
    one, same, other = draw(20, 1), draw(20, 1), draw(20, 2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["features"], other["features"])


def test_speech_and_pauses_lie_where_the_tone_is_and_is_not() -> None:
    wave = syllables(200.0, 4.0).astype(np.float32)  # half a second on, half a second off
    length = 3400
    spoken, pauses = _places([wave], RATE, length)
    (index, starts, level), (_, quiet, _) = spoken[0], pauses[0]
    assert index == 0
    on = ((np.arange(len(wave)) / RATE) % 1.0) < 0.5
    assert min(on[start : start + length].mean() for start in starts) > 0.4
    assert max(on[start : start + length].mean() for start in quiet) < 0.2
    assert abs(level - 10 * np.log10(np.mean(wave[on].astype(np.float64) ** 2))) < 1


def test_noise_raises_the_floor_by_the_ratio() -> None:
    """The first coefficient rises with the energy: pauses under a noise at 0 dB are louder than at 40 dB."""
    loud, quiet = draw(300, snr_db=(0.0,)), draw(300, snr_db=(40.0,))
    first = [made["features"][made["kinds"] == 2, 0].mean() for made in (loud, quiet)]
    assert first[0] > first[1] + 10


def test_silent_stretches_of_noise_are_left_out() -> None:
    noise = np.concatenate([np.zeros(2 * RATE), 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)])
    (_, starts), *rest = _noise_places([noise.astype(np.float32), np.zeros(RATE, np.float32)], 3400)
    assert not rest
    assert starts.min() > 2 * RATE - 3400


@pytest.mark.parametrize(
    ("speech", "noise", "message"),
    [
        ([np.zeros(RATE, np.float32)], noises(1), "that holds speech, found none in 1 clips of speech"),
        ([np.ones(1000, np.float32)], noises(1), "holds speech"),
        ([noises(1)[0]], noises(1), "that holds a pause"),
        (clips(1), [np.zeros(RATE, np.float32)], "that holds noise, found none in 1 clips of speech and 1"),
    ],
    ids=["silent", "too short", "no pause", "silent noise"],
)
def test_nothing_to_draw_from(speech: list[Wave], noise: list[Wave], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mixtures(speech, noise, 10, sample_rate=RATE, snr_db=(0.0,), seed=0)
