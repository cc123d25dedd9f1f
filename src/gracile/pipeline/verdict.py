"""The verdict on a run, in sentences: what got worse is said first.

A difference counts only when its 95 % interval excludes "no difference"; otherwise the sentence says that
it lies within the noise. A speed is compared within one runtime and batch size, against the original
model and against the model that was only quantized, because pruning can make an int8 model slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gracile.records import (
    COMPRESSED,
    INT8_ONLY,
    ORIGINAL,
    Comparison,
    Headline,
    Proof,
    Ratio,
    bytes_text,
    count_text,
    label,
    number_text,
    ratio_text,
    runtime_text,
)

FLOAT_BITS = 32
APART = 0.5  # points between runtimes that are more than rounding


@dataclass(frozen=True)
class Verdict:
    """Sentences on what got worse, then on what got better or stayed."""

    worse: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them, worse first."""
        return (*self.worse, *self.rest)


def verdict(
    *,
    before: Headline,
    after: Headline,
    comparison: Comparison | None,
    ratios: Sequence[Ratio],
    runtimes: Sequence[str],
    accuracies: Mapping[str, float] | None = None,
    proofs: Sequence[Proof] = (),
    kernels: Sequence[dict[str, Any]] = (),
    kernels_of: str = "",
) -> Verdict:
    """Judge a run from its figures alone.

    Args:
        before: The original model.
        after: The deployed file.
        comparison: Paired comparison of their predictions.
        ratios: Paired speed ratios between candidates named by :func:`gracile.records.label`.
        runtimes: Runtimes that were measured.
        accuracies: Accuracy of the deployed file in each runtime, in percent.
        proofs: What had to hold exactly.
        kernels: Rows of :func:`gracile.export.kernels`: what ran for each operation of the file.
        kernels_of: Where that was; ONNX Runtime where not given.

    Returns:
        The sentences, what got worse apart.
    """
    worse: list[str] = []
    rest: list[str] = []
    for is_worse, sentence in (
        *_failed_proofs(proofs),
        *_accuracy(before, after, comparison),
        *_runtimes_differ(accuracies or {}),
        *_against_int8_only(ratios, runtimes, after.batch),
        *_against_original(ratios, runtimes, after.batch),
        *_headline_speed(before, after),
        *_smaller("The file", before.size_bytes, after.size_bytes, bytes_text),
        *_smaller("The number of multiply-adds", before.macs, after.macs, count_text),
        *_float_kernels(kernels, kernels_of or "ONNX Runtime"),
        *_held_proofs(proofs),
    ):
        (worse if is_worse else rest).append(sentence)
    return Verdict(tuple(worse), tuple(rest))


Finding = tuple[bool, str]


def _failed_proofs(proofs: Sequence[Proof]) -> Iterable[Finding]:
    failed = [proof.name for proof in proofs if not proof.passed]
    if failed:
        yield True, f"{len(failed)} of {len(proofs)} proofs failed: {', '.join(failed)}."


def _held_proofs(proofs: Sequence[Proof]) -> Iterable[Finding]:
    if proofs and all(proof.passed for proof in proofs):
        yield False, f"All {len(proofs)} proofs of the surgery hold on this model."


def _accuracy(before: Headline, after: Headline, comparison: Comparison | None) -> Iterable[Finding]:
    change = f"from {before.accuracy:.1f} to {after.accuracy:.1f} % on {after.n:,} test images"
    if comparison is None:
        return
    interval = f"95 % interval of the difference {comparison.low:+.1f} to {comparison.high:+.1f} points"
    agreement = f"{comparison.agreement:.1f} % of the predictions are the same"
    if comparison.high < 0:
        yield True, f"Accuracy fell {change} ({interval}); {agreement}."
    elif comparison.low > 0:
        yield False, f"Accuracy rose {change} ({interval}); {agreement}."
    else:
        yield False, f"Accuracy went {change}, within the noise ({interval}); {agreement}."


def _runtimes_differ(accuracies: Mapping[str, float]) -> Iterable[Finding]:
    if accuracies and max(accuracies.values()) - min(accuracies.values()) > APART:
        told = ", ".join(f"{value:.1f} % in {runtime_text(name)}" for name, value in accuracies.items())
        yield True, f"Accuracy depends on the runtime: {told}."


