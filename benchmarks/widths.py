"""Which channel counts pay: time of one int8 convolution, by width, in each runtime.

``python -m benchmarks.widths`` prints multiply-adds a nanosecond for a 3x3 convolution with as many input as
output channels. Where a narrower layer does fewer of them a nanosecond, narrowing pays less than the count of
multiply-adds says, or not at all. The columns of `gracile.targets` come from here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

WIDTHS = (4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64)
BATCH = 16
Run = Callable[[], object]


def chain(width: int, size: int, layers: int, *, quantized: bool) -> onnx.ModelProto:
    """``layers`` convolutions with ReLU, in QDQ form when ``quantized``."""
    rng = np.random.default_rng(0)
    nodes, values = [], [numpy_helper.from_array(np.float32(0.05), "scale")]
    values += [numpy_helper.from_array(np.uint8(0), "zero"), numpy_helper.from_array(np.int8(0), "zero8")]

    def pair(name: str) -> str:
        if not quantized:
            return name
        nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"]))
        return f"{name}_d"

    here = pair("x")
    for layer in range(layers):
        weight = rng.integers(-127, 128, (width, width, 3, 3)).astype(np.int8)
        if quantized:
            values.append(numpy_helper.from_array(weight, f"w{layer}_q"))
            nodes.append(
                helper.make_node("DequantizeLinear", [f"w{layer}_q", "scale", "zero8"], [f"w{layer}"])
            )
        else:
            values.append(numpy_helper.from_array(weight.astype(np.float32) * 0.01, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [here, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        here = pair(f"r{layer}")
    shape = [BATCH, width, size, size]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(here, TensorProto.FLOAT, shape)],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def onnxruntime_run(path: Path, image: np.ndarray) -> Run:
    """The chain in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": image})


def openvino_run(path: Path, image: np.ndarray) -> Run:
    """The chain in OpenVINO on one thread."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer({0: image})


RUNTIMES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def fastest(run: Run, repeats: int) -> float:
    """Seconds of the fastest of ``repeats`` runs: other programs can only make a run slower."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(size: int, layers: int, repeats: int) -> list[tuple[int, dict[str, float]]]:
    """Multiply-adds a nanosecond for each width, runtime and precision."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for width in WIDTHS:
            macs = BATCH * layers * width * width * 9 * size * size
            image = np.random.default_rng(1).random((BATCH, width, size, size), dtype=np.float32)
            speeds = {}
            for quantized in (True, False):
                path = Path(folder) / f"{width}_{quantized}.onnx"
                onnx.save(chain(width, size, layers, quantized=quantized), path)
                for name, start in RUNTIMES.items():
                    label = f"{name} {'int8' if quantized else 'float'}"
                    speeds[label] = macs / fastest(start(path, image), repeats) / 1e9
            found.append((width, speeds))
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.widths", description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    found = measure(arguments.size, arguments.layers, arguments.repeats)
    table = Table(title=f"multiply-adds a nanosecond, {arguments.size} x {arguments.size}, one thread")
    table.add_column("channels", justify="right")
    for name in found[0][1]:
        table.add_column(name, justify="right")
    for width, speeds in found:
        table.add_row(str(width), *[f"{speed:.1f}" for speed in speeds.values()])
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
