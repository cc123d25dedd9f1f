"""A function of the user's own, named on the command line as ``path/to/file.py:function``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gracile.errors import GracileError, did_you_mean


def is_user_code(spec: str) -> bool:
    """Whether ``spec`` has the form ``file.py:function``.

    Example:
        >>> is_user_code("nets/mine.py:build"), is_user_code("timm:resnet18")
        (True, False)
    """
    return spec.rpartition(":")[0].endswith(".py")


def user_function(spec: str, error: type[GracileError]) -> Callable[..., Any]:
    """Import the file of ``file.py:function`` and give the function. The file is run.

    Args:
        spec: Path (relative to the working folder) and name.
        error: What to raise when it cannot be had.

    Raises:
        GracileError: Of type ``error``: no such file, it fails while it is imported, or it holds no such
            function.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "mine.py"
        >>> _ = file.write_text("def answer(): return 42")
        >>> user_function(f"{file}:answer", GracileError)()
        42
    """
    name, _, function = spec.rpartition(":")
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise error(spec, wanted="an existing Python file", found=f"no file {path}")
    module_name = f"_gracile_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    found = importlib.util.spec_from_file_location(module_name, path)
    assert found is not None  # the name ends in .py
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module  # dataclasses and torch.export look the module up by its name
    try:
        found.loader.exec_module(module)
    except Exception as problem:
        del sys.modules[module_name]
        raise error(
            spec, wanted="a file that can be imported", found=f"{type(problem).__name__}: {problem}"
        ) from problem
    value = getattr(module, function, None)
    if not callable(value):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise error(
            spec,
            wanted=f"a function {function} in {path.name}",
            found="no such function" if value is None else f"a {type(value).__name__}",
            do=did_you_mean(function, known) if known else "",
        )
    result: Callable[..., Any] = value
    return result
