"""An archive into a model that runs, without pickle and without the class that was packed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from gracile.errors import StorageError, WeightsError
from gracile.nn import ActivationQuantizer, QuantizedModel, QuantizedWeight
from gracile.records import Artifact, EdgeQuant, QuantPlan, atomic_bytes, atomic_write, from_plain, sha256

from .archive import MAX_BYTES, Archive, header_json, read_archive
from .graphs import graph_from_plain
from .modules import holder, modules_from_plain
from .streams import broken


def load(path: Path | str, into: nn.Module | None = None, *, max_bytes: int = MAX_BYTES) -> nn.Module:
    """Read an archive: a model in evaluation mode that gives bit by bit what the packed one gave.

    Nothing in the file is code. The graph is rebuilt from a list of known operations; a file that asks for
    another, or that is damaged, is refused before anything runs.

    Args:
        path: A file that :func:`save` wrote.
        into: A module of the packed class: its parameters and buffers are overwritten, those outside the
            state dict too, and it is returned. Needed where only weights were packed.
        max_bytes: Most bytes that the tensors may have in memory.

    Returns:
        ``into``; otherwise a :class:`~gracile.nn.QuantizedModel` (without its float graph, which an archive
        does not hold) or a graph module.

    Raises:
        StorageError: The file is damaged, cut off, of a newer version, too large, or asks for what archives
            may not do.
        WeightsError: The weights do not fit ``into``, or there is no graph and no ``into``.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gracile.pack import save
        >>> net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.randn(5, 4)
        >>> path = Path(tempfile.mkdtemp()) / "net.gracile"
        >>> _ = save(net, path, (x,))
        >>> torch.equal(load(path)(x), net(x))
        True
    """
    path = Path(path)
    archive = read_archive(path, max_bytes=max_bytes)
    if into is not None:
        return _restore(into, archive, path)
    if not archive.header.graph:
        raise WeightsError(
            str(path),
            wanted="an archive with a graph",
            found=f"the weights of a {archive.header.model} alone",
            do="Give a module of that class: load(path, into=module).",
        )
    try:
        return _run(archive)
    except StorageError as error:
        raise StorageError(str(path), wanted=error.wanted, found=error.found, do=error.do) from error


def unpack(path: Path | str, folder: Path | str, *, max_bytes: int = MAX_BYTES) -> tuple[Artifact, ...]:
    """Write the content of an archive as files that other programs read.

    Args:
        path: A file that :func:`save` wrote.
        folder: Gets ``tensors.safetensors``, every tensor as it was, and ``plan.json``, all the rest. No name
            inside the archive becomes the name of a file.
        max_bytes: Most bytes that the tensors may have in memory.

    Raises:
        StorageError: The file is damaged, or the folder cannot be written.
    """
    archive, folder = read_archive(Path(path), max_bytes=max_bytes), Path(folder)
    tensors = {name: tensor.clone().contiguous() for name, tensor in archive.tensors.items()}
    with atomic_write(folder / "tensors.safetensors") as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary)
        except safetensors.SafetensorError as error:
            raise StorageError(str(folder), wanted="to write tensors", found=str(error)) from error
    plan = json.loads(header_json(replace(archive.header, tensors=())))
    plan["tensors"] = {entry.name: list(entry.shape) for entry in archive.header.tensors}
    atomic_bytes(folder / "plan.json", json.dumps(plan, indent=1) + "\n")
    return tuple(
        Artifact(
            name=name, path=name, sha256=sha256(folder / name), size_bytes=(folder / name).stat().st_size
        )
        for name in ("tensors.safetensors", "plan.json")
    )


def _restore(into: nn.Module, archive: Archive, path: Path) -> nn.Module:
    """Overwrite the tensors of a module of the packed class."""
    own = {
        **dict(into.named_parameters(remove_duplicate=False)),
        **dict(into.named_buffers(remove_duplicate=False)),
    }
    if misfit := _misfit(into, own, archive):
        raise WeightsError(
            str(path),
            wanted=f"the weights of this {type(into).__name__}",
            found=f"those of a {archive.header.model}: {misfit}",
            do="Give a module of the packed class with the packed shapes, or load without into=.",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if name in archive.tensors:
                tensor.copy_(archive.tensors[name])
    return into


def _misfit(into: nn.Module, own: dict[str, Tensor], archive: Archive) -> str:
    """What the archive has too little, too much or otherwise; empty where it fits."""
    found = archive.tensors
    if missing := sorted(set(into.state_dict()) - set(found)):
        return f"no {missing[0]}"
    constants = {node.target for node in archive.header.graph if node.op == "tensor"}
    theirs = {e.name for e in archive.header.tensors if e.parameter or e.name not in constants}
    if strange := sorted(theirs - set(own)):
        return f"{strange[0]}, which it has not"
    for name, tensor in own.items():
        if name in found and (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            return f"{name} of shape {tuple(found[name].shape)} and type {found[name].dtype}"
    return ""


def _run(archive: Archive) -> nn.Module:
    root, header = nn.Module(), archive.header
    modules_from_plain(header.parts, root)
    parameters = {entry.name for entry in header.tensors if entry.parameter}
    for name, tensor in archive.tensors.items():
        _hang(root, name, tensor, name in parameters)
    graph = graph_from_plain(header.graph, root)
    graph.eval()
    if header.quantized is None:
        return graph
    try:
        plan = from_plain(QuantPlan, _with_numbers(header.quantized, graph))
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise broken("a plan of a quantization", str(error).splitlines()[0][:200]) from error
    model = QuantizedModel(graph, graph, plan)
    del model.__dict__["float_graph"]  # what is not there must not be taken for the quantized one
    return model


def _hang(root: nn.Module, name: str, tensor: Tensor, parameter: bool) -> None:
    owner, last = holder(root, name)
    if hasattr(owner, last):
        raise broken("a name for each tensor", repr(name)[:80])
    if parameter and tensor.is_floating_point():
        owner.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    else:
        owner.register_buffer(last, tensor)


def _with_numbers(data: dict[str, Any], graph: nn.Module) -> dict[str, Any]:
    """The plan with the scales and zero points of the stored modules."""
    weights = {m.name: m for m in graph.modules() if isinstance(m, QuantizedWeight)}
    edges = {m.name: m for m in graph.modules() if isinstance(m, ActivationQuantizer)}
    for weight in data["weights"]:
        module = weights.get(weight["layer"])
        if module is not None:
            weight["scale"] = module.scale.reshape(-1).tolist()
            weight["zero_point"] = module.zero_point.reshape(-1).tolist()
    for edge in data["edges"]:
        quantizer = edges.get(from_plain(EdgeQuant, edge).name)
        if quantizer is not None:
            edge["scale"], edge["zero_point"] = quantizer.scale.item(), int(quantizer.zero_point)
    return data
