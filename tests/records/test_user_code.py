"""Functions of the user's own, by file and name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gracile.errors import ModelError
from gracile.records import is_user_code, user_files, user_function


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


def test_a_file_may_import_others_beside_it(tmp_path: Path) -> None:
    (tmp_path / "gracile_test_layers.py").write_text("from gracile_test_parts.blocks import WIDTH\n")
    (tmp_path / "gracile_test_parts").mkdir()
    (tmp_path / "gracile_test_parts/__init__.py").write_text("")
    (tmp_path / "gracile_test_parts/blocks.py").write_text("WIDTH = 7\n")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "mine.py").write_text(
        "import gracile_test_layers\ndef f(): return gracile_test_layers.WIDTH\n"
    )
    before = list(sys.path)
    assert user_function(f"{tmp_path}/mine.py:f", ModelError)() == 7
    assert sys.path == before
    names = ["mine.py", "gracile_test_layers.py", "__init__.py", "blocks.py"]
    assert [file.name for file in user_files(f"{tmp_path}/mine.py:f")] == names


def test_a_file_of_the_same_name_in_another_folder_is_not_taken_for_the_one_beside(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "gracile_test_twin.py").write_text(f"name = {folder!r}\n")
        (tmp_path / folder / "mine.py").write_text("import gracile_test_twin as t\ndef f(): return t.name\n")
    assert user_function(f"{tmp_path}/a/mine.py:f", ModelError)() == "a"
    with pytest.raises(ModelError, match=r"as module gracile_test_twin, found .*a/gracile_test_twin\.py"):
        user_function(f"{tmp_path}/b/mine.py:f", ModelError)


def test_a_file_that_is_not_python_is_refused_by_the_import(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(:\n")
    with pytest.raises(ModelError, match="found SyntaxError"):
        user_function(f"{tmp_path}/mine.py:build", ModelError)
