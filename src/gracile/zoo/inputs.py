"""The shape of input that a model was made for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .models import MODELS

_TORCHVISION_SIZES = {"inception_v3": 299}


def input_shape(model: nn.Module | str) -> tuple[int, ...] | None:
    """Channels, height and width of one input (features and frames for speech), where they are known.

    Args:
        model: A module (asked for its attribute ``input_shape`` and timm's configuration) or a
            specification.

    Returns:
        The shape, or None for a module or file of the user's that does not tell.

    Example:
        >>> input_shape("gracile:resnet56"), input_shape("torchvision:resnet18")
        ((3, 32, 32), (3, 224, 224))
        >>> input_shape(nn.Linear(2, 1)) is None
        True
    """
    if isinstance(model, nn.Module):
        own = getattr(model, "input_shape", None)
        if isinstance(own, Sequence):
            return tuple(int(n) for n in own)
        config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
        return _triple(config["input_size"]) if isinstance(config, dict) and "input_size" in config else None
    source, _, name = model.partition(":")
    if source == "gracile" and name in MODELS:
        with torch.device("meta"):  # nothing is allocated or drawn at random
            return input_shape(MODELS[name]())
    if source == "torchvision":
        size = _TORCHVISION_SIZES.get(name, 224)
        return (3, size, size)
    if source == "timm" and importlib.util.find_spec("timm") is not None:
        import timm

        found = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
        return _triple(found.input_size) if found is not None else None
    return None


def example_inputs(shape: Sequence[int], batch: int = 2, seed: int = 0) -> tuple[Tensor]:
    """A seeded random batch, as the tuple of arguments that a model is captured with.

    Example:
        >>> example_inputs((3, 32, 32))[0].shape
        torch.Size([2, 3, 32, 32])
    """
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, *shape, generator=generator),)


def _triple(shape: Sequence[Any]) -> tuple[int, int, int]:
    channels, height, width = (int(n) for n in shape)
    return channels, height, width
