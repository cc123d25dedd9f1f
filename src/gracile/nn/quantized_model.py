"""A captured graph with quantizers in it, and the plan that it follows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from gracile.records import QuantPlan

_OTHERS = (torch.float16, torch.bfloat16, torch.float64)


def in_float32(inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Inputs as a quantized graph takes them, whatever the precision of the model that it was made from.

    Example:
        >>> [x.dtype for x in in_float32((torch.zeros(1, dtype=torch.float16), torch.tensor([1])))]
        [torch.float32, torch.int64]
    """
    return tuple(x.float() if x.dtype in _OTHERS else x for x in inputs)


class QuantizedModel(nn.Module):
    """A quantized model that runs in PyTorch and exports to ONNX as integers.

    Attributes:
        plan: What is quantized how, as plain data.
        network: The captured graph with quantizers in it.
        float_graph: The captured graph without them.
    """

    def __init__(self, float_graph: fx.GraphModule, graph: fx.GraphModule, plan: QuantPlan) -> None:
        super().__init__()
        self.network = graph  # not "graph", which exported programs have too
        self.plan = plan
        self.__dict__["float_graph"] = float_graph  # not a part: it neither trains, saves nor exports
        self.eval()

    float_graph: fx.GraphModule

    @property
    def input_count(self) -> int:
        """How many inputs it takes."""
        return len(self.network.graph.find_nodes(op="placeholder"))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the simulation; inputs and outputs are those of the captured model, in float32."""
        out: Tensor = self.network(*in_float32(inputs))
        return out
