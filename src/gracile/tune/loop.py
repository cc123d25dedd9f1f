"""The training loop: Accelerate moves things to the device, hooks act, the held-out part chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.progress import Progress
from torch import nn

from gracile.graph import evaluating
from gracile.observe import device_of

from .config import TuneConfig
from .hooks import Hook
from .loss import CrossEntropy, Loss
from .progress import training_bar
from .records import EpochRecord, History
from .session import Session
from .source import Data, make_source


def fit(
    model: nn.Module,
    train_data: Data,
    config: TuneConfig,
    *,
    holdout: Data | None = None,
    loss: Loss | None = None,
    hooks: Sequence[Hook] = (),
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    progress: bool | Progress = False,
) -> History:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    The best epoch is the one with the highest accuracy (then the lowest loss) on the held-out part, or the
    last one when nothing is held out. The model keeps its device and the mode of each module. The same call
    gives the same weights on the same machine, and so does a call that goes on from ``checkpoint``. Under
    ``accelerate launch`` the processes share each epoch and each takes ``batch_size`` examples a step.

    Args:
        model: Gives ``(batch, classes)`` for images ``(batch, ...)``.
        train_data: Examples, or batches of images and labels; see :func:`gracile.tune.source.make_source`.
        config: Every choice that changes the result.
        holdout: Held-out data; default, ``config.holdout`` of the examples. Never the test data.
        loss: Outputs, labels and images to one number; default, cross entropy with the configured smoothing.
        hooks: Objects that act before and after each step and after each epoch.
        checkpoint: File for the state after each epoch; when it exists, the run goes on from there. One of
            another run is refused: configuration, starting weights, loss and hooks with their settings count.
        on_epoch: Called with each new epoch's record.
        progress: Show a bar; or a ``rich`` progress display to add one to.

    Returns:
        Losses, accuracies, learning rates and seconds of each epoch.

    Raises:
        BadArgument: The data cannot be used with this configuration.
        UnsupportedOperation: ``torch.compile`` was asked for and cannot compile the model here.
        NonFiniteError: The loss became NaN or infinite; says in which epoch and step and at what rate.
        StorageError: The checkpoint cannot be written, is damaged, or belongs to another run.

    Example:
        >>> images = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        >>> data = torch.utils.data.TensorDataset(images, (images[:, 0] > 0).long())
        >>> model = nn.Linear(3, 2)
        >>> history = fit(model, data, TuneConfig(epochs=20, lr=0.5, batch_size=16, bf16=False))
        >>> history.best.train_accuracy > 90
        True
    """
    accelerator = Accelerator()
    source = make_source(
        train_data,
        config,
        holdout,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    home = device_of(model)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    loss = loss or CrossEntropy(label_smoothing=config.label_smoothing)
    session = Session(model, source, config, loss, tuple(hooks))
    with evaluating(model), torch.random.fork_rng(devices=devices):
        try:
            session.begin(accelerator, checkpoint)
            with training_bar(
                progress if accelerator.is_main_process else False,
                total=config.epochs * source.steps,
                done=session.step,
            ) as advance:
                while not session.finished:
                    record = session.run_epoch(advance)
                    session.save(checkpoint)
                    if on_epoch:
                        on_epoch(record)
            session.keep_best()
        finally:
            session.end()
            model.to(home)
    return session.history
