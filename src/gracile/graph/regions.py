"""What export puts around the operations that a model's code asked for: regions and checks of types.

``torch.autocast`` and ``torch.enable_grad`` inside a forward pass become calls of sub-graphs, whose layers no
search would see. Here their operations move into the graph. Casts of autocast happen inside its kernels, so
a graph without the region computes in the types of its tensors.
"""

from __future__ import annotations

from typing import Any

from torch import fx

_REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Where the sub-graph stands among the arguments; what it reads comes behind it."""
_CHECK = "_assert_tensor_metadata"


def inline_regions(module: fx.GraphModule) -> None:
    """Put the operations of such regions where the regions stand and take the checks out, in place.

    Example:
        >>> import torch
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         with torch.autocast("cpu", enabled=False):
        ...             return x.double().sum()
        >>> module = torch.export.export(Net(), (torch.ones(2),)).graph_module
        >>> inline_regions(module)
        >>> [n.name for n in module.graph.nodes if n.op == "call_function"]
        ['to', 'sum_2']
    """
    graph: fx.Graph = module.graph
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", "").partition(".")[0]
        if name == _CHECK:
            graph.erase_node(node)
        elif name in _REGIONS:
            _inline(module, node, _REGIONS[name])
    module.recompile()


def _inline(module: fx.GraphModule, region: fx.Node, position: int) -> None:
    held: Any = region.args[position]
    inner = getattr(module, held.target)
    inline_regions(inner)
    reads = [node for node in inner.graph.nodes if node.op == "placeholder"]
    given: dict[fx.Node, Any] = dict(zip(reads, region.args[position + 1 :], strict=True))
    with module.graph.inserting_before(region):
        outputs: Any = module.graph.graph_copy(inner.graph, given)
    for part in list(region.users):  # each takes one output
        part.replace_all_uses_with(outputs[part.args[1]])
        module.graph.erase_node(part)
    module.graph.erase_node(region)
    if not held.users:
        module.graph.erase_node(held)
