"""Random shifts and mirror images, for a whole batch at once.

Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: "4
pixels are padded on each side, and a 32x32 crop is randomly sampled from the padded image or its horizontal
flip".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gracile.errors import BadArgument


def random_crop_flip(
    images: Tensor, generator: torch.Generator | None = None, *, padding: int = 4, flip: bool = True
) -> Tensor:
    """Shift every image by up to ``padding`` pixels each way, and mirror every second one on average.

    Args:
        images: ``(batch, channels, height, width)`` of any type; what comes in from outside is zero.
        generator: Source of the shifts and flips.
        padding: Largest shift in pixels, from 0.
        flip: Whether to mirror.

    Returns:
        Images of the same shape and type.

    Raises:
        BadArgument: ``padding`` is negative.

    Example:
        >>> images = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> torch.equal(random_crop_flip(images, padding=0, flip=False), images)
        True
    """
    if padding < 0:
        raise BadArgument("padding", wanted="0 or more pixels", found=f"{padding=}")
    count, _, height, width = images.shape
    if padding:
        down = torch.randint(2 * padding + 1, (count,), generator=generator)
        right = torch.randint(2 * padding + 1, (count,), generator=generator)
        windows = (
            F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        )  # a view of all crops
        images = windows[torch.arange(count), :, down, right]
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
