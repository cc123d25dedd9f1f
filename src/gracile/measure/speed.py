"""Throughput and latency, side by side.

Candidates take turns (A B C A B C ...), so that a slow minute of the machine slows all of them; a ratio is
the median of the ratios within a turn. Before each timed run a candidate answers once untimed: the threads of
the runtime before it may still spin, and the caches hold its weights.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gracile.errors import BadArgument, did_you_mean
from gracile.records import Ratio, Speed

from .ci import median_ci
from .predict import Runner, check_logits
from .runtimes import RUNTIMES

_WIDEST = 0.2  # an interval wider than a fifth of its ratio says too little

Images = NDArray[np.float32]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What to time: a module in ``torch``, an ONNX file in ``ort`` or ``openvino``, or any runner.

    Args:
        name: Of the model, for tables.
        runtime: One of :data:`gracile.measure.RUNTIMES`, or a name of your own where ``model`` is a runner.
        model: Module, file or runner.

    Example:
        >>> Candidate(name="small", runtime="ort", model=Path("small.onnx")).label
        'small in ort'
    """

    name: str
    runtime: str
    model: nn.Module | Path | Runner

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module | Path | str) and self.runtime not in RUNTIMES:
            raise BadArgument(
                f"{self.name}: runtime",
                wanted=" or ".join(RUNTIMES),
                found=repr(self.runtime),
                do=did_you_mean(self.runtime, RUNTIMES),
            )
        if isinstance(self.model, nn.Module) != (self.runtime == "torch") and not self._is_runner():
            raise BadArgument(
                f"{self.name}: model",
                wanted="a module for torch, an ONNX file for the other runtimes",
                found=f"a {type(self.model).__name__} for {self.runtime}",
            )

    @property
    def label(self) -> str:
        """Name and runtime, as ratios name it."""
        return f"{self.name} in {self.runtime}"

    def runner(self, threads: int | None = None) -> Runner:
        """Load the model in its runtime."""
        if not isinstance(self.model, nn.Module | Path | str):
            return self.model
        return RUNTIMES[self.runtime](self.model, threads)

    def _is_runner(self) -> bool:
        return not isinstance(self.model, nn.Module | Path | str)


def bench(
    candidates: Sequence[Candidate],
    *,
    inputs: Tensor | Images | Sequence[int],
    batches: Sequence[int] = (1, 32, 128),
    runs: int = 15,
    warmup: int = 3,
    min_seconds: float = 0.05,
    threads: int | None = None,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    on_run: Callable[[int, int], None] | None = None,
) -> tuple[tuple[Speed, ...], tuple[Ratio, ...]]:
    """Time whole batches of every candidate, in turns.

    Args:
        candidates: The first is the reference of all ratios.
        inputs: Prepared images ``(n, channels, height, width)``, repeated where a batch needs more; or the
            shape of one image, for random ones drawn from ``seed``.
        batches: Batch sizes.
        runs: Timed runs of each candidate at each batch size, at least 6.
        warmup: Untimed batches before the first run, at least 1.
        min_seconds: A run repeats its batch until about this long, to be well above the clock's grain.
        threads: For every runtime; all cores that this process may use where not given.
        seed: Of the random images.
        clock: Seconds; another one for tests.
        on_run: Told the number of runs done and of all, for a progress bar.

    Returns:
        One :class:`Speed` for each batch size and candidate: medians with 95 % intervals. One
        :class:`Ratio` for each batch size and candidate after the first: throughput relative to the first.

    Raises:
        BadArgument: An argument is out of range, or two candidates have the same label.
        NonFiniteError: A candidate answers NaN or infinity.
        ModelError, MissingExtra: A candidate cannot be loaded.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> speeds, ratios = bench(
        ...     [Candidate(name=name, runtime="torch", model=model) for name in ("a", "b")],
        ...     inputs=(3, 2, 2), batches=[4], runs=6, min_seconds=0.0, threads=1)
        >>> [(s.model, s.batch, s.runs) for s in speeds], ratios[0].reference
        ([('a', 4, 6), ('b', 4, 6)], 'a in torch')
    """
    _check(candidates, batches, runs, warmup, min_seconds)
    runners = [candidate.runner(threads) for candidate in candidates]
    speeds: list[Speed] = []
    ratios: list[Ratio] = []
    for place, batch in enumerate(batches):
        images = _images(inputs, batch, seed)
        calls = [
            _warm_up(candidate, runner, images, warmup, min_seconds, clock)
            for candidate, runner in zip(candidates, runners, strict=True)
        ]
        seconds = np.empty((runs, len(candidates)))
        for turn in range(runs):
            for i, runner in enumerate(runners):
                seconds[turn, i] = _timed(runner, images, calls[i], clock)
                if on_run is not None:
                    done = (place * runs + turn) * len(runners) + i + 1
                    on_run(done, len(batches) * runs * len(runners))
        speeds += [_speed(c, batch, seconds[:, i].tolist()) for i, c in enumerate(candidates)]
        ratios += [
            ratio(c.label, candidates[0].label, batch, (seconds[:, 0] / seconds[:, i]).tolist())
            for i, c in enumerate(candidates)
            if i > 0
        ]
    return tuple(speeds), tuple(ratios)


