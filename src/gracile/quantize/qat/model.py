"""A network that trains with quantized weights and activations, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, fx, nn

from gracile.errors import BadArgument
from gracile.nn import QuantizedModel
from gracile.nn.quantized_model import in_float32
from gracile.records import MaskPlan, Preparation, Skipped

from ..model import assemble
from .activations import TrainableActivation
from .batch_norm import QatLayer
from .convert import deployed, write_back
from .weights import WeightQuantizer


class QatModel(nn.Module):
    """A captured graph with trainable quantizers, made by :func:`gracile.quantize.qat.prepare`.

    An ordinary module: any loop, optimizer, autocast, ``torch.compile`` and DDP will do. Evaluation mode
    computes what :meth:`convert` deploys.

    Attributes:
        network: The graph that trains.
        keys: Dotted names of layers in the original to their places in ``network``.
        prepared: What was folded into layers, for the plan of the deployed model.
        skipped: What runs in float, and why.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        float_graph: fx.GraphModule,
        keys: dict[str, str],
        prepared: Preparation,
        skipped: tuple[Skipped, ...],
    ) -> None:
        super().__init__()
        self.network = network
        self.keys = keys
        self.prepared, self.skipped = prepared, skipped
        self.__dict__["float_graph"] = float_graph  # not a part: it neither trains nor saves
        self.eval()

    float_graph: fx.GraphModule

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run with fake quantization; inputs and outputs are those of the captured model, in float32."""
        out: Tensor = self.network(*in_float32(inputs))
        return out

    def train(self, mode: bool = True) -> QatModel:
        """Set the mode of every part; captured graphs refuse to be told."""
        self.training = mode
        for part in self.network.modules():
            part.training = mode
        return self

    @property
    def layers(self) -> dict[str, QatLayer]:
        """Layers that quantize their weights, by dotted name in the original model."""
        found = {name: self.network.get_submodule(key) for name, key in self.keys.items()}
        return {name: layer for name, layer in found.items() if isinstance(layer, QatLayer)}

    @property
    def activations(self) -> dict[str, TrainableActivation]:
        """Quantizers of activations, by name of the captured node (``NAME:layers`` for a second grid)."""
        found = {}
        for key, part in self.network.named_modules():
            if isinstance(part, TrainableActivation):
                found[key.removeprefix("quantizers.").replace("_for_layers", ":layers")] = part
        return found

    def quantize_weights(self, enabled: bool = True) -> None:
        """Switch the rounding of weights on or off."""
        for layer in self.layers.values():
            layer.quantizer.enabled = enabled

    def quantize_activations(self, enabled: bool = True) -> None:
        """Switch the rounding of activations on or off; ranges are observed either way."""
        for quantizer in self.activations.values():
            quantizer.enabled = enabled

    def freeze_norms(self, frozen: bool = True) -> None:
        """Stop (or take up) the statistics of batch norms."""
        for layer in self.layers.values():
            if frozen:
                layer.freeze_()
            else:
                layer.unfreeze_()

    def set_bits(
        self, pattern: str = "*", *, weights: int | None = None, activations: int | None = None
    ) -> None:
        """Change bits in place, without a new capture; learned steps start anew from the present range.

        Args:
            pattern: Names of layers, or a pattern of them.
            weights: Bits of their weights, 1 to 8.
            activations: Bits of what they read, 1 to 8.

        Raises:
            BadArgument: No layer has such a name, or the technique does not have these bits.
        """
        chosen = [layer for name, layer in self.layers.items() if fnmatchcase(name, pattern)]
        if not chosen:
            known = ", ".join(self.layers)
            raise BadArgument(
                "pattern", wanted="names of this model's layers", found=repr(pattern), do=f"They are {known}."
            )
        read = list(dict.fromkeys(part for layer in chosen for part in layer.reads))
        if weights is not None:  # all are asked before any is changed
            _check_bits("weights", [layer.quantizer for layer in chosen], weights)
        if activations is not None:
            _check_bits("activations", read, activations)
            for part in read:
                part.change_bits_(activations)
        if weights is not None:
            for layer in chosen:
                layer.quantizer.change_bits_(weights, layer.before_rounding())

    def named_as_here(self, masks: MaskPlan) -> MaskPlan:
        """Masks of the original's weights, with the names that these have while they train.

        Args:
            masks: From ``gracile.prune.mask_plan``, made for the model that :func:`prepare` was given; its
                zeros have to be in the weights by then.

        Returns:
            What the training hook ``gracile.prune.Masks`` takes for this model.

        Raises:
            BadArgument: A masked parameter is not in this model.
        """
        names = {f"{layer}.{kind}": f"network.{key}.{kind}" for layer, key in self.keys.items()
                 for kind in ("weight", "bias")}  # fmt: skip
        held = {name for name, _ in self.named_parameters()}
        entries = []
        for mask in masks.masks:
            name = names.get(mask.param, f"network.{mask.param}")
            if name not in held:
                raise BadArgument(
                    "masks",
                    wanted=f"a parameter {mask.param} in the captured model",
                    found="none",
                    do="Give the masks that were made for the model that prepare was given.",
                )
            entries.append(replace(mask, param=name))
        return replace(masks, masks=tuple(entries))

    def convert(self) -> QuantizedModel:
        """What is deployed: integers in place of trained weights, as ``ptq`` gives it.

        Weights are exactly those of the evaluation forward pass; biases become 32-bit integers. A ``ttq``
        layer has two scales, so it stays in float and is recorded as skipped.
        """
        with torch.no_grad():
            return assemble(*deployed(self))

    def write_back(self, model: nn.Module) -> nn.Module:
        """Put what was learned into the original: its weights become the deployed values, its norms idle.

        A norm that was folded keeps only the deployed bias (mean 0, variance ``1 - eps``, scale 1), so that
        folding it gives the deployed layer.

        Args:
            model: The model that :func:`prepare` was given, or one of its class; changed in place.

        Returns:
            ``model``.

        Raises:
            BadArgument: A layer with such a name and shape is missing.
        """
        with torch.no_grad():
            return write_back(self, model)

    def float_copy(self) -> fx.GraphModule:
        """A copy of the captured graph, nothing in it quantized or trained."""
        return copy.deepcopy(self.float_graph)


def _check_bits(
    argument: str, quantizers: Sequence[WeightQuantizer | TrainableActivation], bits: int
) -> None:
    for quantizer in quantizers:
        if bits not in quantizer.BITS:
            wanted = f"one of {quantizer.BITS} for {type(quantizer).__name__}"
            raise BadArgument(argument, wanted=wanted, found=f"{bits}")


def zeros(model: QatModel) -> dict[str, float]:
    """Share of each layer's integers that are zero as deployed, by dotted name; 0 to 1.

    Layers without integers (``ttq``) count the zeros of their real weights.
    """
    found = {}
    for name, layer in model.layers.items():
        weight, _ = layer.effective()
        found[name] = float((weight == 0).float().mean())
    return found
