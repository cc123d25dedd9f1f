"""Tiny networks, one for each way channels can meet; every technique is run on all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (1, 3, 8, 8)


class Plain(nn.Module):
    """Convolutions, batch norm, flatten into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.fc1, self.fc2 = nn.Linear(12 * 16, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        out: Tensor = self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))
        return out


class Residual(nn.Module):
    """A trunk, a block that adds to it, and an option-A shortcut that pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv4, self.bn4 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x))))) + short)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Concat(nn.Module):
    """Two branches joined, split again at a number kept as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 10, 1)
        self.cut = [6, 10]
        self.left, self.right = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(24)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        joined = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        left, right = torch.split(joined, self.cut, 1)
        y = torch.cat([self.left(left), self.right(right), self.left(left)], 1)
        out: Tensor = self.fc(F.adaptive_avg_pool2d(F.relu(self.bn(y)), 1).flatten(1))
        return out


class Depthwise(nn.Module):
    """Inverted residual with a depthwise convolution and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand, self.bn1 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depth, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project, self.bn3 = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.relu6(self.stem(x))
        y = F.relu6(self.bn2(self.depth(F.relu6(self.bn1(self.expand(x))))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.bn3(self.project(y * gate))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Grouped(nn.Module):
    """Grouped convolutions, a channel shuffle, group norm, and chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.few = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.many = nn.Conv2d(16, 16, 3, padding=1, groups=8)
        self.gate = nn.Conv2d(16, 24, 1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.few(x))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        value, gate = self.gate(F.relu(self.many(x))).chunk(2, 1)
        out: Tensor = self.fc((value * torch.sigmoid(gate)).mean((2, 3)))
        return out


class Attention(nn.Module):
    """A transformer block over patches: layer norms, heads, a class token and position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 16
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 5, 16) * 0.1)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        x = x + self.project(y)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        out: Tensor = self.fc(self.norm3(x)[:, 0])
        return out


class Upsampling(nn.Module):
    """Transposed convolution, resampling and padding, an image in and an image out."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bn = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.mix = nn.Conv2d(14, 8, 3)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Two maps of the size of the image."""
        low = F.leaky_relu(self.bn(self.down(x)), 0.1)
        both = torch.cat([F.relu(self.up(low)), F.interpolate(low, scale_factor=2.0)], 1)
        out: Tensor = self.head(F.relu(self.mix(F.pad(both, (1, 1, 1, 1)))))
        return out


class Sequence(nn.Module):
    """One-dimensional convolutions, as in the speech networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 6, 3)
        self.bn = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6 * 60, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images, read row by row."""
        y = F.relu(self.bn(self.conv2(F.relu(self.conv1(x.flatten(2))))))
        out: Tensor = self.fc(y.flatten(1))
        return out


class Volume(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.conv2 = nn.Conv3d(6, 8, (3, 3, 3), stride=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images, their colours as depth."""
        y = F.relu(self.conv2(F.relu(self.bn(self.conv1(x[:, None])))))
        out: Tensor = self.fc(F.adaptive_avg_pool3d(y, 1).flatten(1))
        return out


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "concat": Concat,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "attention": Attention,
    "upsampling": Upsampling,
    "sequence": Sequence,
    "volume": Volume,
}


def net(name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A tiny network with lively numbers in evaluation mode, and one image for it.

    Example:
        >>> model, inputs = net("residual")
        >>> model(*inputs).shape
        torch.Size([1, 10])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NETS[name]().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model, (torch.randn(IMAGE),)
