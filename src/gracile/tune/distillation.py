"""Knowledge distillation: the student also learns what the teacher thinks of the wrong answers.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531,
section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gracile.errors import BadArgument
from gracile.graph import evaluating
from gracile.observe import bfloat16_autocast

from .loss import CrossEntropy


class Distillation:
    """Cross entropy with the labels and, softened, with the teacher.

    With student logits ``s``, teacher logits ``t``, labels ``y``, temperature ``T`` and weight ``w``:
    ``(1 - w) CE(s, y) + w T^2 KL(softmax(t / T) || softmax(s / T))``, in nats, averaged over the batch.
    ``T^2`` keeps the gradient of the second term at its size when ``T`` changes.

    The teacher is run on the very images that the student sees, augmentation included, in evaluation mode and
    without gradients; it is moved to where the images are and otherwise left as it was. A step takes longer
    by its forward pass.

    Args:
        teacher: Gives logits ``(batch, classes)``, as many classes as the student.
        temperature: ``T``, above 0.
        weight: ``w``, from 0 to 1.
        label_smoothing: Of the first term, as in :class:`~gracile.tune.CrossEntropy`.
        bf16: Run the teacher under bfloat16 autocast; None: where the device computes it fast.

    Raises:
        BadArgument: Temperature or weight lie outside their range, or the teacher gives other outputs.

    Example:
        >>> student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> images, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
        >>> Distillation(teacher)(student(images), labels, images).backward()
        >>> teacher.weight.grad is None
        True
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        temperature: float = 4.0,
        weight: float = 0.5,
        label_smoothing: float = 0.0,
        bf16: bool | None = False,
    ) -> None:
        if not temperature > 0:
            raise BadArgument("temperature", wanted="above 0", found=f"{temperature=}")
        if not 0 <= weight <= 1:
            raise BadArgument("weight", wanted="from 0 to 1", found=f"{weight=}")
        self.teacher, self.temperature, self.weight, self.bf16 = teacher, temperature, weight, bf16
        self.hard = CrossEntropy(label_smoothing=label_smoothing)

    def __call__(self, outputs: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """The loss of one batch; computed in float32 whatever the outputs are."""
        hard = self.hard(outputs, labels, images)
        if not self.weight:
            return hard
        taught = self._taught(images)
        if taught.shape != outputs.shape:
            raise BadArgument(
                "teacher",
                wanted=f"outputs like the student's, {tuple(outputs.shape)}",
                found=f"{tuple(taught.shape)}",
            )
        heat = self.temperature
        soft = F.kl_div(
            F.log_softmax(outputs.float() / heat, dim=1),
            F.log_softmax(taught / heat, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * hard + self.weight * heat**2 * soft

    def identity(self) -> dict[str, object]:
        """Settings that a checkpoint must share, the teacher's weights among them."""
        settings = {"teacher": self.teacher, "temperature": self.temperature, "weight": self.weight}
        return {**settings, "bf16": self.bf16, **self.hard.identity()}

    def _taught(self, images: Tensor) -> Tensor:
        self.teacher.to(images.device)
        with (
            evaluating(self.teacher),
            torch.no_grad(),
            bfloat16_autocast(images.device, self.bf16),
        ):
            taught: Tensor = self.teacher(images)
        return taught.float()
