"""A function of the user's own, named on the command line as ``path/to/file.py:function``."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Import the file of ``file.py:function`` and give the function. The file is run; it may import others
    that lie beside it.

    Args:
        spec: Path (relative to the working folder) and name.
        error: What to raise when it cannot be had.

    Raises:
        GracileError: Of type ``error``: no such file, it fails while it is imported, it holds no such
            function, or it imports a file beside it whose name another module has already.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "mine.py"
        >>> _ = file.write_text("def answer(): return 42")
        >>> user_function(f"{file}:answer", GracileError)()
        42
    """
    path, function = _path(spec), spec.rpartition(":")[2]
    if not path.is_file():
        raise error(spec, wanted="an existing Python file", found=f"no file {path}")
    _refuse_mistaken(spec, error)
    module_name = f"_gracile_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    found = importlib.util.spec_from_file_location(module_name, path)
    assert found is not None  # the name ends in .py
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module  # dataclasses and torch.export look the module up by its name
    try:
        with _importing_from(path.parent):
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


def user_files(spec: str) -> tuple[Path, ...]:
    """The file of ``file.py:function``, and of those beside it the ones that it imports, and they in turn.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "layers.py").write_text("wide = 3")
        >>> _ = (folder / "mine.py").write_text("from layers import wide")
        >>> [file.name for file in user_files(f"{folder}/mine.py:wide")]
        ['mine.py', 'layers.py']
    """
    path = _path(spec)
    found = [path] if path.is_file() else []
    for file in found:
        for name in _imported(file):
            near = (path.parent / f"{name}.py", *sorted((path.parent / name).rglob("*.py")))
            found += [one for one in near if one.is_file() and one not in found]
    return tuple(found)


def _path(spec: str) -> Path:
    return Path(spec.rpartition(":")[0]).expanduser().resolve()


def _imported(file: Path) -> Iterator[str]:
    """First parts of the names that a file imports; none where it is not Python, which importing it says."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _refuse_mistaken(spec: str, error: type[GracileError]) -> None:
    """Raise where a file beside the user's would be taken for a module of the same name."""
    folder = _path(spec).parent
    for file in user_files(spec)[1:]:
        name, *inside = file.relative_to(folder).with_suffix("").parts
        origin = getattr(sys.modules.get(name), "__file__", None)
        if inside in ([], ["__init__"]) and origin is not None and Path(origin).resolve() != file.resolve():
            raise error(
                spec, wanted=f"{file} as module {name}", found=f"{origin}, which was imported before",
                do="Give the file another name.",
            )  # fmt: skip


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let imports find what lies in ``folder`` first, as Python does for a script in it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
