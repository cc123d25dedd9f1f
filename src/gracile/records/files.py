"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gracile.errors import StorageError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place when the block ends well.

    Raises:
        StorageError: The file cannot be written (no space left, no permission).

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> (folder / "a.txt").read_text()
        'whole'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise _storage(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _storage(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_bytes(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` wholly or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError(
        str(path),
        wanted="to write this file",
        found=error.strerror or str(error),
        do="Free some space or choose another folder with --out; nothing half-written was left.",
    )
