"""Is the model sound before work starts: does it take the images, and are its activations finite?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gracile.errors import ModelError, NonFiniteError


def check_activations(model: nn.Module, images: Tensor) -> None:
    """Run the model and refuse NaN and infinity, naming the first module that makes them.

    Raises:
        ModelError: The model does not take such images.
        NonFiniteError: The inputs or an activation are not finite.

    Example:
        >>> check_activations(nn.Linear(2, 1), torch.zeros(1, 2))
    """
    if not torch.isfinite(images).all():
        raise NonFiniteError("calibration images", wanted="finite numbers", found="NaN or infinity")
    first: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not first and not torch.isfinite(output).all():
                first.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(images)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            type(model).__name__,
            wanted=f"a model that takes images of shape {tuple(images.shape[1:])}",
            found=str(error).partition("\n")[0],
            do="Name the model and the data that belong together.",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if first:
        raise NonFiniteError(
            first[0] or type(model).__name__,
            wanted="finite activations",
            found="NaN or infinity",
            do="Check the weights of this layer and the preparation of the images.",
        )
