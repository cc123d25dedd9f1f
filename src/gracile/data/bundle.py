"""A data set as the rest of Gracile sees it: what to train on, what to test on, how it was prepared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gracile.errors import BadArgument, DataError, NonFiniteError
from gracile.observe import Batches, as_batches, holdout_indices


@dataclass(frozen=True, kw_only=True, eq=False)
class DataBundle:
    """A training part and a test part that share no image.

    Args:
        name: For reports.
        train: Examples to train and calibrate on; a plain torch dataset of ``(tensor, int)`` is wrapped.
        test: Examples for the last word.
        classes: Number of classes, at least 2.
        input_shape: Channels, height and width of a prepared image; features and frames of a prepared sound.
        mean: Subtracted from each channel, on the scale where the brightest pixel is 1.
        std: Divided by.

    Raises:
        DataError: A part is empty, or its images have another shape.

    Example:
        >>> pairs = [(torch.full((1, 2, 2), float(i)), i % 2) for i in range(8)]
        >>> data = DataBundle(name="toy", train=pairs[:6], test=pairs[6:], classes=2, input_shape=(1, 2, 2))
        >>> data.calibration(4).shape, [len(part) for part in data.split_holdout(0.5)]
        (torch.Size([4, 1, 2, 2]), [3, 3])
    """

    name: str
    train: Batches
    test: Batches
    classes: int
    input_shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            given: Batches | Dataset[Any] = getattr(self, part)
            examples = as_batches(given)
            object.__setattr__(self, part, examples)
            if len(examples) == 0:
                raise DataError(self.name, wanted=f"images in the {part} part", found="none")
            shape = tuple(examples[0][0].shape)
            if shape != tuple(self.input_shape):
                raise DataError(
                    self.name, wanted=f"images of shape {tuple(self.input_shape)}", found=f"{shape} in {part}"
                )
        if self.classes < 2:
            raise DataError(self.name, wanted="at least 2 classes", found=f"classes={self.classes}")

    def calibration(self, n: int, seed: int = 0) -> Tensor:
        """Draw ``n`` different training images, without their labels.

        Returns:
            ``(n, channels, height, width)``, prepared, not augmented; the images of :meth:`labelled`.

        Raises:
            BadArgument: The training part has fewer images.
            NonFiniteError: An image holds NaN or infinity.
        """
        return self.labelled(n, seed)[0]

    def labelled(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw ``n`` different training images with their labels.

        Returns:
            Images ``(n, channels, height, width)``, prepared, not augmented, and labels ``(n,)``.

        Raises:
            BadArgument: The training part has fewer images.
            NonFiniteError: An image holds NaN or infinity.
        """
        if not 1 <= n <= len(self.train):
            raise BadArgument(
                f"{self.name}: calibration",
                wanted=f"from 1 to {len(self.train)} images",
                found=f"{n=}",
                do="Ask for fewer images; the test part is never used to calibrate.",
            )
        chosen = self._shuffled(seed)[:n]
        batches = list(self.train.subset(chosen).batches(256))
        images = torch.cat([images for images, _ in batches])
        bad = (~torch.isfinite(images.flatten(1)).all(dim=1)).nonzero().flatten()
        if len(bad):
            raise NonFiniteError(
                f"{self.name}: calibration",
                wanted="finite images",
                found=f"NaN or infinity in {len(bad)} of {n}, the first at training index {chosen[bad[0]]}",
            )
        return images, torch.cat([labels for _, labels in batches])

    def split_holdout(self, fraction: float, seed: int = 0) -> tuple[Batches, Batches]:
        """Split the training part at random: what to train on, and what to choose by.

        Args:
            fraction: Share held out, between 0 and 1; both parts get at least one example. What belongs
                together, such as the windows of one clip, stays together.
            seed: The same seed gives the same parts.

        Raises:
            BadArgument: ``fraction`` is not between 0 and 1, or there is one example only.
        """
        count = len(self.train)
        if not 0 < fraction < 1 or count < 2:
            raise BadArgument(
                f"{self.name}: split_holdout",
                wanted="a fraction between 0 and 1 of at least 2 examples",
                found=f"{fraction=} of {count}",
            )
        rest, held = holdout_indices(self.train, fraction, seed)
        return self.train.subset(rest), self.train.subset(held)

    def _shuffled(self, seed: int) -> Tensor:
        return torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
