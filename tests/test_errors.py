"""What errors say."""

from __future__ import annotations

import pytest

from gracile.errors import BadArgument, GracileError, MissingExtra, did_you_mean, import_extra


def test_text_holds_place_wanted_found_and_remedy() -> None:
    error = GracileError("recipe.yaml:3", wanted="a number", found="'x'", do="Write 3.")
    assert str(error) == "recipe.yaml:3: wanted a number, found 'x'. Write 3."
    assert str(GracileError("here", wanted="a", found="b")) == "here: wanted a, found b."


def test_exit_codes_and_builtin_bases() -> None:
    assert GracileError("a", wanted="b", found="c").exit_code == 1
    assert BadArgument("a", wanted="b", found="c").exit_code == 2
    assert issubclass(BadArgument, ValueError)


def test_did_you_mean_lists_all_when_nothing_is_close() -> None:
    assert did_you_mean("zzz", ["digits", "mnist"]) == "Choose from digits, mnist."
    assert did_you_mean("zzz", [f"m{i}" for i in range(15)]).endswith("m11 and 3 more.")


def test_missing_extra_names_the_command() -> None:
    with pytest.raises(MissingExtra, match=r"no_such_package_at_all: .*pip install 'gracile\[vision\]'"):
        import_extra("no_such_package_at_all", "vision")
