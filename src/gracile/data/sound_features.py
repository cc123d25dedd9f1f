"""Spectral features of sound: mel-frequency cepstral coefficients and log mel energies.

Source: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition in
continuously spoken sentences", IEEE Transactions on Acoustics, Speech and Signal Processing 28 (1980), in the
form of the Kaldi toolkit. kaldi-native-fbank computes them: it needs neither torch nor numba, has a wheel for
every common system, and is what deployed recognisers (sherpa-onnx) compute theirs with, so that a network
meets the same numbers on the device. Dither is off, so that the same clip gives the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gracile.errors import BadArgument, import_extra

from .audio import Wave

SHIFT_MS = 10.0
_INT16 = 32768.0  # Kaldi's features are those of 16-bit samples
Features = NDArray[np.float32]
"""``(bins, frames)``."""


def mfcc(wave: Wave, sample_rate: int, *, count: int = 13, frame_ms: float = 25.0) -> Features:
    """Cepstral coefficients, 23 mel bands, the zeroth in place of the energy, a frame every 10 ms.

    Args:
        wave: Samples ``(n,)``.
        sample_rate: In Hz.
        count: Coefficients.
        frame_ms: Length of a frame.

    Returns:
        ``(count, frames)`` with ``frames = 1 + (n - frame) // shift``.

    Raises:
        BadArgument: The clip is shorter than a frame.
        MissingExtra: kaldi-native-fbank is not installed.

    Example:
        >>> mfcc(np.sin(np.arange(3400, dtype=np.float32)), 8000).shape
        (13, 41)
    """
    kaldi = import_extra("kaldi_native_fbank", "audio")
    options = kaldi.MfccOptions()
    options.num_ceps = count
    options.use_energy = False
    options.mel_opts.num_bins = max(23, count)
    return _frames(kaldi.OnlineMfcc, options, wave, sample_rate, frame_ms)


def log_mel(wave: Wave, sample_rate: int, *, bins: int = 80, frame_ms: float = 50.0) -> Features:
    """Logarithms of the energies in mel bands, a frame every 10 ms.

    Frames of 50 ms are longer than usual: at 8 kHz a shorter one leaves the lowest of 80 bands without a
    line of the spectrum.

    Args:
        wave: Samples ``(n,)``.
        sample_rate: In Hz.
        bins: Mel bands.
        frame_ms: Length of a frame.

    Returns:
        ``(bins, frames)``.

    Raises:
        BadArgument: The clip is shorter than a frame.
        MissingExtra: kaldi-native-fbank is not installed.

    Example:
        >>> log_mel(np.sin(np.arange(8000, dtype=np.float32)), 8000).shape
        (80, 96)
    """
    kaldi = import_extra("kaldi_native_fbank", "audio")
    options = kaldi.FbankOptions()
    options.mel_opts.num_bins = bins
    return _frames(kaldi.OnlineFbank, options, wave, sample_rate, frame_ms)


def _frames(extractor: Any, options: Any, wave: Wave, sample_rate: int, frame_ms: float) -> Features:
    if len(wave) < sample_rate * frame_ms / 1000:
        raise BadArgument(
            "wave", wanted=f"at least {frame_ms:g} ms", found=f"{1000 * len(wave) / sample_rate:g} ms"
        )
    options.frame_opts.samp_freq = float(sample_rate)
    options.frame_opts.frame_length_ms = frame_ms
    options.frame_opts.frame_shift_ms = SHIFT_MS
    options.frame_opts.dither = 0.0
    computer = extractor(options)
    computer.accept_waveform(sample_rate, (wave * _INT16).tolist())
    computer.input_finished()
    rows = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
    return np.ascontiguousarray(np.stack(rows).T, dtype=np.float32)
