"""A captured graph with quantizers in it, and the plan that it follows."""

from __future__ import annotations

from torch import Tensor, fx, nn

from gracile.records import QuantPlan


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

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the simulation; inputs and outputs are those of the captured model."""
        out: Tensor = self.network(*inputs)
        return out
