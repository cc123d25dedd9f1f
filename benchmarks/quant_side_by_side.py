"""Side by side with NNCF, ONNX Runtime and Brevitas: same weights, same calibration, same test images.

ResNet-56 with batch norm folded is quantized by each tool on the same unlabelled training images and judged
on the 1,000 test images, each tool in its own way of running: Gracile and ``quantize_static`` in ONNX
Runtime, NNCF in OpenVINO, Brevitas as its simulation in PyTorch. Tools do what their own documentation
recommends: ``quantize_static`` as in ``benchmarks.int8``, NNCF's ``quantize`` with its fast bias correction,
Brevitas's post-training example with graph equalization, GPTQ and bias correction. Brevitas gives the first
and last layers the bits of all others, so Gracile appears twice below 8 bits: with those layers at 8 bits,
its default, and "all layers alike". Brevitas also rounds the residual sums to those bits, which Gracile keeps
at 8; "brevitas, sums in float" is its backend that rounds only what layers read.

NNCF and Brevitas are optional: a tool that is not installed is named, and its rows are left out.
"""

from __future__ import annotations

import argparse
import copy
import operator
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cells import Cells
from benchmarks.int8 import CHUNK, Reader, folded, weights
from benchmarks.rows import Row, benchmark_main
from gracile import export, measure, quantize, zoo
from gracile.data import load_data

BITS = ((8, 8), (4, 8), (4, 4))
NEEDS = {"nncf": ("nncf", "openvino"), "brevitas": ("brevitas", "brevitas_examples")}
Predict = Callable[[Any], Any]


def by_gracile(model: nn.Module, images: Tensor, w: int, a: int, folder: Path, *, alike: bool) -> Predict:
    """The library's defaults, executed in integers by ONNX Runtime."""
    ends = quantize.Bits() if alike else quantize.Bits(weights=8, activations=8)
    scheme = quantize.Scheme(weight_bits=w, activation_bits=a, ends=ends)
    quantized = quantize.ptq(model, (images[:1],), images.split(CHUNK), scheme)
    path = folder / f"gracile_w{w}a{a}{'_alike' if alike else ''}.onnx"
    export.onnx(quantized, (images[:1],), path)
    return measure.ort_runner(path)


def by_onnxruntime(model: nn.Module, images: Tensor, w: int, a: int, folder: Path) -> Predict:
    """``quantize_static`` behind ``quant_pre_process``: QDQ, per channel, unsigned activations."""
    export.onnx(model, (images[:1],), folder / "float.onnx")
    quant_pre_process(str(folder / "float.onnx"), str(folder / "prepared.onnx"))
    quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "ort.onnx"),
        Reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return measure.ort_runner(folder / "ort.onnx")


def by_nncf(model: nn.Module, images: Tensor, w: int, a: int, folder: Path) -> Predict:
    """``nncf.quantize`` on the OpenVINO model, executed by OpenVINO with floats in 32 bits."""
    import nncf
    import openvino

    export.onnx(model, (images[:1],), folder / "float.onnx")
    core = openvino.Core()
    data = nncf.Dataset([images[i : i + 1].numpy() for i in range(len(images))])
    quantized = nncf.quantize(core.read_model(folder / "float.onnx"), data, subset_size=len(images))
    compiled = core.compile_model(quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0]


def by_brevitas(
    model: nn.Module, images: Tensor, w: int, a: int, folder: Path, *, backend: str = "fx"
) -> Predict:
    """The post-training example of Brevitas: equalize, calibrate, GPTQ, correct biases; simulated."""
    from brevitas.graph.quantize import preprocess_for_quantize
    from brevitas_examples.imagenet_classification.ptq import ptq_common

    batches = [(batch, None) for batch in images.split(CHUNK)]
    prepared = preprocess_for_quantize(_traced(model), equalize_iters=20, relu6_to_relu=False)
    quantized = ptq_common.quantize_model(
        prepared,
        backend=backend,
        weight_bit_width=w,
        act_bit_width=a,
        bias_bit_width=32,
        weight_quant_granularity="per_channel",
        act_quant_percentile=99.999,
        act_quant_type="asym",
        scale_factor_type="float_scale",
        quant_format="int",
    )
    ptq_common.calibrate(batches, quantized)
    with torch.no_grad():
        quantized(images[:1])  # GPTQ wants weight quantizers that ran once
    ptq_common.apply_gptq(batches, quantized, act_order=True)
    ptq_common.apply_bias_correction(batches, quantized)
    quantized.eval()

    def predict(batch: Any) -> Any:
        with torch.no_grad():
            return quantized(torch.from_numpy(np.asarray(batch))).numpy()

    return predict


