"""Facts about runtimes that decide which widths and number formats pay.

Source: measured, not quoted. Widths: ``python -m benchmarks.widths`` (see decision 0006). Number formats: the
tests build a convolution in each listed format and find the integer kernel in what the runtime made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Integer = Literal["uint8", "int8"]


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """A pair of number formats that a runtime multiplies in integers."""

    activation: Integer
    weight: Integer


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
        integers: Formats that run in integer kernels, empty where everything runs in floating point.
    """

    name: str
    runtime: str
    title: str
    file: str
    channel_multiple: int
    channel_floor: int
    integers: tuple[IntegerFormat, ...]

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


_U8S8 = IntegerFormat(activation="uint8", weight="int8")
_S8S8 = IntegerFormat(activation="int8", weight="int8")
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
            integers=(_U8S8, _S8S8, _U8U8),
        ),
        Target(
            name="openvino-cpu",
            runtime="openvino",
            title="OpenVINO on a processor",
            file=".onnx",
            channel_multiple=16,
            channel_floor=1,
            integers=(_U8S8, _S8S8),
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
