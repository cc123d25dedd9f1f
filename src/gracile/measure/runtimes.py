"""The runtimes that a model is measured in, each as a function from a batch of images to logits.

Every runtime is told how many threads to use. OpenVINO is told to compute floats in 32 bits: on processors
with bfloat16 its default is bfloat16, which is faster and not the same model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from torch import nn

from gracile.errors import BadArgument, ModelError, UsageError, import_extra

from .hardware import usable_cores
from .predict import Runner as Runner
from .predict import fitted


@dataclass(frozen=True, kw_only=True)
class TorchRunner:
    """PyTorch eager; see :func:`torch_runner`."""

    name: str
    model: nn.Module
    threads: int

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, channels, height, width)`` to ``(batch, classes)``."""
        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                given = fitted(torch.from_numpy(images), self.model)
                logits: NDArray[np.float32] = self.model(given).float().numpy()
        finally:
            if before != self.threads:
                torch.set_num_threads(before)
        return logits


@dataclass(frozen=True, kw_only=True)
class OrtRunner:
    """ONNX Runtime; see :func:`ort_runner`."""

    name: str
    session: onnxruntime.InferenceSession

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, channels, height, width)`` to ``(batch, classes)``.

        Raises:
            UsageError: The file takes other inputs, such as batches of one size only.
        """
        entry = self.session.get_inputs()[0]
        try:
            logits: NDArray[np.float32] = self.session.run(None, {entry.name: images})[0]
        except InvalidArgument as error:
            raise UsageError(
                self.name,
                wanted=f"inputs of shape {entry.shape}, {entry.type}",
                found=f"{list(images.shape)}, {images.dtype}",
            ) from error
        return logits


@dataclass(frozen=True, kw_only=True)
class OpenVinoRunner:
    """OpenVINO on the processor, compiled anew for each batch size; see :func:`openvino_runner`."""

    name: str
    path: Path
    core: Any
    config: dict[str, Any]
    compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, channels, height, width)`` to ``(batch, classes)``."""
        if images.shape not in self.compiled:
            model = self.core.read_model(self.path)
            model.reshape(list(images.shape))  # a fixed shape runs faster than a dynamic one
            self.compiled[images.shape] = self.core.compile_model(model, "CPU", self.config)
        logits: NDArray[np.float32] = self.compiled[images.shape](images, share_inputs=True)[0]
        return logits


def torch_runner(model: nn.Module, threads: int | None = None) -> TorchRunner:
    """PyTorch eager on the processor, on a copy of ``model`` in evaluation mode.

    Args:
        model: Any module.
        threads: All cores that this process may use where not given.

    Raises:
        BadArgument: ``model`` is no module, or ``threads`` is below 1.

    Example:
        >>> runner = torch_runner(nn.Flatten(), threads=1)
        >>> runner(np.zeros((2, 3, 4, 4), np.float32)).shape
        (2, 48)
    """
    if not isinstance(model, nn.Module):
        raise BadArgument("torch", wanted="a torch.nn.Module", found=f"a {type(model).__name__}")
    return TorchRunner(
        name=f"{type(model).__name__} in torch",
        model=copy.deepcopy(model).cpu().eval(),
        threads=_threads(threads),
    )


def ort_session(path: Path | str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the processor, all graph optimisations on.

    Args:
        path: ``.onnx`` file.
        threads: All cores that this process may use where not given.

    Raises:
        ModelError: The file is absent, or not a model that ONNX Runtime can run.
    """
    path = _existing(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen unrelated exception classes
        raise _unloadable(path, "ONNX Runtime", error) from error


def ort_runner(path: Path | str, threads: int | None = None) -> OrtRunner:
    """ONNX Runtime on the processor; arguments and errors as :func:`ort_session`."""
    return OrtRunner(name=f"{Path(path).name} in ort", session=ort_session(path, threads))


def openvino_runner(
    path: Path | str, threads: int | None = None, *, precision: str = "f32"
) -> OpenVinoRunner:
    """OpenVINO on the processor, one stream over all threads.

    Args:
        path: ``.onnx`` file.
        threads: All cores that this process may use where not given.
        precision: What floats are computed in: ``f32``, or ``bf16`` if that is what will be deployed.
            Quantized layers run in integers either way.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ModelError: The file is absent, or not a model that OpenVINO can run.
    """
    openvino = import_extra("openvino", "openvino")
    path = _existing(path)
    core = openvino.Core()
    try:
        core.read_model(path)
    except RuntimeError as error:
        raise _unloadable(path, "OpenVINO", error) from error
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": _threads(threads),
        "NUM_STREAMS": 1,
    }
    return OpenVinoRunner(name=f"{path.name} in openvino", path=path, core=core, config=config)


RUNTIMES: dict[str, Callable[..., Runner]] = {
    "torch": torch_runner,
    "ort": ort_runner,
    "openvino": openvino_runner,
}


def _threads(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise BadArgument("threads", wanted="at least 1", found=f"{threads=}")
    return usable_cores() if threads is None else threads


def _existing(path: Path | str) -> Path:
    if not Path(path).is_file():
        raise ModelError(str(path), wanted="an ONNX file", found="no such file")
    return Path(path)


def _unloadable(path: Path, runtime: str, error: Exception) -> ModelError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ModelError(str(path), wanted=f"a model that {runtime} can run", found=reason.strip())
