"""A model as a graph module of functional ATen operations that takes any batch size.

``gracile.graph.capture`` fixes every shape; here the batch stays free, since calibration, accuracy and the
deployed file all use other batch sizes than the example input.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from gracile.errors import CaptureError

from .capture import evaluating
from .regions import inline_regions
from .rules import packet


def capture_free_batch(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """Capture a copy of ``model`` in evaluation mode, its parameters under their own names.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs whose first axis is the batch.

    Raises:
        CaptureError: ``torch.export`` refuses the model, or its code holds the batch size as a number.

    Example:
        >>> module = capture_free_batch(nn.Sequential(nn.Linear(4, 2)), (torch.zeros(1, 4),))
        >>> module(torch.zeros(5, 4)).shape, sorted(module.state_dict())
        (torch.Size([5, 2]), ['0.bias', '0.weight'])
    """
    model = copy.deepcopy(model)
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = _free(model, inputs)
            inline_regions(program.graph_module)
            module = program.module(check_guards=False)
            if not _make_functional(module):
                module = program.run_decompositions({}).module(check_guards=False)  # general, and slow
        except CaptureError:
            raise
        except Exception as error:
            raise CaptureError(
                type(model).__name__,
                wanted="a model that torch.export captures with a free batch size for inputs of shape "
                + ", ".join(str(tuple(x.shape)) for x in inputs),
                found=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}",
                do="Check the input shape; branches on tensor values must become torch.cond or go.",
            ) from error
    assert isinstance(module, fx.GraphModule)
    return module


def _free(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The exported model, its batch free.

    Source code is interpreted only where it has to be: a call of ``len`` gives Python a number otherwise.
    """
    # A batch of one would be taken for a constant, so the example is doubled.
    wide = tuple(torch.cat([x, x]) if x.dim() and x.shape[0] == 1 else x for x in inputs)
    program = _export(model, wide, strict=False)
    if not (size := _constant_batch(program, wide)):
        return program
    reason = None
    try:
        program = _export(model, wide, strict=True)
    except Exception as error:
        reason = error
    if reason is None and not _constant_batch(program, wide):
        return program
    raise CaptureError(
        type(model).__name__,
        wanted="a model that takes any number of inputs at once",
        found=f"code that turns the batch size into the number {size}",
        do="Write x.shape[0] in place of len(x) and of a number; leave batch sizes out of branches.",
    ) from reason


def _export(model: nn.Module, wide: tuple[Tensor, ...], *, strict: bool) -> ExportedProgram:
    free = tuple({0: Dim.AUTO} if x.dim() else None for x in wide)
    return torch.export.export(model, wide, dynamic_shapes=free, strict=strict)


def _constant_batch(program: ExportedProgram, wide: tuple[Tensor, ...]) -> int:
    """The batch size of the example where the export holds only for it, else 0."""
    given = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    size = next((x.shape[0] for x in wide if x.dim()), 0)
    for name, x in zip(program.graph_signature.user_inputs, wide, strict=True):
        if x.shape[:1] == (size,) and given[name].shape[0].node.maybe_as_int() is not None:
            return size
    return 0


def _make_functional(module: fx.GraphModule) -> bool:
    """Write in-place calls (``relu_``) out of place; ``False`` where what they change has other names."""
    order = {node: i for i, node in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        if not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable):
            continue
        base = node.args[0] if node.args else None
        plain = getattr(torch.ops.aten, packet(node).rstrip("_"), None)
        overload = getattr(plain, node.target._overloadname, None)
        if not isinstance(base, fx.Node) or overload is None or overload._schema.is_mutable:
            return False
        if _is_view(base) or any(_is_view(user) for user in base.users if user is not node):
            return False
        later = [user for user in base.users if order[user] > order[node]]
        for user in later:
            user.replace_input_with(base, node)
        node.target = overload
    module.recompile()
    return True


def _is_view(node: fx.Node) -> bool:
    if node.op == "call_function" and packet(node) == "getitem":  # a part of what a split gives
        return _is_view(node.all_input_nodes[0])
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return False
    return any(out.alias_info is not None for out in node.target._schema.returns)
