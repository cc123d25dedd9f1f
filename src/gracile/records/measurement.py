"""Results of running: accuracies, speeds and ratios with their spread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy in percent on ``n`` examples, with a 95 % Wilson interval."""

    percent: float
    n: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference ``after - before`` in points on the same examples.

    ``low`` and ``high`` bound the difference (95 %); ``p_value`` is McNemar's exact test;
    ``agreement`` the share (percent) of identical predictions.
    """

    difference: float
    low: float
    high: float
    p_value: float
    only_before_right: int
    only_after_right: int
    agreement: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Throughput of one model on one runtime at one batch size: median over interleaved runs with a 95 %
    confidence interval of the median."""

    model: str
    runtime: str
    batch: int
    runs: int
    images_per_s: float
    images_per_s_low: float
    images_per_s_high: float
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median of paired ratios (candidate throughput / reference throughput), above 1 = faster.

    ``meaningful`` is false where the 95 % interval is too wide to say which is faster.
    """

    candidate: str
    reference: str
    batch: int
    ratio: float
    low: float
    high: float
    meaningful: bool
    warning: str = ""
