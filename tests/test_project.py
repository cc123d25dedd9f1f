"""What the project promises about itself: layers, light imports, no pickle, documentation that is true."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "gracile"
MODULES = sorted(SOURCE.rglob("*.py"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_go_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["gracile", "gracile.errors", "gracile.records", "gracile.targets", "gracile.report"]
)
def test_what_needs_no_torch_loads_none(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'onnx', 'accelerate'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_help_comes_without_torch() -> None:
    code = "import sys, gracile.cli as c\ntry:\n c.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


_UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Whatever could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _UNSAFE_MODULES:
            yield f"line {node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Attribute) and node.attr != "UnpicklingError":  # which one may catch
            if ast.unparse(node.value) in _UNSAFE_MODULES:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"
            if called in ("torch.save", "torch.jit.load", "torch.export.load", "yaml.load", "pd.read_pickle"):
                yield f"line {node.lineno}: {called}"
            if given.get("allow_pickle") == "True":
                yield f"line {node.lineno}: allow_pickle=True"


@pytest.mark.parametrize("path", MODULES + sorted((ROOT / "benchmarks").rglob("*.py")), ids=_name)
def test_nothing_is_pickled(path: Path) -> None:
    assert list(unsafe(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(text)",
        "from joblib import dump",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.save(model, f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_pickling_would_be_found(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


PACKAGES = sorted(SOURCE.glob("*/__init__.py"))


@pytest.mark.parametrize("path", PACKAGES, ids=_name)
def test_a_package_says_what_belongs_there_and_holds_names_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    said = ast.get_docstring(tree) or ""
    assert len(said) > 30
    assert "TODO" not in said
    for node in tree.body[1:]:  # re-exports, plain dictionaries, and a lazy import
        lazy = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        names = isinstance(node, ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.If)
        assert lazy or names, ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def undocumented(package: ModuleType) -> Iterator[str]:
    """Names that a package makes public without describing them, methods of classes included."""
    for name, thing in vars(package).items():
        if name.startswith("_") or not inspect.isclass(thing) | inspect.isfunction(thing):
            continue
        if not thing.__module__.startswith("gracile"):
            continue
        if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):  # what a dataclass writes by itself
            yield name
        methods = vars(thing).items() if inspect.isclass(thing) else ()
        for method, code in methods:
            own = inspect.isfunction(code) and not method.startswith("_") and method not in _TORCHS
            if own and not code.__doc__:
                yield f"{name}.{method}"


_TORCHS = {"extra_repr"}  # described by torch.nn.Module


@pytest.mark.parametrize("path", PACKAGES, ids=_name)
def test_what_is_public_is_described(path: Path) -> None:
    package = importlib.import_module(f"gracile.{path.parent.name}")
    assert list(undocumented(package)) == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_todo_names_an_issue(path: Path) -> None:
    assert [
        line for line in path.read_text().splitlines() if re.search(r"\b(TODO|FIXME)\b(?!.*#\d)", line)
    ] == []


def test_types_are_shipped() -> None:
    assert (SOURCE / "py.typed").exists()


# Documentation


def blocks(path: Path, language: str) -> list[str]:
    """Fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    if "://" not in target and not target.startswith("mailto:")
]


@pytest.mark.parametrize(
    ("page", "target"), LINKS, ids=lambda part: part if isinstance(part, str) else part.name
)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands(page: Path) -> list[str]:
    """Commands of our own in shell blocks, without comments and continuation."""
    text = "\n".join(blocks(page, "sh") + blocks(page, "console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ").strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith(("gracile ", "make "))]


COMMANDS = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_in_the_documentation_parses(page: str, line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(arguments) <= set(targets)
        return
    from gracile.cli.main import app

    group = typer.main.get_command(app)
    with group.make_context("gracile", list(arguments), resilient_parsing=True) as context:
        name, command, rest = group.resolve_command(context, arguments)
        assert name in arguments
        with command.make_context(name, rest, parent=context):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/techniques/fine-tuning.md"])
def test_a_pages_python_runs(page: str, tmp_path: Path) -> None:
    code = "\n".join(blocks(ROOT / page, "python"))
    assert code, f"{page} shows no Python"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
