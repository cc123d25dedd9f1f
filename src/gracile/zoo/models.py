"""A model by its specification, such as ``gracile:resnet56`` or ``timm:resnet50``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gracile.errors import ModelError, did_you_mean, import_extra
from gracile.records import is_user_code, user_function

from .cifar_quick import cifar_quick
from .cifar_resnet import resnet20, resnet20b, resnet32, resnet44, resnet56, resnet56b, resnet110
from .demo_net import demo_net
from .lenet import lenet
from .lenet_cifar import lenet_cifar
from .speech_nets import lid, sad
from .vgg import vgg19
from .weights import load_weights
from .wide_resnet import wrn16_2, wrn28_10

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "resnet20b": resnet20b,
    "resnet56b": resnet56b,
    "vgg19": vgg19,
    "wrn16_2": wrn16_2,
    "wrn28_10": wrn28_10,
    "lenet": lenet,
    "sad": sad,
    "lid": lid,
    "lenet_cifar": lenet_cifar,
    "cifar_quick": cifar_quick,
    "demo_net": demo_net,
}

_NEVER = ("pretrained", "weights", "weights_backbone", "checkpoint_path", "pretrained_cfg")


def load_model(
    spec: str, *, weights: Path | str | None = None, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a model in evaluation mode; nothing is downloaded.

    Args:
        spec: ``gracile:NAME`` (see :data:`MODELS`), ``torchvision:NAME``, ``timm:NAME``, or
            ``path/to/file.py:function``, whose function takes ``options`` and returns a module.
        weights: ``.safetensors``, or a torch checkpoint that holds tensors only. Without it the weights
            are random.
        options: Keyword arguments of the builder, such as ``{"classes": 100}``.

    Raises:
        ModelError: The specification names nothing that can be built.
        MissingExtra: torchvision or timm is not installed.
        WeightsError: The weights do not fit.
        NonFiniteError: The weights hold NaN or infinity.

    Example:
        >>> type(load_model("gracile:demo_net", options={"width": 8})).__name__
        'DemoNet'
        >>> load_model("gracile:lenett")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        gracile.errors.ModelError: gracile:lenett: wanted a model of gracile, found 'lenett'. Did you mean ...
    """
    options = dict(options or {})
    if is_user_code(spec):
        build: Callable[..., Any] = user_function(spec, ModelError)
    else:
        source, colon, name = spec.partition(":")
        if not colon or source not in _SOURCES:
            raise ModelError(
                spec,
                wanted="gracile:NAME, torchvision:NAME, timm:NAME or file.py:function",
                found=f"{spec!r}",
                do=_guess_source(spec),
            )
        forbidden = [key for key in _NEVER if key in options]
        if forbidden:
            raise ModelError(
                spec,
                wanted="weights from a file",
                found=f"option {forbidden[0]}",
                do="Leave it out and name a weights file.",
            )
        build = _SOURCES[source](spec, name)
    model = _call(spec, build, options)
    if weights is not None:
        load_weights(model, Path(weights))
    return model.eval()


def _call(spec: str, build: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    """Build, telling options that do not exist apart from errors inside the builder."""
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        raise ModelError(spec, wanted="options that the model takes", found=str(error)) from error
    try:
        model = build(**options)
    except TypeError as error:  # an option that **kwargs carried further down
        raise ModelError(spec, wanted="a model that builds with these options", found=str(error)) from error
    if not isinstance(model, nn.Module):
        raise ModelError(spec, wanted="a torch.nn.Module", found=f"a {type(model).__name__}")
    return model


def _own(spec: str, name: str) -> Callable[..., Any]:
    if name not in MODELS:
        raise _unknown(spec, "gracile", name, list(MODELS))
    return MODELS[name]


def _torchvision(spec: str, name: str) -> Callable[..., Any]:
    models = import_extra("torchvision.models", "vision")
    if name not in (known := models.list_models()):
        raise _unknown(spec, "torchvision", name, known)
    builder = models.get_model_builder(name)
    takes = inspect.signature(builder).parameters
    fixed: dict[str, Any] = {"weights": None}
    if "weights_backbone" in takes:  # its default downloads
        fixed["weights_backbone"] = None

    def build(**options: Any) -> Any:
        if name in ("googlenet", "inception_v3"):  # a slow initialisation that is being given up
            options = {"init_weights": False, **options}
        return builder(**fixed, **options)

    return build


def _timm(spec: str, name: str) -> Callable[..., Any]:
    timm = import_extra("timm", "vision")
    if not timm.is_model(name):  # refuses hf-hub: and local-dir: names, which would fetch
        raise _unknown(spec, "timm", name, timm.list_models())

    def build(**options: Any) -> Any:
        return timm.create_model(name, pretrained=False, **options)

    return build


_SOURCES = {"gracile": _own, "torchvision": _torchvision, "timm": _timm}


def _unknown(spec: str, source: str, name: str, known: list[str]) -> ModelError:
    return ModelError(spec, wanted=f"a model of {source}", found=repr(name), do=did_you_mean(name, known))


def _guess_source(spec: str) -> str:
    """What a name without a known source may have meant."""
    source, colon, _ = spec.partition(":")
    if colon:
        return did_you_mean(source, _SOURCES)
    return f"Did you mean gracile:{spec}?" if source in MODELS else ""