def _against_int8_only(ratios: Sequence[Ratio], runtimes: Sequence[str], headline: int) -> Iterable[Finding]:
    for runtime in runtimes:
        found = _pairs(ratios, label(COMPRESSED, runtime), label(INT8_ONLY, runtime))
        slow = [ratio for ratio in found if ratio.high < 1]
        if slow:
            yield (
                True,
                f"In {runtime_text(runtime)} the compressed model is slower than the original only "
                f"quantized to int8, {_list(slow)}: there, making it narrower did not pay.",
            )
        fast = [ratio for ratio in found if ratio.low > 1 and (not slow or ratio.batch == headline)]
        if found and not slow and not fast:
            yield (
                False,
                f"In {runtime_text(runtime)} the spread does not let one say whether the compressed model is "
                f"faster than the original only quantized to int8, {_list(found)}.",
            )
        if fast:
            yield (
                False,
                f"In {runtime_text(runtime)} the compressed model is faster than the original only quantized "
                f"to int8, {_list(fast)}.",
            )


def _against_original(ratios: Sequence[Ratio], runtimes: Sequence[str], headline: int) -> Iterable[Finding]:
    for runtime in runtimes:
        found = _pairs(ratios, label(COMPRESSED, runtime), label(ORIGINAL, runtime))
        slow = [ratio for ratio in found if ratio.high < 1]
        unclear = [ratio for ratio in found if ratio.low <= 1 <= ratio.high]
        fast = [ratio for ratio in found if ratio.low > 1]
        name = runtime_text(runtime)
        if slow:
            yield True, f"In {name} the compressed model is slower than the original, {_list(slow)}."
        if unclear:
            yield (
                False,
                f"In {name} the spread does not let one say whether the compressed model is faster than the "
                f"original, {_list(unclear)}.",
            )
        if fast:
            yield False, f"In {name} the compressed model is faster than the original, {_list(fast)}."


def _headline_speed(before: Headline, after: Headline) -> Iterable[Finding]:
    if not before.images_per_s or not after.images_per_s or before.runtime == after.runtime:
        return
    ratio = after.images_per_s / before.images_per_s
    yield (
        ratio < 1,
        f"{number_text(after.images_per_s)} images/s in {runtime_text(after.runtime)} against "
        f"{number_text(before.images_per_s)} of the original in {runtime_text(before.runtime)}, both at "
        f"batch {after.batch}: {ratio_text(ratio)}.",
    )


def _smaller(what: str, before: int, after: int, text: Any) -> Iterable[Finding]:
    if not before or not after:
        return
    if after == before:
        yield False, f"{what} stayed at {text(before)}."
        return
    verb = "shrank" if after < before else "grew"
    yield (
        after > before,
        f"{what} {verb} from {text(before)} to {text(after)} ({ratio_text(after / before)}).",
    )


def _float_kernels(kernels: Sequence[dict[str, Any]], place: str) -> Iterable[Finding]:
    asked = [row for row in kernels if row["bits"] is not None and row["bits"] < FLOAT_BITS]
    floating = [str(row["layer"]) for row in asked if not row["integer"]]
    if floating:
        some = ", ".join(floating[:4]) + (", ..." if len(floating) > 4 else "")
        count = f"{len(floating)} of {len(asked)} quantized layers"
        yield True, f"{count} did not run in integers in {place}: {some}."
    elif asked:
        yield False, f"All {len(asked)} quantized layers ran in integers in {place}."


def _pairs(ratios: Sequence[Ratio], candidate: str, reference: str) -> list[Ratio]:
    return [ratio for ratio in ratios if (ratio.candidate, ratio.reference) == (candidate, reference)]


def _list(ratios: Iterable[Ratio]) -> str:
    return ", ".join(
        f"{ratio_text(r.ratio)} at batch {r.batch} ({number_text(r.low)} to {number_text(r.high)})"
        for r in sorted(ratios, key=lambda r: r.batch)
    )