def ratio(candidate: str, reference: str, batch: int, ratios: Sequence[float]) -> Ratio:
    """Sum up paired ratios (throughput of candidate / of reference), and say what they can't tell.

    Not ``meaningful`` is an interval that holds 1, and one wider than a fifth of its ratio.

    Example:
        >>> ratio("a", "b", 1, [2.0, 2.1, 1.9, 2.0, 2.05, 1.95]).meaningful
        True
        >>> print(ratio("a", "b", 1, [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]).warning)
        a at batch 1: 1.00x of b, 95 % interval 0.90 to 1.10: which of the two is faster can't be told.
    """
    middle, low, high = median_ci(ratios)
    start = (
        f"{candidate} at batch {batch}: {middle:.2f}x of {reference}, 95 % interval {low:.2f} to {high:.2f}"
    )
    warning = ""
    if low <= 1 <= high:
        warning = f"{start}: which of the two is faster can't be told."
    elif (high - low) / middle > _WIDEST:
        warning = f"{start}: too wide to be a figure. Measure again with more runs, on a quiet machine."
    return Ratio(
        candidate=candidate,
        reference=reference,
        batch=batch,
        ratio=middle,
        low=low,
        high=high,
        meaningful=not warning,
        warning=warning,
    )


def _warm_up(
    candidate: Candidate, runner: Runner, images: Images, warmup: int, min_seconds: float, clock: Clock
) -> int:
    """Run untimed, check the answer, and give the number of calls that fill ``min_seconds``."""
    for _ in range(warmup):
        answer = runner(images)
    check_logits(answer, len(images), candidate.label)
    start = clock()
    runner(images)
    return max(math.ceil(min_seconds / max(clock() - start, 1e-9)), 1)


def _timed(runner: Runner, images: Images, calls: int, clock: Clock) -> float:
    """Seconds for one batch, after one untimed call."""
    runner(images)
    with _no_garbage_collection():
        start = clock()
        for _ in range(calls):
            runner(images)
        return (clock() - start) / calls


def _speed(candidate: Candidate, batch: int, seconds: Sequence[float]) -> Speed:
    middle, low, high = median_ci(seconds)
    return Speed(
        model=candidate.name,
        runtime=candidate.runtime,
        batch=batch,
        runs=len(seconds),
        images_per_s=batch / middle,
        images_per_s_low=batch / high,
        images_per_s_high=batch / low,
        latency_ms=1000 * middle,
        latency_ms_low=1000 * low,
        latency_ms_high=1000 * high,
    )


def _images(inputs: Tensor | Images | Sequence[int], batch: int, seed: int) -> Images:
    if isinstance(inputs, Tensor | np.ndarray):
        given = np.asarray(inputs, dtype=np.float32)
        if given.ndim < 2 or len(given) == 0:
            raise BadArgument("inputs", wanted="images (n, ...) or a shape", found=f"shape {given.shape}")
        repeated = given[np.arange(batch) % len(given)]
        return np.ascontiguousarray(repeated)
    return np.random.default_rng(seed).standard_normal((batch, *inputs), dtype=np.float32)


def _check(
    candidates: Sequence[Candidate], batches: Sequence[int], runs: int, warmup: int, min_seconds: float
) -> None:
    labels = [candidate.label for candidate in candidates]
    if not labels or len(set(labels)) != len(labels):
        raise BadArgument("candidates", wanted="one or more with different names", found=f"{labels}")
    if not batches or min(batches) < 1:
        raise BadArgument("batches", wanted="sizes of at least 1", found=f"{batches=}")
    if runs < 6:
        raise BadArgument("runs", wanted="at least 6, for a 95 % interval of a median", found=f"{runs=}")
    if warmup < 1:
        raise BadArgument("warmup", wanted="at least 1", found=f"{warmup=}")
    if min_seconds < 0:
        raise BadArgument("min_seconds", wanted="0 or more", found=f"{min_seconds=}")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
