"""A data set by its specification, such as ``cifar10`` or ``images:FOLDER``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gracile.errors import DataError, did_you_mean
from gracile.records import is_user_code, user_function

from .audio_folder import audio_folder
from .bundle import DataBundle
from .cifar10 import cifar10
from .digits import digits
from .folder import image_folder
from .mnist import fashion_mnist, mnist
from .speech import speech_lid, speech_sad

DATA: dict[str, Callable[..., DataBundle]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "speech:sad": speech_sad,
    "speech:lid": speech_lid,
}
_FOLDERS: dict[str, Callable[..., DataBundle]] = {"images": image_folder, "audio": audio_folder}


def load_data(spec: str, root: Path | str | None = None, **options: Any) -> DataBundle:
    """Load a data set.

    Args:
        spec: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, ``speech:sad``, ``speech:lid``,
            ``images:FOLDER`` (see :func:`image_folder`), ``audio:FOLDER`` (see :func:`audio_folder`), or
            ``path/to/file.py:function``, whose function returns a :class:`DataBundle` and is given
            ``root`` if it takes it.
        root: Folder that holds the data; the environment variable ``GRACILE_DATA`` where not given.
        options: Keyword arguments of the loader, such as ``mean``, ``std`` or ``size``.

    Raises:
        DataError: Unknown name or option, absent or damaged files.
        BadArgument: An option is out of range.
        MissingExtra: A download needs torchvision, or sound needs soundfile and kaldi-native-fbank, which is
            not installed.

    Example:
        >>> load_data("digits").classes
        10
        >>> load_data("cifar")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        gracile.errors.DataError: cifar: wanted digits, ... Did you mean cifar10?
    """
    loader = _loader(spec, find_root(root))
    try:
        inspect.signature(loader).bind(**options)
    except TypeError as error:
        known = [name for name in inspect.signature(loader).parameters if name != "root"]
        odd = next((name for name in options if name not in known), "")
        raise DataError(
            spec,
            wanted=f"options among {', '.join(known)}" if known else "no options",
            found=f"option {odd}" if odd else str(error),
            do=did_you_mean(odd, known) if odd and known else "",
        ) from error
    bundle = loader(**options)
    if not isinstance(bundle, DataBundle):
        raise DataError(
            spec,
            wanted="a function that returns gracile.data.DataBundle(name=, train=, test=, classes=, ...)",
            found=f"a {type(bundle).__name__}",
        )
    return bundle


def find_root(root: Path | str | None) -> Path | None:
    """``root``, else ``GRACILE_DATA``, else None.

    Raises:
        DataError: The folder that was named does not exist.
    """
    where = "--data-root" if root is not None else "GRACILE_DATA"
    named = root if root is not None else os.environ.get("GRACILE_DATA") or None
    if named is None:
        return None
    path = Path(named).expanduser()
    if not path.is_dir():
        raise DataError(where, wanted="the folder that holds the data", found=f"no folder {path}")
    return path


def _loader(spec: str, root: Path | None) -> Callable[..., Any]:
    if is_user_code(spec):
        function = user_function(spec, DataError)
        return partial(function, root=root) if "root" in inspect.signature(function).parameters else function
    if spec in DATA:
        function = DATA[spec]
        return partial(function, root) if "root" in inspect.signature(function).parameters else function
    kind, _, folder = spec.partition(":")
    if kind in _FOLDERS and folder:
        return partial(_FOLDERS[kind], (root or Path()) / Path(folder).expanduser())
    raise DataError(
        spec,
        wanted=f"{', '.join(DATA)}, {', '.join(f'{name}:FOLDER' for name in _FOLDERS)} or file.py:function",
        found=repr(spec),
        do=f"Name a folder: {kind}:FOLDER." if kind in _FOLDERS else did_you_mean(spec, [*DATA, *_FOLDERS]),
    )
