"""Files are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from gracile.errors import StorageError
from gracile.records import atomic_bytes, atomic_write, sha256


def test_the_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    atomic_bytes(tmp_path / "new" / "folder" / "a.txt", "text")
    assert (tmp_path / "new" / "folder" / "a.txt").read_text() == "text"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.txt"]


def test_other_users_may_read_it(tmp_path: Path) -> None:
    atomic_bytes(tmp_path / "a.txt", b"")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old_file_and_no_other(tmp_path: Path, stop: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("old")

    def write() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise stop

    with pytest.raises(stop):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with atomic_write(tmp_path / "a.txt"):
            raise full

    with pytest.raises(StorageError, match="No space left on device") as caught:
        write()
    assert "a.txt" in caught.value.where
    assert "--out" in caught.value.do
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        atomic_bytes(tmp_path / "file" / "a.txt", "")


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "m.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        assert temporary.parent == tmp_path


def test_sha256_is_hashlibs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 1000)
    assert sha256(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 1000).hexdigest()
