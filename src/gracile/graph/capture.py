"""A model as a graph of ATen operations, captured by ``torch.export``.

Source: PyTorch documentation, ``torch.export`` (non-strict mode): the result holds one graph of functional
ATen calls with shapes, the module stack and the user's source line of every node.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from gracile.errors import CaptureError

from .dead import drop_dead
from .regions import inline_regions

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]+\n(?P<text>[^\n]*)')


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A captured model: the exported program and where each of its nodes comes from."""

    program: ExportedProgram
    inputs: tuple[Tensor, ...]
    _params: dict[str, str] = field(default_factory=dict)
    _constants: dict[str, Tensor] = field(default_factory=dict)

    @property
    def graph(self) -> fx.Graph:
        """The ATen graph; parameters, buffers and inputs are its placeholders."""
        graph: fx.Graph = self.program.graph
        return graph

    def param_of(self, node: fx.Node) -> str | None:
        """State-dict style name of a placeholder that holds a parameter or buffer, else ``None``."""
        return self._params.get(node.name)

    def constant_of(self, node: fx.Node) -> Tensor | None:
        """Value of a placeholder that holds a constant written in the code, else ``None``."""
        return self._constants.get(node.name)

    def module_of(self, node: fx.Node) -> str:
        """Dotted name of the innermost module that ran ``node`` ("" for the model itself)."""
        stack = node.meta.get("nn_module_stack") or {}
        return str(list(stack.values())[-1][0]) if stack else ""

    def source(self, node: fx.Node) -> str:
        """``file:line: text`` of the user's code behind ``node``; frames inside torch are passed over."""
        frames = [m.groupdict() for m in _FRAME.finditer(node.meta.get("stack_trace") or "")]
        own = [f for f in frames if "/torch/" not in f["file"]] or frames
        return f"{own[-1]['file']}:{own[-1]['line']}: {own[-1]['text'].strip()}" if own else ""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` and its parts into evaluation mode; give every part its own mode back on exit."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def capture(model: nn.Module, inputs: tuple[Tensor, ...]) -> Captured:
    """Capture ``model`` as it runs on ``inputs`` in evaluation mode.

    Args:
        model: Any module that ``torch.export`` captures; it is left as it was.
        inputs: Example inputs; a batch of one is enough.

    Raises:
        CaptureError: ``torch.export`` refuses the model, with its reason.

    Example:
        >>> captured = capture(nn.Sequential(nn.Linear(4, 2)), (torch.zeros(1, 4),))
        >>> [str(n.target) for n in captured.graph.nodes if n.op == "call_function"]
        ['aten.linear.default']
    """
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(model, inputs, strict=False)
        except Exception as error:
            raise CaptureError(
                type(model).__name__,
                wanted="a model that torch.export captures for inputs of shape "
                + ", ".join(str(tuple(x.shape)) for x in inputs),
                found=f"{type(error).__name__}: {_first_lines(str(error))}",
                do="Check the input shape; branches on tensor values must become torch.cond or go.",
            ) from error
    inline_regions(program.graph_module)
    drop_dead(program.graph)
    params: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    for spec in program.graph_signature.input_specs:
        name = getattr(spec.arg, "name", "")
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target:
            params[name] = spec.target
        elif spec.kind == InputKind.CONSTANT_TENSOR and spec.target in program.constants:
            value = program.constants[spec.target]
            if isinstance(value, Tensor):
                constants[name] = value
    return Captured(program=program, inputs=inputs, _params=params, _constants=constants)


def _first_lines(text: str, lines: int = 3) -> str:
    return " ".join(line.strip() for line in text.strip().splitlines()[:lines])[:400]