def _traced(model: nn.Module) -> torch.fx.GraphModule:
    """The same function in forms that Brevitas 0.13 takes.

    It fails at ``mean(dim=(2, 3))``, which becomes ``mean((2, 3))``, and cannot slice a quantized tensor, so
    that ``x[:, :, ::2, ::2]`` becomes a maximum over windows of one.
    """
    traced = torch.fx.symbolic_trace(copy.deepcopy(model).eval())
    for node in list(traced.graph.nodes):
        if node.op == "call_method" and node.target == "mean" and "dim" in node.kwargs:
            node.args, node.kwargs = (node.args[0], tuple(node.kwargs["dim"])), {}
        elif node.target is operator.getitem and isinstance(node.args[1], tuple):
            stride = node.args[1][-1].step
            traced.add_submodule(node.name, nn.MaxPool2d(1, stride))
            with traced.graph.inserting_before(node):
                new = traced.graph.call_module(node.name, (node.args[0],))
            node.replace_all_uses_with(new)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


TOOLS: dict[str, tuple[Callable[..., Predict], tuple[tuple[int, int], ...]]] = {
    "gracile": (partial(by_gracile, alike=False), BITS),
    "gracile, all layers alike": (partial(by_gracile, alike=True), BITS[1:]),
    "onnxruntime": (by_onnxruntime, BITS[:1]),
    "nncf": (by_nncf, BITS[:1]),
    "brevitas": (by_brevitas, BITS),
    "brevitas, sums in float": (partial(by_brevitas, backend="layerwise"), BITS[-1:]),
}


def missing(tool: str) -> str:
    """What ``tool`` needs and is not installed; empty where all is there.

    Example:
        >>> missing("gracile")
        ''
    """
    return ", ".join(name for name in NEEDS.get(tool.partition(",")[0], ()) if find_spec(name) is None)


def run(parsed: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Quantize with every tool that is there, at every number of bits that it can do."""
    cells, console = Cells(parsed.keep), Console(stderr=True)
    cifar = load_data("cifar10", parsed.data_root)
    images = cifar.calibration(parsed.images)
    resnet = zoo.load_model(
        "gracile:resnet56", weights=weights(parsed.data_root) / "cifar10_resnet56.safetensors"
    )
    model = folded(resnet, images[:1])
    test, on = cifar.test, "test"
    if parsed.held_out:
        order = torch.randperm(len(cifar.train), generator=torch.Generator().manual_seed(0))
        test, on = cifar.train.subset(order[parsed.images :][: parsed.held_out]), "held-out"
    before, labels = measure.predictions(measure.torch_runner(model), test, 50)
    found = []
    for tool in parsed.tools:
        make, widths = TOOLS[tool]
        if lacking := missing(tool):
            console.print(
                f"{tool} is left out: {lacking} is not installed (pip install {tool.partition(',')[0]})."
            )
            continue
        for w, a in widths:
            name = f"{tool}, W{w}A{a}, {parsed.images} images, {len(labels)} {on} images"
            with console.status(name):
                judge = partial(judged, make, model, images, (w, a), test, before, labels)
                found.append({"tool": tool, "weight_bits": w, "activation_bits": a} | cells.get(name, judge))
    show(found)
    return rows_of(found, len(labels)), found


def judged(
    make: Callable[..., Predict],
    model: nn.Module,
    images: Tensor,
    bits: tuple[int, int],
    test: Any,
    before: Any,
    labels: Any,
) -> dict[str, Any]:
    """Points lost against the float model, with their interval, and the time it took."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        start = time.perf_counter()
        predict = make(model, images, *bits, Path(folder))
        seconds = time.perf_counter() - start
        after, _ = measure.predictions(predict, test, 50)
    compared = measure.compare(before, after, labels)
    return {
        "points_lost": -compared.difference,
        "low": -compared.high,
        "high": -compared.low,
        "same_predictions_percent": compared.agreement,
        "seconds": seconds,
    }


def rows_of(found: list[dict[str, Any]], tests: int) -> list[Row]:
    """Points by which Gracile's defaults are ahead of the best of the others, at every number of bits."""
    rows = []
    for w, a in BITS:
        lost = {
            cell["tool"]: cell["points_lost"]
            for cell in found
            if (cell["weight_bits"], cell["activation_bits"]) == (w, a)
        }
        others = [points for tool, points in lost.items() if not tool.startswith("gracile")]
        if "gracile" in lost and others:
            rows.append(
                Row(
                    id=f"quant_side_by_side.w{w}a{a}.ahead",
                    value=min(others) - lost["gracile"],
                    unit="points",
                    n=tests,
                    must=">= -0.5",
                )
            )
    return rows


def show(found: list[dict[str, Any]]) -> None:
    """Print every tool at every number of bits."""
    table = Table("tool", "bits", "points lost", "95 % interval", "same predictions, %", "seconds")
    for cell in found:
        table.add_row(
            cell["tool"],
            f"W{cell['weight_bits']}A{cell['activation_bits']}",
            f"{cell['points_lost']:.1f}",
            f"{cell['low']:.1f} to {cell['high']:.1f}",
            f"{cell['same_predictions_percent']:.1f}",
            f"{cell['seconds']:.0f}",
        )
    Console(stderr=True).print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes besides ``--json`` and ``--data-root``."""
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument(
        "--held-out", type=int, help="judge on so many training images that did not calibrate, to try things"
    )
    parser.add_argument("--keep", type=Path, help="file that keeps finished cells, so that a run goes on")


if __name__ == "__main__":
    sys.exit(benchmark_main(run, name="quant_side_by_side", arguments=arguments))
