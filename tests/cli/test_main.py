"""The command's ends: help, wrong use, failures, Ctrl-C, a full disk."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import Any

import pytest

import gracile.cli.compress as compress_module
from gracile.errors import CaptureError, UsageError
from gracile.pipeline import STEPS

VERBS = ("demo", "train", "compress", "inspect", "bench", "report", "schema")


def test_help_lists_the_verbs(gracile: Any) -> None:
    ended = gracile("--help")
    assert ended.code == 0
    assert all(verb in ended.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(gracile: Any, verb: str) -> None:
    assert gracile(verb, "--help").code == 0


def test_version(gracile: Any) -> None:
    ended = gracile("--version")
    assert ended.code == 0
    assert ended.out.startswith("gracile ")


@pytest.mark.parametrize(
    "arguments", [["inspekt"], ["compress"], ["demo", "--otu", "x"], ["bench", "a", "--runs", "2"]]
)
def test_wrong_use_ends_with_2(gracile: Any, arguments: list[str]) -> None:
    ended = gracile(*arguments)
    assert ended.code == 2
    assert ended.err


def test_help_and_schema_do_not_import_torch() -> None:
    code = (
        "import sys; from gracile.cli.main import run\n"
        "assert run(['schema']) == 0 and run(['--help']) == 0\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_schema_knows_every_step(gracile: Any) -> None:
    schema = json.loads(gracile("schema").out)
    kinds = schema["properties"]["steps"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == set(STEPS)
    assert {"train", "prune", "tune", "fold", "quantize", "export"} <= set(kinds)
    assert schema["additionalProperties"] is False


def failing(error: BaseException) -> Any:
    def carry_out(*arguments: Any, **named: Any) -> None:
        raise error

    return carry_out


@pytest.fixture
def recipe(tmp_path: Any) -> Any:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nmodel: {spec: 'gracile:demo_net'}\ndata: {spec: digits}\nsteps: [{step: export}]\n"
    )
    return path


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("here", wanted="this", found="that", do="Do so."), 2, ["here", "this", "that", "Do so."]),
        (CaptureError("net", wanted="a graph", found="a branch"), 1, ["CaptureError", "net", "a branch"]),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, ["StorageError", "/x", "--resume"]),
        (RuntimeError("odd"), 1, ["RuntimeError: odd", "--traceback"]),
        (KeyboardInterrupt(), 1, ["Ctrl-C"]),
    ],
)
def test_failures_end_with_their_code_and_no_traceback(
    gracile: Any,
    recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    words: list[str],
) -> None:
    monkeypatch.setattr(compress_module, "carry_out", failing(error))
    ended = gracile("compress", recipe)
    assert ended.code == code
    assert all(word in ended.err for word in words)
    assert "Traceback" not in ended.err


def test_traceback_on_request(gracile: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_module, "carry_out", failing(RuntimeError("odd")))
    assert "Traceback" in gracile("compress", recipe, "--traceback").err
