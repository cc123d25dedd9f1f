"""A recipe: which model, which data, which steps in which order, and what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gracile.records import is_user_code

from .explain import explain
from .schema import NAME, Part
from .source import Source, override, parse, read, step_names
from .steps import AnyStep, QuantizeStep


class ModelPart(Part):
    """The trained network."""

    spec: str = Field(examples=["gracile:resnet56", "timm:resnet50", "torchvision:resnet18", "net.py:build"])
    """``gracile:NAME``, ``torchvision:NAME``, ``timm:NAME`` or ``path/to/file.py:function``."""
    weights: str | None = None
    """A ``.safetensors`` or ``.pt`` file (weights only), looked for beside the recipe, then under the data
    root; without it the model starts as its constructor leaves it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the constructor."""


class DataPart(Part):
    """Training images (for calibration and tuning) and test images (for the last word)."""

    spec: str = Field(examples=["digits", "cifar10", "images:photos", "data.py:load"])
    """``digits``, ``mnist``, ``cifar10``, ``images:FOLDER`` or ``path/to/file.py:function``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the loader."""


class MeasurePart(Part):
    """What is measured before, between and after the steps."""

    runtimes: tuple[Literal["torch", "ort", "openvino"], ...] = Field(default=("torch", "ort"), min_length=1)
    """Where speed is measured. PyTorch runs the float model only; one that isn't installed is left out, and
    the report says so."""
    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 32), min_length=1)
    """Batch sizes; the largest gives the headline."""
    runs: int = Field(default=15, ge=6)
    """Timed runs of each model, interleaved."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of every runtime; all cores when empty."""
    batch_size: int = Field(default=256, ge=1)
    """Batch size for accuracy."""
    test_images: int | None = Field(default=None, ge=1)
    """Use only the first so many test images; all when empty."""
    after_each_step: bool = True
    """Also measure accuracy after every step."""
    reference_int8: bool = True
    """Also quantize and export the uncompressed model, so that the report can say whether the other
    steps paid beside int8 alone."""

    @property
    def accuracy_config(self) -> dict[str, Any]:
        """The fields that accuracies depend on."""
        return self.model_dump(include={"batch_size", "test_images"})


class Recipe(Part):
    """An ordered list of steps on one model and one data set.

    Example:
        >>> recipe = parse_recipe('''
        ... name: tiny
        ... model: {spec: "gracile:demo_net"}
        ... data: {spec: digits}
        ... steps:
        ... - step: fold
        ... - step: export
        ... ''')
        >>> [step.step for step in recipe.steps]
        ['fold', 'export']
    """

    name: str = Field(pattern=rf"^{NAME}$")
    """Name of the run, and of its folder unless ``--out`` says otherwise."""
    description: str = ""
    """A sentence for the report."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch during the steps; as they are set when empty. Networks as small as the demo's are
    faster with one. What is timed has its own, ``measure.threads``."""
    model: ModelPart
    data: DataPart
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """Carried out in this order."""
    measure: MeasurePart = MeasurePart()

    @model_validator(mode="after")
    def _steps_in_an_order_that_works(self) -> Self:
        quantized, masked, folded, shared = "", "", False, False
        for index, step in enumerate(self.steps):
            if quantized and not step.after_quantize:
                raise _order(index, f"`{step.step}` before `{quantized}`", "it behind", "Move it up.")
            if masked and step.needs_unmasked:
                wanted = f"`{step.step}` before `{masked}`, which makes weights zero for good"
                raise _order(index, wanted, "it behind", "Move it up.")
            if step.makes_original and any(not earlier.makes_original for earlier in self.steps[:index]):
                do = f"Move it up, or use `tune` to train the compressed model, not `{step.step}`."
                raise _order(index, f"`{step.step}` before every other step", "it behind one", do)
            if folded and isinstance(step, QuantizeStep) and not step.calibration:
                do = "Leave `fold` out, batch norms are folded then anyway; or give `calibration` images."
                raise _order(
                    index, "batch norms in front of `calibration: 0`, which reads them", "`fold`", do
                )
            if shared and not (step.only_writes or isinstance(step, QuantizeStep)):
                do = "Put `codebook` behind it."
                raise _order(index, "`quantize`, `export` or `pack` behind `codebook`", f"`{step.step}`", do)
            quantized = step.step if step.quantizes else quantized
            masked = step.step if step.makes_masks else masked
            folded = folded or step.step == "fold"
            shared = shared or step.step == "codebook"
        return self

    @model_validator(mode="after")
    def _files_of_their_own(self) -> Self:
        files = [getattr(step, "file", "") for step in self.steps]
        for index, file in enumerate(files):
            if file and file in files[:index]:
                do = "Give it another `file`."
                raise _order(index, "a file of its own for each step", f"`{file}` again", do)
        return self

    @property
    def step_names(self) -> tuple[str, ...]:
        """One name for each step, no name twice."""
        return tuple(step_names([{"name": step.name, "step": step.step} for step in self.steps]))

    @property
    def only_trains(self) -> bool:
        """Whether no step comes after the original is made: there is nothing to compress."""
        return all(step.makes_original for step in self.steps)


def _order(index: int, wanted: str, found: str, do: str) -> PydanticCustomError:
    context = {"index": index, "found": found, "do": do}
    return PydanticCustomError("step_order", wanted, context)


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe file.

    Args:
        path: A YAML file. Python files named in it (``net.py:build``) and weights are looked for beside it
            first.
        overrides: Texts such as ``steps.tune.epochs=2``, applied in order before the check.

    Raises:
        RecipeError: The file or an override does not make a recipe; says where and what was wanted.
    """
    path = Path(path)
    return _validated(_beside(override(read(path), overrides or []), path.parent))


def parse_recipe(text: str, overrides: list[str] | None = None, *, file: str = "recipe") -> Recipe:
    """Like :func:`load_recipe`, from text; ``file`` is its name in errors.

    Raises:
        RecipeError: The text or an override does not make a recipe.

    Example:
        >>> from gracile.errors import RecipeError
        >>> try:
        ...     parse_recipe("name: tiny\\nmodle: {}", file="r.yaml")
        ... except RecipeError as error:
        ...     print(error.where, error.found, error.do.partition("?")[0])
        r.yaml:2, modle 'modle' Did you mean model
    """
    return _validated(override(parse(text, file), overrides or []))


def _validated(source: Source) -> Recipe:
    try:
        return Recipe.model_validate(source.data)
    except ValidationError as error:
        raise explain(error, source, Recipe) from error


def _beside(source: Source, folder: Path) -> Source:
    """Make names of files that lie beside the recipe absolute, so that it works from any folder."""
    for part, key in (("model", "spec"), ("model", "weights"), ("data", "spec")):
        section = source.data.get(part)
        value = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(value, str) or (part, key) in source.overrides:
            continue
        file, colon, function = value.rpartition(":") if is_user_code(value) else (value, "", "")
        if (key == "weights" or colon) and (folder / file).is_file():
            section[key] = f"{(folder / file).resolve()}{colon}{function}"
    return source
