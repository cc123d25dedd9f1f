"""A folder of pictures: class sub-folders, or flat files that begin with their class index."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gracile.errors import BadArgument, DataError
from gracile.observe import batch_order

from .bundle import DataBundle
from .cifar10 import IMAGENET_MEAN, IMAGENET_STD

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_THREADS = 4

Example = tuple[Path, int]


class FolderData:
    """Pictures on disk, decoded as they are asked for (:class:`gracile.observe.Batches`).

    A picture's shorter side is resized to ``resize``, the centre ``size x size`` is cut out (a random part,
    mirrored every second time on average, where augmentation is asked for) and normalised. Threads decode
    one batch ahead.

    Raises:
        DataError: When a picture that cannot be decoded is reached; the text names it.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        size: int,
        resize: int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bilinear",
    ) -> None:
        self.examples = list(examples)
        self.size, self.resize, self.interpolation = size, resize, interpolation
        self.mean, self.std = tuple(mean), tuple(std)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        path, label = self.examples[index]
        return self._prepare(self._decode(path, 0.5, 0.5, False)), label

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        augment: bool = False,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through the pictures; see :meth:`gracile.observe.Batches.batches`."""
        order = batch_order(len(self), batch_size, shuffle=shuffle, generator=generator, drop_last=drop_last)
        with ThreadPoolExecutor(_THREADS) as pool:
            ahead: tuple[list[Future[Tensor]], Tensor] | None = None
            for indices in order:
                current, ahead = ahead, self._start(pool, indices, generator, augment)
                if current is not None:
                    yield self._finish(*current)
            if ahead is not None:
                yield self._finish(*ahead)

    def subset(self, indices: Sequence[int] | Tensor) -> FolderData:
        """The pictures at ``indices``, in that order."""
        return FolderData(
            [self.examples[int(i)] for i in indices],
            size=self.size,
            resize=self.resize,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
        )

    def _start(
        self, pool: ThreadPoolExecutor, indices: Tensor, generator: torch.Generator | None, augment: bool
    ) -> tuple[list[Future[Tensor]], Tensor]:
        """Draw the crops here, in a fixed order; decode in threads."""
        draws = torch.full((len(indices), 3), 0.5)
        if augment:
            draws = torch.rand(len(indices), 3, generator=generator)
        chosen = [self.examples[int(i)] for i in indices]
        futures = [
            pool.submit(self._decode, path, down, right, augment and mirror < 0.5)
            for (path, _), (down, right, mirror) in zip(chosen, draws.tolist(), strict=True)
        ]
        return futures, torch.tensor([label for _, label in chosen])

    def _finish(self, futures: list[Future[Tensor]], labels: Tensor) -> tuple[Tensor, Tensor]:
        return self._prepare(torch.stack([future.result() for future in futures])), labels

    def _decode(self, path: Path, down: float, right: float, mirror: bool) -> Tensor:
        """``(3, size, size)`` uint8; ``down`` and ``right`` say where to cut, 0..1, 0.5 being the centre."""
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(path, error) from error
        shorter = min(image.size)
        if shorter != self.resize:
            width, height = (max(round(side * self.resize / shorter), self.resize) for side in image.size)
            image = image.resize((width, height), _FILTERS[self.interpolation])
        left, top = round((image.width - self.size) * right), round((image.height - self.size) * down)
        pixels = np.asarray(image.crop((left, top, left + self.size, top + self.size)))
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return tensor.flip(2) if mirror else tensor

    def _prepare(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return images.float().div_(255).sub_(mean).div_(std)


def image_folder(
    folder: Path,
    *,
    size: int = 224,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
    calibration_every: int = 5,
    classes: int | None = None,
) -> DataBundle:
    """Pictures in class sub-folders, or flat files named ``INDEX_anything.jpg``.

    A folder with ``train`` and ``test`` (or ``val``) inside keeps these parts. Otherwise the pictures are
    sorted by path, and of every ``calibration_every`` the first goes to the training part, which is what
    calibrates; the others are the test part.

    Args:
        folder: Where the pictures are.
        size: Side of the square that a model sees, in pixels.
        resize: Length of the shorter side before the square is cut out; ``size / 0.875`` where not given.
        mean: Per channel, on the scale 0..1.
        std: Per channel.
        interpolation: ``bilinear`` or ``bicubic``.
        calibration_every: From 2.
        classes: Number of classes, where it is more than the folder shows.

    Raises:
        DataError: No such folder, no pictures, unclear classes, or a file that is no picture.
        BadArgument: An option is out of range.
    """
    resize = round(size / 0.875) if resize is None else resize
    _check_options(size, resize, interpolation, calibration_every, mean, std)
    train, test, found = _split(folder, calibration_every)
    if classes is not None and classes < found:
        raise DataError(str(folder), wanted=f"at most {classes} classes", found=f"class index {found - 1}")

    def part(examples: Sequence[Example]) -> FolderData:
        _check_headers(examples)
        return FolderData(examples, size=size, resize=resize, mean=mean, std=std, interpolation=interpolation)

    return DataBundle(
        name=f"images:{folder.name}",
        train=part(train),
        test=part(test),
        classes=classes if classes is not None else found,
        input_shape=(3, size, size),
        mean=tuple(mean),
        std=tuple(std),
    )


def _split(folder: Path, calibration_every: int) -> tuple[list[Example], list[Example], int]:
    """Training part, test part and the number of classes."""
    if not folder.is_dir():
        raise DataError(
            str(folder),
            wanted="a folder of pictures",
            found="a file" if folder.exists() else "no such folder",
            do="A relative folder is looked for in the data root.",
        )
    train, test = folder / "train", next((folder / n for n in ("test", "val") if (folder / n).is_dir()), None)
    if train.is_dir() and test is not None:
        names = [path.name for path in _folders(train)]
        parts = _examples(train, names), _examples(test, names)
    else:
        examples = _examples(folder, [path.name for path in _folders(folder)])
        parts = (
            examples[::calibration_every],
            [e for i, e in enumerate(examples) if i % calibration_every],
        )
    for name, part in zip(("training", "test"), parts, strict=True):
        if not part:
            raise DataError(str(folder), wanted=f"pictures for the {name} part", found="too few pictures")
    return *parts, max(label for part in parts for _, label in part) + 1


def _examples(folder: Path, class_names: Sequence[str]) -> list[Example]:
    """All pictures of ``folder`` with their labels, sorted by path."""
    flat, inside = _pictures(folder), _folders(folder)
    if flat and inside:
        raise DataError(
            str(folder),
            wanted="class sub-folders or flat pictures",
            found=f"both: {inside[0].name}/ and {flat[0].name}",
        )
    if not flat and not any(_pictures(path) for path in inside):
        kinds = ", ".join(sorted(_SUFFIXES))
        raise DataError(str(folder), wanted=f"pictures ({kinds})", found="an empty folder or other files")
    strange = [path.name for path in inside if path.name not in class_names]
    if strange:
        raise DataError(str(folder), wanted="the classes of the training part", found=f"also {strange[0]}")
    label = {name: index for index, name in enumerate(class_names)}
    return [(p, _prefix(p)) for p in flat] + [(p, label[c.name]) for c in inside for p in _pictures(c)]


def _prefix(path: Path) -> int:
    match = re.match(r"(\d+)_", path.name)
    if match is None:
        raise DataError(
            str(path),
            wanted="a name that begins with the class index, such as 0007_cat.jpg",
            found=repr(path.name),
            do="Or sort the pictures into one sub-folder a class.",
        )
    return int(match[1])


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _check_headers(examples: Sequence[Example]) -> None:
    """Open every file as a picture, which reads its header only: an hour's run should not end on one."""
    for path, _ in examples:
        try:
            Image.open(path).close()
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        str(path), wanted="a whole picture", found=str(error), do="Repair it, or take it out of the folder."
    )


def _check_options(
    size: int,
    resize: int,
    interpolation: str,
    calibration_every: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    checks: list[tuple[str, Callable[[], bool], str, object]] = [
        ("size", lambda: size >= 1, "at least 1 pixel", size),
        ("resize", lambda: resize >= size, f"at least size ({size})", resize),
        ("interpolation", lambda: interpolation in _FILTERS, " or ".join(_FILTERS), interpolation),
        ("calibration_every", lambda: calibration_every >= 2, "at least 2", calibration_every),
        ("mean", lambda: len(mean) == 3, "three numbers", mean),
        ("std", lambda: len(std) == 3 and min(std) > 0, "three numbers above 0", std),
    ]
    for name, holds, wanted, value in checks:
        if not holds():
            raise BadArgument(f"images: {name}", wanted=wanted, found=repr(value))
