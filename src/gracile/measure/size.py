"""Bytes on disk."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from gracile.errors import StorageError


def size_bytes(path: Path | str) -> int:
    """Bytes of a file, of everything in a folder, or of an ONNX model with the files its weights lie in.

    Raises:
        StorageError: There is no such file, or an ONNX file is damaged or lacks its weights.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.bin"
        >>> _ = file.write_bytes(bytes(1000))
        >>> size_bytes(file), size_bytes(file.parent)
        (1000, 1000)
    """
    path = Path(path)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = {path} | (_external(path) if path.suffix == ".onnx" and path.is_file() else set())
    absent = [str(file) for file in sorted(files) if not file.is_file()]
    if absent:
        raise StorageError(str(path), wanted="a file to measure", found=f"no file {absent[0]}")
    return sum(file.stat().st_size for file in files)


def _external(path: Path) -> set[Path]:
    """The other files that hold weights of an ONNX model."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose package has no types
        raise StorageError(str(path), wanted="an ONNX model", found=str(error)) from error
    outside = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    return {path.parent / ExternalDataInfo(tensor).location for tensor in outside}
