"""Training steps through ``torch.compile``: less traffic with memory where operations are many and small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gracile.errors import UnsupportedOperation

BACKENDS = ("inductor", "aot_eager")


def compiled(model: nn.Module, backend: str) -> Callable[[Tensor], Tensor]:
    """What gives the outputs of ``model``, compiled at the first call; the model itself stays as it is.

    Args:
        model: Read at each call: its weights, buffers and mode may change in between.
        backend: One of ``BACKENDS``.

    Raises:
        UnsupportedOperation: When called, if the backend cannot compile the model on this machine.

    Example:
        >>> compiled(nn.Identity(), "aot_eager")(torch.ones(1)).item()
        1.0
    """
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    run = torch.compile(model, backend=backend)

    def forward(images: Tensor) -> Tensor:
        try:
            outputs: Tensor = run(images)
        except TorchDynamoException as error:
            raise UnsupportedOperation(
                "compile",
                wanted=f"a model and a machine that {backend} can compile for",
                found=" ".join(str(error).strip().partition("\n\n")[0].split()),
                do="Train with compile=None.",
            ) from error
        return outputs

    return forward
