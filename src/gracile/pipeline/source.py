"""Recipe text: YAML that remembers the line of every field, and overrides from the command line."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from gracile.errors import RecipeError, did_you_mean

Loc: TypeAlias = tuple[str | int, ...]

_MOST = 100_000  # values of a recipe, each alias counted with all that it stands for
_ENDLESS = "a value that holds itself, or very many levels"


@dataclass(frozen=True)
class Source:
    """A recipe before validation: plain data, and where each field was written.

    ``lines`` maps a path such as ``("steps", 1, "epochs")`` to a line number counted from 1;
    ``overrides`` maps a path to the text of the ``--set`` that wrote it.
    """

    file: str
    data: dict[str, Any]
    lines: dict[Loc, int] = field(default_factory=dict)
    overrides: dict[Loc, str] = field(default_factory=dict)

    def where(self, loc: Loc) -> str:
        """Name a place for a person: ``recipe.yaml:12, steps[1].epochs``, or the ``--set`` that wrote it.

        Example:
            >>> parse("name: a\\nseed: 3", "r.yaml").where(("seed",))
            'r.yaml:2, seed'
        """
        for length in range(len(loc), 0, -1):
            if loc[:length] in self.overrides:
                return f"--set {self.overrides[loc[:length]]}"
        line = next((self.lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in self.lines), 1)
        return f"{self.file}:{line}, {dotted(loc)}" if loc else f"{self.file}:{line}"


def dotted(loc: Loc) -> str:
    """Write a path as a person would.

    Example:
        >>> dotted(("steps", 1, "epochs"))
        'steps[1].epochs'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def read(path: Path) -> Source:
    """Read a recipe file.

    Raises:
        RecipeError: There is no such file, or it is not YAML with one mapping of fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or str(error)
        do = "Give the path of a recipe in YAML; `gracile schema` prints what it may hold."
        raise RecipeError(str(path), wanted="a recipe file", found=found, do=do) from error
    return parse(text, str(path))


def parse(text: str, file: str = "recipe") -> Source:
    """Read recipe text; ``file`` is its name in errors.

    Raises:
        RecipeError: The text is not YAML, not a mapping, has a key twice or one that is no text, or a value
            that cannot be.

    Example:
        >>> parse("seed: 3\\nsteps:\\n- step: fold").lines[("steps", 0, "step")]
        3
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            found = (
                "an empty file"
                if node is None
                else "a list"
                if isinstance(node, yaml.SequenceNode)
                else "a value"
            )
            raise RecipeError(f"{file}:1", wanted="fields such as `name:` and `steps:`", found=found)
        lines: dict[Loc, int] = {}
        _note_lines(node, (), lines, file)
        data: dict[str, Any] = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{file}:{line}", wanted="YAML", found=error.problem or str(error)) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}:1", wanted="YAML", found=str(error)) from error
    except RecursionError as error:
        raise RecipeError(f"{file}:1", wanted="YAML that ends", found=_ENDLESS) from error
    finally:
        loader.dispose()
    return Source(file, data, lines)


class _Loader(yaml.SafeLoader):
    """A value that cannot be, such as the 45th of a month, is told with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = f"{error}; text stands in quotes"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from error


def _note_lines(node: yaml.Node, loc: Loc, lines: dict[Loc, int], file: str) -> None:
    lines.setdefault(loc, node.start_mark.line + 1)
    if len(lines) > _MOST:
        found = "more, each alias counted with all that it stands for"
        raise RecipeError(f"{file}:{lines[loc]}", wanted=f"at most {_MOST:,} values", found=found)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*loc, index), lines, file)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                found = "a list" if isinstance(key, yaml.SequenceNode) else "a mapping"
                raise RecipeError(f"{file}:{line}", wanted="words as keys", found=found)
            place = (*loc, str(key.value))
            if key.value in seen:
                raise RecipeError(
                    f"{file}:{line}, {dotted(place)}",
                    wanted="each key once",
                    found=f"it on lines {seen[key.value]} and {line}",
                    do="Remove one of them.",
                )
            seen[key.value] = line
            lines[place] = line
            _note_lines(value, place, lines, file)


def override(source: Source, assignments: list[str]) -> Source:
    """Apply ``key.path=value`` texts in order; values are read as YAML.

    List items are named by number or, for steps, by name: ``steps.1.epochs=2``, ``steps.tune.epochs=2``.

    Raises:
        RecipeError: An assignment has no ``=``, or its path leads nowhere.

    Example:
        >>> source = parse("steps:\\n- step: tune\\n  epochs: 9")
        >>> override(source, ["steps.tune.epochs=2", "seed=7"]).data
        {'steps': [{'step': 'tune', 'epochs': 2}], 'seed': 7}
    """
    data = deepcopy(source.data)
    written = dict(source.overrides)
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise RecipeError(f"--set {text}", wanted="key.path=value", found=f"{text!r}")
        parsed = yaml_value(value, f"--set {text}")
        written[_assign(data, path.strip().split("."), parsed, text)] = text
    return Source(source.file, data, source.lines, written)


def yaml_value(text: str, where: str) -> Any:
    """Read one value in YAML; ``where`` is its place in errors.

    Raises:
        RecipeError: It is not YAML.

    Example:
        >>> yaml_value("[1, 4]", "--set measure.batches=[1, 4]")
        [1, 4]
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(where, wanted="a value in YAML", found=f"{text!r}") from error
    finally:
        loader.dispose()


def _assign(data: Any, keys: list[str], value: Any, text: str) -> Loc:
    loc: list[str | int] = []
    for key in keys[:-1]:
        place = _place(data, key, text)
        if isinstance(data, dict) and data.get(place) is None:
            data[place] = {}
        data = data[place]
        loc.append(place)
    last = _place(data, keys[-1], text)
    data[last] = value
    return (*loc, last)


def _place(data: Any, key: str, text: str) -> Any:
    """Turn one part of a path into the key or index that it means in ``data``."""
    if isinstance(data, dict):
        return key
    if not isinstance(data, list):
        raise RecipeError(
            f"--set {text}", wanted="a path into the recipe", found=f"{key!r} below a plain value"
        )
    if key.isdecimal():
        if int(key) < len(data):
            return int(key)
        raise RecipeError(f"--set {text}", wanted=f"an index from 0 to {len(data) - 1}", found=key)
    names = step_names([item if isinstance(item, dict) else {} for item in data])
    if key in names:
        return names.index(key)
    raise RecipeError(
        f"--set {text}",
        wanted=f"one of the steps {', '.join(names)}",
        found=f"{key!r}",
        do=did_you_mean(key, names),
    )


def step_names(steps: list[dict[str, Any]]) -> list[str]:
    """Name each step: its ``name``, else its kind, with ``-2``, ``-3`` for the same name again.

    Example:
        >>> step_names([{"step": "tune"}, {"step": "fold"}, {"step": "tune"}])
        ['tune', 'fold', 'tune-2']
    """
    names: list[str] = []
    for step in steps:
        base = str(step.get("name") or step.get("step", ""))
        again = 2
        name = base
        while name in names:
            name, again = f"{base}-{again}", again + 1
        names.append(name)
    return names
