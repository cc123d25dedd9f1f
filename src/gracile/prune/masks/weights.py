"""The weights of a model that masks may touch: those of convolutions and linear layers, in one layout.

Biases, normalisations, embeddings and whatever else is stored are never masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gracile.graph import capture
from gracile.graph.rules import bound, packet, shape_of
from gracile.records import Skipped

from ..layers import is_weighted
from ..leave import left_layers


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A parameter ``param`` of ``layer``, stored as ``(out, in / groups, ...)``, or the other way round."""

    param: str
    layer: str
    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    def seen(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """From the stored layout to ``(outputs, inputs of a group, *kernel)``.

        Example:
            >>> up = Weight(param="up.weight", layer="up", shape=(2, 3, 1, 1), transposed=True)
            >>> up.seen(np.zeros((2, 3, 1, 1))).shape
            (3, 2, 1, 1)
        """
        return self._swapped(stored) if self.transposed else stored

    def stored(self, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The inverse of :meth:`seen`."""
        return self._swapped(seen).astype(bool) if self.transposed else seen

    def _swapped(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        first, second, *kernel = array.shape
        split = array.reshape(self.groups, first // self.groups, second, *kernel)
        return np.swapaxes(split, 1, 2).reshape(self.groups * second, first // self.groups, *kernel)


def find_weights(
    model: nn.Module, inputs: tuple[Tensor, ...], leave: Iterable[str] = ()
) -> tuple[tuple[Weight, ...], tuple[Skipped, ...]]:
    """List the weights that may be masked, and the layers left alone, each with the reason.

    Args:
        model: Any model that ``torch.export`` captures.
        inputs: Example inputs.
        leave: ``"first"``, ``"last"``, names or patterns, see :func:`gracile.prune.leave.left_layers`.

    Raises:
        BadArgument: A name in ``leave`` fits nothing.
        CaptureError: The model cannot be captured.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> found, left = find_weights(net, (torch.zeros(1, 2),), ("last",))
        >>> [w.param for w in found], [s.where for s in left]
        (['0.weight'], ['2'])
    """
    captured = capture(model, inputs)
    left = left_layers(captured, leave)
    found: dict[str, Weight] = {}
    skipped = [Skipped(layer, why) for layer, why in left.items()]
    for node in captured.graph.nodes:
        if not is_weighted(node):
            continue
        args = bound(node)
        param = captured.param_of(args["weight"])
        if param is None:
            why = "its weight is computed in the model, not stored"
            skipped.append(Skipped(captured.module_of(node), why, captured.source(node)))
            continue
        layer = param.removesuffix(".weight")
        if layer not in left:
            found[param] = Weight(
                param=param,
                layer=layer,
                shape=shape_of(args["weight"]),
                groups=int(args.get("groups", 1)),
                transposed="transpose" in packet(node) or bool(args.get("transposed", False)),
            )
    return tuple(found.values()), tuple(dict.fromkeys(skipped))
