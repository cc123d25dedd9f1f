"""Functions of the user's own, by file and name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gracile.errors import ModelError
from gracile.records import is_user_code, user_function


def test_gives_the_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(width=3):\n    return [width]\n")
    assert user_function(f"{tmp_path}/mine.py:build", ModelError)(width=5) == [5]


@pytest.mark.parametrize(
    ("spec", "is_one"),
    [
        ("a.py:f", True),
        ("a/b.py:f", True),
        ("C:\\nets\\a.py:f", True),
        ("a.py", False),
        ("gracile:a.py", False),
    ],
)
def test_form(spec: str, is_one: bool) -> None:
    assert is_user_code(spec) is is_one


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"wanted an existing Python file, found no file .*none\.py"):
        user_function(f"{tmp_path}/none.py:build", ModelError)


def test_file_that_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(
        ModelError, match="found ModuleNotFoundError: No module named 'no_such_package_at_all'"
    ):
        user_function(f"{tmp_path}/mine.py:build", ModelError)


def test_misspelt_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build():\n    return 1\n")
    with pytest.raises(ModelError, match=r"found no such function\. Did you mean build\?"):
        user_function(f"{tmp_path}/mine.py:biuld", ModelError)


def test_name_that_is_no_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("build = 3\n")
    with pytest.raises(ModelError, match=r"wanted a function build in mine\.py, found a int"):
        user_function(f"{tmp_path}/mine.py:build", ModelError)
