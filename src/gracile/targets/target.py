"""Facts about runtimes that decide which widths and number formats pay.

Source: measured, not quoted. Widths: ``python -m benchmarks.widths`` (see decision 0006). Number formats: the
tests build a convolution in each listed format and find the integer kernel in what the runtime made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Integer = Literal["uint8", "int8"]


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """A pair of number formats that a runtime multiplies in integers; ``note`` says what it costs there."""

    activation: Integer
    weight: Integer
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a model is deployed.

    Args:
        name: Key in :data:`TARGETS`.
        runtime: Name of the runtime in ``gracile bench --runtime``.
        title: For people.
        file: What it loads; ``""`` for a module in memory.
        channel_multiple: Convolutions whose width is a multiple of this do the most multiply-adds a second.
        channel_floor: Narrowing an int8 convolution below this width makes it slower; 1 where narrower is
            always faster.
        integers: Formats that run in integer kernels, the best first, empty where everything runs in floating
            point.
        adds_pairs: On x86 without VNNI its kernels for signed weights add products in pairs of 16 bits.
    """

    name: str
    runtime: str
    title: str
    file: str
    channel_multiple: int
    channel_floor: int
    integers: tuple[IntegerFormat, ...]
    adds_pairs: bool = False

    def useful_width(self, width: int, available: int) -> int:
        """Round ``width`` up to one that pays, never above ``available``.

        Example:
            >>> TARGETS["onnxruntime-cpu"].useful_width(9, available=64)
            16
            >>> TARGETS["onnxruntime-cpu"].useful_width(3, available=12)
            12
        """
        wanted = max(width, self.channel_floor)
        return min(-(-wanted // self.channel_multiple) * self.channel_multiple, available)

    @property
    def encoding(self) -> IntegerFormat | None:
        """The format to write integers in, ``None`` where none runs in integers.

        Example:
            >>> TARGETS["onnxruntime-cpu"].encoding
            IntegerFormat(activation='uint8', weight='int8', note='')
        """
        return next(iter(self.integers), None)

    def remarks(
        self,
        bits: Iterable[tuple[int, int]],
        written: IntegerFormat | None = None,
        *,
        overflowing: int = 0,
    ) -> tuple[str, ...]:
        """What is slower than one might hope, or not executed in integers, in plain sentences.

        Args:
            bits: Of the weights and of what is read, one pair for each quantized layer.
            written: The format that the file holds; ``None`` for :attr:`encoding`.
            overflowing: Layers in which two products may exceed 16 bits.

        Example:
            >>> TARGETS["openvino-cpu"].remarks([(8, 8)])
            ()
            >>> TARGETS["torch-cpu"].remarks([(8, 8)])[0][:54]
            'PyTorch, eager, on a processor has no integer kernels '
        """
        pairs = list(bits)
        if not pairs:
            return ()
        if self.encoding is None:
            return (
                f"{self.title} has no integer kernels for these layers: the quantized model is simulated in "
                "floating point, slower than the float model.",
            )
        found = []
        written = written or self.encoding
        known = [f for f in self.integers if (f.activation, f.weight) == (written.activation, written.weight)]
        if not known:
            found.append(
                f"{self.title} runs {written.activation} activations with {written.weight} weights in "
                f"floating point; {self.encoding.activation} with {self.encoding.weight} runs in integers."
            )
        found += [f"{self.title}: {f.note}" for f in known if f.note]
        if overflowing and self.adds_pairs and written.weight == "int8":
            found.append(
                f"{self.title}: on x86 without VNNI (before Cascade Lake, Alder Lake and Zen 4) sums of two "
                f"products may overflow in {overflowing} of {len(pairs)} layers and results come out wrong; "
                "quantize with reduce_range, which takes half the range of 8-bit weights, to deploy there."
            )
        fewer = sum(min(pair) < 8 for pair in pairs)
        if fewer and known:
            found.append(
                f"{self.title} computes every width up to 8 bits in its 8-bit kernels: the fewer bits of "
                f"{fewer} of {len(pairs)} layers make this file neither faster nor smaller than 8 bits would."
            )
        return tuple(found)


_U8S8 = IntegerFormat(activation="uint8", weight="int8")
_S8S8 = IntegerFormat(activation="int8", weight="int8")
_SLOW_S8S8 = IntegerFormat(
    activation="int8",
    weight="int8",
    note="signed activations were measured 2.3 times slower than unsigned ones, since no ReLU is folded "
    "into them.",
)
_U8U8 = IntegerFormat(activation="uint8", weight="uint8")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="onnxruntime-cpu",
            runtime="ort",
            title="ONNX Runtime on a processor",
            file=".onnx",
            channel_multiple=16,
            channel_floor=16,
            integers=(_U8S8, _U8U8, _SLOW_S8S8),
            adds_pairs=True,
        ),
        Target(
            name="openvino-cpu",
            runtime="openvino",
            title="OpenVINO on a processor",
            file=".onnx",
            channel_multiple=16,
            channel_floor=1,
            integers=(_U8S8, _S8S8),
            adds_pairs=True,
        ),
        Target(
            name="torch-cpu",
            runtime="torch",
            title="PyTorch, eager, on a processor",
            file="",
            channel_multiple=1,
            channel_floor=1,
            integers=(),
        ),
    )
}
