"""Windows of feature sequences: what a network sees of sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gracile.errors import BadArgument, DataError
from gracile.observe import batch_order


class WindowData:
    """Windows cut out of the feature sequences of clips (:class:`gracile.observe.Batches`).

    The sequences are kept once, one behind the other; a window is gathered when it is asked for. A window
    never reaches into another clip: where its clip ends, it goes on at the clip's beginning. Augmentation
    starts each window at a random frame of its clip.

    ``groups`` says what belongs together. Gracile holds out whole groups, so that two windows of one
    recording never stand on both sides of a split.

    Args:
        features: ``(bins, frames)``, the clips one behind the other.
        lengths: ``(clips,)`` frames of each clip, at least 1.
        starts: ``(n,)`` first frame of each window, counted from the beginning of its clip.
        clips: ``(n,)`` index of each window's clip.
        labels: ``(n,)`` class indices.
        frames: Length of a window.
        groups: ``(n,)`` what each window belongs to; its clip where not given.
        mean: ``(bins,)`` subtracted from each feature.
        std: ``(bins,)`` divided by.
        can_shift: Whether augmentation may start a window elsewhere; leave it off where the label holds for
            one place only.

    Raises:
        DataError: Shapes differ, or a start lies outside its clip.

    Example:
        >>> data = WindowData(torch.arange(5.0).view(1, 5), torch.tensor([2, 3]), torch.tensor([0, 1]),
        ...                   torch.tensor([0, 1]), torch.tensor([0, 1]), frames=4)
        >>> images, labels = next(data.batches(2))
        >>> images.tolist(), labels.tolist()
        ([[[0.0, 1.0, 0.0, 1.0]], [[3.0, 4.0, 2.0, 3.0]]], [0, 1])
    """

    def __init__(
        self,
        features: Tensor,
        lengths: Tensor,
        starts: Tensor,
        clips: Tensor,
        labels: Tensor,
        *,
        frames: int,
        groups: Tensor | None = None,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        can_shift: bool = True,
    ) -> None:
        groups = clips if groups is None else groups
        _check(features, lengths, starts, clips, labels, groups, frames)
        self.features, self.lengths = features, lengths.long()
        self.begins = self.lengths.cumsum(0) - self.lengths
        self.starts, self.clips, self.labels = starts.long(), clips.long(), labels.long()
        self.groups, self.frames, self.can_shift = groups.long(), frames, can_shift
        self.mean = torch.zeros(len(features)) if mean is None else mean
        self.std = torch.ones(len(features)) if std is None else std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        chosen = torch.tensor([index % len(self)])
        return self._gather(chosen, self.starts[chosen])[0], int(self.labels[index])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the windows; see :meth:`gracile.observe.Batches.batches`.

        Raises:
            BadArgument: ``augment`` is asked for and these windows cannot be shifted.
        """
        if augment and not self.can_shift:
            raise BadArgument(
                "augment",
                wanted="windows that may be shifted",
                found="windows with a label for one place only",
            )
        order = batch_order(len(self), batch_size, shuffle=shuffle, generator=generator, drop_last=drop_last)
        for indices in order:
            starts = self.starts[indices]
            if augment:
                share = torch.rand(len(indices), generator=generator)
                starts = (share * self.lengths[self.clips[indices]]).long()
            yield self._gather(indices, starts), self.labels[indices]

    def subset(self, indices: Sequence[int] | Tensor) -> WindowData:
        """The windows at ``indices``, in that order; the sequences are shared, not copied."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return WindowData(
            self.features,
            self.lengths,
            self.starts[chosen],
            self.clips[chosen],
            self.labels[chosen],
            frames=self.frames,
            groups=self.groups[chosen],
            mean=self.mean,
            std=self.std,
            can_shift=self.can_shift,
        )

    def _gather(self, indices: Tensor, starts: Tensor) -> Tensor:
        """``(batch, bins, frames)``, normalised."""
        clips = self.clips[indices]
        places = (starts[:, None] + torch.arange(self.frames)) % self.lengths[clips][:, None]
        windows = self.features[:, self.begins[clips][:, None] + places].transpose(0, 1)
        return windows.float().sub(self.mean[:, None]).div_(self.std[:, None])


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature ``(bins, frames)``; a constant one gets 1.

    Example:
        >>> statistics(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
        (tensor([2., 2.]), tensor([1., 1.]))
    """
    std = features.std(dim=1, correction=0)
    return features.mean(dim=1), torch.where(std > 0, std, torch.ones_like(std))


def _check(
    features: Tensor,
    lengths: Tensor,
    starts: Tensor,
    clips: Tensor,
    labels: Tensor,
    groups: Tensor,
    frames: int,
) -> None:
    fits = features.dim() == 2 and int(lengths.sum()) == features.shape[1] and bool((lengths > 0).all())
    if not fits or frames < 1:
        raise DataError(
            "WindowData",
            wanted="features (bins, frames) and as many frames in clips of at least one",
            found=f"features {tuple(features.shape)} and {int(lengths.sum())} frames in {len(lengths)} clips",
        )
    if not len(starts) == len(clips) == len(labels) == len(groups):
        raise DataError(
            "WindowData",
            wanted="a start, a clip, a label and a group for each window",
            found=f"{len(starts)} starts, {len(clips)} clips, {len(labels)} labels, {len(groups)} groups",
        )
    if len(clips) and (int(clips.min()) < 0 or int(clips.max()) >= len(lengths)):
        raise DataError(
            "WindowData", wanted=f"clips from 0 to {len(lengths) - 1}", found=f"clip {int(clips.max())}"
        )
    if bool(((starts < 0) | (starts >= lengths[clips])).any()):
        raise DataError("WindowData", wanted="starts inside their clips", found="one outside")
