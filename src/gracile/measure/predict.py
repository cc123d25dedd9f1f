"""What a model, or a file in a runtime, answers to a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from gracile.errors import DataError, NonFiniteError, UnsupportedOperation
from gracile.observe import Batches, as_batches, evaluating

from .accuracy import Labels

Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A batch of images to a batch of logits, in numpy."""

Examples = Batches | Dataset[Any] | Sequence[tuple[Tensor, int]]


def predictions(
    model: nn.Module | Runner,
    data: Examples,
    batch_size: int = 128,
    *,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[Labels, Labels]:
    """Predicted and true class of every example.

    Args:
        model: A module (run in evaluation mode, on the device of its parameters) or a runner.
        data: Labelled examples.
        batch_size: At least 1; does not change the result beyond rounding.
        on_batch: Told the number of examples done and of all, for a progress bar.

    Returns:
        ``(n,)`` predicted class indices, ``(n,)`` true ones.

    Raises:
        NonFiniteError: An output is NaN or infinite.
        DataError: A label lies beyond the model's outputs.
        UnsupportedOperation: The output is not ``(batch, classes)``.

    Example:
        >>> predicted, labels = predictions(nn.Identity(), [(torch.tensor([0.1, 0.9]), 0)] * 3)
        >>> predicted.tolist(), labels.tolist()
        ([1, 1, 1], [0, 0, 0])
    """
    pairs = [
        (logits.argmax(axis=1), labels) for logits, labels in _answers(model, data, batch_size, on_batch)
    ]
    predicted, labels = (np.concatenate(arrays).astype(np.int64) for arrays in zip(*pairs, strict=True))
    return predicted, labels


def outputs(
    model: nn.Module | Runner,
    data: Examples,
    batch_size: int = 128,
    *,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], Labels]:
    """Logits ``(n, classes)`` and true classes ``(n,)`` of every example; see :func:`predictions`."""
    pairs = list(_answers(model, data, batch_size, on_batch))
    logits, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return logits.astype(np.float32), labels.astype(np.int64)


def check_logits(logits: NDArray[Any], batch: int, where: str) -> None:
    """Raise unless ``logits`` is a finite ``(batch, classes)``.

    Raises:
        UnsupportedOperation: Another shape.
        NonFiniteError: NaN or infinity.
    """
    if logits.ndim != 2 or len(logits) != batch:
        raise UnsupportedOperation(
            where, wanted=f"outputs of shape ({batch}, classes)", found=f"shape {logits.shape}"
        )
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        raise NonFiniteError(
            where,
            wanted="finite outputs",
            found=f"NaN or infinity for {int(bad.sum())} of {batch} images",
            do="Look at the step before this one: its weights, its learning rate or its calibration images.",
        )


def _answers(
    model: nn.Module | Runner,
    data: Examples,
    batch_size: int,
    on_batch: Callable[[int, int], None] | None,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    examples = as_batches(data)
    total, done, name = len(examples), 0, _name(model)
    if total == 0:
        raise DataError(name, wanted="examples to predict", found="none")
    with evaluating(model) if isinstance(model, nn.Module) else nullcontext():
        for images, labels in examples.batches(batch_size):
            logits = _run(model, images, name)
            check_logits(logits, len(images), f"{name}, images {done} to {done + len(images) - 1}")
            if int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
                raise DataError(
                    name,
                    wanted=f"labels from 0 to {logits.shape[1] - 1}, one for each output",
                    found=f"labels from {int(labels.min())} to {int(labels.max())}",
                )
            done += len(images)
            if on_batch is not None:
                on_batch(done, total)
            yield logits, labels.numpy()


def _run(model: nn.Module | Runner, images: Tensor, name: str) -> NDArray[Any]:
    if not isinstance(model, nn.Module):
        return np.asarray(model(images.numpy()))
    with torch.no_grad():  # left between batches, so that it does not reach the caller's code
        logits = model(fitted(images, model))
    if not isinstance(logits, Tensor):
        raise UnsupportedOperation(name, wanted="one tensor as output", found=f"a {type(logits).__name__}")
    return logits.float().cpu().numpy()


def fitted(images: Tensor, model: nn.Module) -> Tensor:
    """Images where the model's parameters lie and, if both hold fractions, in their type.

    Example:
        >>> fitted(torch.zeros(1, 2), nn.Linear(2, 1).bfloat16()).dtype
        torch.bfloat16
    """
    first = next(model.parameters(), images)
    both = first.is_floating_point() and images.is_floating_point()
    return images.to(first.device, first.dtype if both else images.dtype)


def _name(model: nn.Module | Runner) -> str:
    return type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "name", "runtime")
