"""Tiny networks of each kind, with lively batch-norm statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


def liven(net: nn.Module) -> nn.Module:
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(m.running_mean, 0, 0.3)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.3)
    return net.eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv3, self.norm3 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv4, self.norm4 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.down, self.norm5 = nn.Conv2d(6, 12, 1, stride=2, bias=False), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(x)).relu()
        x = (self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())) + x).relu()
        y = self.norm4(self.conv4(self.norm3(self.conv3(x)).relu()))
        x = (y + self.norm5(self.down(x))).relu()
        return self.head(x.mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU6(),
            nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
            nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.join = nn.Conv2d(11, 4, 1)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cat([self.left(x).relu(), self.right(x).tanh()], 1)
        return self.head(nn.functional.adaptive_max_pool2d(self.join(x), 3).flatten(1))


class Plain(nn.Module):
    """No padding anywhere; flattening before the head."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 5, 3, bias=bias), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, 6, 3, bias=bias), nn.BatchNorm2d(6), nn.Hardswish(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.hidden, self.head = nn.Linear(6 * 4, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.body(x).flatten(1)).sigmoid())


KINDS = {"residual": Residual, "depthwise": Depthwise, "concat": Concat, "plain": Plain}


@pytest.fixture(params=sorted(KINDS))
def net(request: pytest.FixtureRequest) -> nn.Module:
    """Each kind in turn."""
    return liven(KINDS[request.param]())


@pytest.fixture
def residual() -> nn.Module:
    return liven(Residual())


@pytest.fixture
def depthwise() -> nn.Module:
    return liven(Depthwise())


@pytest.fixture
def concat() -> nn.Module:
    return liven(Concat())


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def plain(request: pytest.FixtureRequest) -> nn.Module:
    return liven(Plain(request.param))


@pytest.fixture
def inputs() -> tuple[Tensor, ...]:
    return (torch.zeros(1, 2, 8, 8),)


@pytest.fixture
def data() -> Tensor:
    return torch.randn(96, 2, 8, 8)


@pytest.fixture
def labels() -> Tensor:
    """Targets of ``data``."""
    return torch.randint(0, 3, (96,), generator=torch.Generator().manual_seed(5))
