"""A model into an archive: its tensors, and the graph that runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from gracile.errors import UnsupportedOperation
from gracile.graph import capture_free_batch
from gracile.nn import QuantizedModel
from gracile.records import Artifact, QuantPlan, sha256, to_plain

from .archive import Header, write_archive
from .graphs import graph_to_plain
from .modules import is_path, modules_to_plain


def save(
    model: nn.Module,
    path: Path | str,
    inputs: tuple[Tensor, ...] | None = None,
    *,
    plans: Mapping[str, object] | None = None,
) -> Artifact:
    """Write a model as one small file that :func:`load` gives back exactly.

    Nothing is lost: every tensor comes back bit by bit. What makes the file small is done before -
    quantization, codebooks, zeros - and found here by itself.

    Args:
        model: A :class:`~gracile.nn.QuantizedModel`, a captured graph module, or any module; left as it was.
        path: File to write.
        inputs: Example inputs, for a module that is not captured yet. Without them only the weights are
            stored, to be loaded into the same class.
        plans: Records to store beside, such as the plan that pruned the model.

    Returns:
        Path, size and checksum of the file.

    Raises:
        CaptureError: ``torch.export`` refuses the model.
        UnsupportedOperation: The model calls what archives may not call, or a name in it is one that
            archives may not hold.
        StorageError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
        >>> _ = net[0].weight.data.sign_()
        >>> artifact = save(net, Path(tempfile.mkdtemp()) / "net.gracile", (torch.zeros(1, 3, 8, 8),))
        >>> artifact.size_bytes < 1000
        True
    """
    path = Path(path)
    header = Header(producer=f"gracile {_version()}", model=type(model).__name__)
    header = replace(header, plans={name: to_plain(plan) for name, plan in (plans or {}).items()})
    if isinstance(model, QuantizedModel):
        header, network = replace(header, quantized=plain_plan(model.plan)), model.network
        tensors = _constants(network) | _tensors(network)
    elif isinstance(model, fx.GraphModule):
        network, tensors = model, _constants(model) | _tensors(model)
    elif inputs is None:
        network, tensors = None, _tensors(model)
    else:
        network = capture_free_batch(model, inputs)
        tensors = _constants(network) | _tensors(model)
    if network is not None:
        _check_names(tensors)
        header = replace(header, graph=graph_to_plain(network), parts=modules_to_plain(network))
    owner = model.network if isinstance(model, QuantizedModel) else model
    parameters = frozenset(name for name, _ in owner.named_parameters(remove_duplicate=False))
    write_archive(path, header, tensors, parameters)
    return Artifact(name=path.name, path=path.name, sha256=sha256(path), size_bytes=path.stat().st_size)


def plain_plan(plan: QuantPlan) -> dict[str, Any]:
    """A plan as JSON data, without what the packed tensors hold: scales, zero points, roundings, biases."""
    data: dict[str, Any] = to_plain(plan)
    for weight in data["weights"]:
        for name, empty in (("scale", []), ("zero_point", []), ("bias_shift", []), ("moved", "")):
            weight[name] = empty
    for edge in data["edges"]:
        edge["scale"], edge["zero_point"] = 0.0, 0
    return data


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those outside the state dict too."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return {k: v.detach() for k, v in {**named, **dict(model.named_buffers(remove_duplicate=False))}.items()}


def _check_names(names: Iterable[str]) -> None:
    """Raise where :func:`load` would refuse the name of a tensor, or of a module above it."""
    if wrong := [name for name in names if not is_path(name)]:
        raise UnsupportedOperation(
            wrong[0],
            wanted="at most 41 parts of letters, digits, spaces and _+,/:=@()[]-, none a keyword of Python",
            found=repr(wrong[0])[:80],
            do="Rename the module, or leave inputs out to store the weights alone.",
        )


def _constants(network: fx.GraphModule) -> dict[str, Tensor]:
    """Everything that the graph reads, numbers written in the code too."""
    found = {}
    for node in network.graph.nodes:
        if node.op == "get_attr":
            owner, _, last = str(node.target).rpartition(".")
            value = getattr(network.get_submodule(owner), last)
            assert isinstance(value, Tensor)
            found[str(node.target)] = value.detach()
    return found


def _version() -> str:
    try:
        return version("gracile")
    except PackageNotFoundError:
        return "from source"
