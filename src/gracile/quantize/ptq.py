"""Static post-training quantization: ranges from a few unlabelled batches, then integers.

Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, arXiv
1806.08342, section 3; biases are in 32 bits with the scale of the accumulator (Jacob et al., arXiv
1712.05877, section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import replace

import torch
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedModel
from gracile.observe import Calibration
from gracile.records import QuantPlan

from .activations import edge_grids
from .bits import layer_bits
from .calibration import float32_batches
from .data_free import believed_grids, round_without_data
from .dynamic import dynamic_grids
from .lower import lower
from .model import assemble
from .prepare import prepare_
from .rescue.bias_correction import bias_shifts, output_error, split_images
from .rescue.residual_expansion import kept_grids
from .rounding import Site, default_rounding
from .scheme import W8A8, Scheme
from .units import find_units
from .weights import check_finite, shifted, weight_grids


@torch.inference_mode(False)
@torch.enable_grad()  # roundings learn, also for a caller that wants no gradients
def ptq(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: Calibration | None = None,
    scheme: Scheme = W8A8,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> QuantizedModel:
    """Quantize a trained model with the ranges that calibration batches show, or without any data.

    With calibration batches, fold normalisations first: one that is left runs in float and is recorded in
    ``plan.skipped``. Without, leave them in: they hold all that is known about the data. They are folded
    here, their means and deviations carried through the graph (:class:`DataFree`), and a rounding that needs
    data is replaced by :class:`SQuant`.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was. What is quantized is a float32
            copy of it, where it lies.
        inputs: Example inputs, any batch size.
        calibration: Batches of unlabelled inputs, the model's own preparation applied: tensors or, for
            several inputs, tuples of them; or one tensor. ``None`` for none: ranges come from batch norms.
            ``()`` will do for ``scheme.dynamic`` with rounding to the nearest.
        scheme: Bits, granularity, symmetry, range estimators.
        progress: Told how many blocks of how many are done, where block reconstruction is the default.

    Raises:
        BadArgument: ``calibration`` is empty, or not what the model takes.
        NonFiniteError: Weights or activations hold NaN or infinity; the layer is named.
        CaptureError: ``torch.export`` refuses the model.
        UnsupportedOperation: Without data: the model has no batch norm, or an operation that means and
            deviations cannot be carried through.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> images = torch.randn(16, 3, 8, 8)
        >>> quantized = ptq(net, (images[:1],), images.split(8))
        >>> [edge.node for edge in quantized.plan.edges]
        ['input_1', 'relu', 'conv2d_1']
        >>> bool((quantized(images) - net(images)).abs().max() < 0.05)
        True
    """
    without = calibration is None and not scheme.dynamic
    rounding = scheme.rounding
    assert not isinstance(rounding, str)  # Scheme looks names up
    reads = rounding is None or rounding.needs_data
    given = () if calibration is None else calibration
    empty = isinstance(given, Sized) and not len(given)
    if scheme.dynamic and empty and (reads or scheme.bias_correction):
        raise BadArgument("calibration", wanted="at least one input", found="none",
                          do="Round to the nearest, without bias correction.")  # fmt: skip
    spared = without or (scheme.dynamic and empty)
    batches = [] if spared else list(float32_batches(given, model, len(inputs)))
    if without:
        scheme = replace(scheme, weight_range=scheme.data_free.weight_range)
    graph = lower(model, inputs)
    work = prepare_(graph, inputs, batches, scheme, without=without)
    units = find_units(graph)
    check_finite(graph, units)
    bits = layer_bits(units, scheme)
    if without:
        edges = believed_grids(work, scheme, bits)
    else:
        edges = () if scheme.dynamic else edge_grids(graph, units, batches, scheme, bits)
    found_by = "of each batch" if scheme.dynamic else scheme.activation_range
    plan = QuantPlan(
        weights=kept_grids(weight_grids(graph, units, edges, scheme, bits), work.prepared),
        edges=edges,
        estimator=f"weights {scheme.weight_range}, activations {found_by}",
        skipped=tuple(dict.fromkeys(units.skipped)),
        dynamic=dynamic_grids(units, bits) if scheme.dynamic else (),
        prepared=work.prepared,
    )
    site = Site(graph=graph, units=units, batches=batches)
    if without:
        return assemble(graph, round_without_data(plan, site, work, scheme))
    plan = (rounding or default_rounding(plan, progress)).round(plan, site)
    quantized = assemble(graph, plan)
    if not scheme.bias_correction:
        return quantized
    learn, judge = split_images(batches)
    shifts = bias_shifts(graph, quantized.network, units, learn)
    plan = replace(plan, weights=tuple(shifted(w, shifts.get(w.layer, ())) for w in plan.weights))
    corrected = assemble(graph, plan)
    better = output_error(corrected, judge) < output_error(quantized, judge)
    return corrected if better else quantized
