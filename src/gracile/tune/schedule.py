"""The learning rate as a pure function of how far the run has come.

Source: cosine without restarts from Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
Restarts", ICLR 2017, arXiv 1608.03983, equation 5 with one period and the lowest rate 0; linear warm-up from
Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677, section 2.2; going on in the
middle of a schedule (learning-rate rewinding) from Renda, Frankle and Carbin, "Comparing rewinding and
fine-tuning in neural network pruning", ICLR 2020, arXiv 2003.02389, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Shape = Callable[[float, Sequence[float], float], float]


def cosine(done: float, milestones: Sequence[float], gamma: float) -> float:
    """``(1 + cos(pi done)) / 2``."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def step(done: float, milestones: Sequence[float], gamma: float) -> float:
    """``gamma`` to the number of milestones that lie behind."""
    return float(gamma ** sum(done >= milestone for milestone in milestones))


def constant(done: float, milestones: Sequence[float], gamma: float) -> float:
    """Always 1."""
    return 1.0


SCHEDULES: dict[str, Shape] = {"cosine": cosine, "step": step, "constant": constant}


def learning_rate(
    index: int,
    total: int,
    *,
    lr: float,
    schedule: str = "cosine",
    warmup: int = 0,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    rewound: float = 0.0,
) -> float:
    """Learning rate of step ``index`` out of ``total``.

    During the first ``warmup`` steps it is ``lr (index + 1) / (warmup + 1)``; afterwards ``lr`` times the
    schedule's shape at ``r + (1 - r) (index - warmup) / (total - warmup)``, ``r`` being ``rewound``.

    Args:
        index: Step, from 0.
        total: Steps of the whole run, above ``warmup``.
        lr: Highest learning rate.
        schedule: A key of :data:`SCHEDULES`.
        warmup: Steps of the linear rise.
        milestones: For ``step``: shares of the run after the warm-up.
        gamma: For ``step``: factor at each milestone.
        rewound: Share of the schedule that lies behind when the run begins.

    Returns:
        The learning rate, from 0 to ``lr``.

    Example:
        >>> [round(learning_rate(i, 4, lr=1.0), 3) for i in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        >>> [learning_rate(i, 4, lr=1.0, schedule="constant", warmup=1) for i in range(4)]
        [0.5, 1.0, 1.0, 1.0]
        >>> [round(learning_rate(i, 2, lr=1.0, rewound=0.5), 3) for i in range(2)]
        [0.5, 0.146]
    """
    if index < warmup:
        return lr * (index + 1) / (warmup + 1)
    done = (index - warmup) / (total - warmup)
    return lr * SCHEDULES[schedule](rewound + (1 - rewound) * done, milestones, gamma)
