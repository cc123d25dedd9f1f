"""Parts from plans."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gracile.errors import BadArgument
from gracile.nn import MaskChannels, attach_, parts_of
from gracile.records import PrunePlan, Rewire
from gracile.surgery import absorb_masks_, apply
from gracile.surgery.rewire import rewire_


def rewire(kind: str, size: int, keep: tuple[int, ...]) -> Rewire:
    return Rewire(layer="0", module="0", kind=kind, size=size, keep=keep)


def test_parts_compose() -> None:
    layer = nn.Conv2d(4, 2, 1)
    for keep, size in (((0, 2, 3, 5), 6), ((0, 1, 3), 4), ((2, 1), 3)):
        rewire_(layer, rewire("gather", size, keep))
        rewire_(layer, rewire("scatter", size, keep))
    assert parts_of(layer)["gather"].index.tolist() == [5, 2]
    assert parts_of(layer)["scatter"].index.tolist() == [5, 2]
    assert parts_of(layer)["scatter"].table.numel() == 6
    rewire_(layer, rewire("mask", 3, (0, 1)))
    rewire_(layer, rewire("mask", 3, (1, 2)))
    assert parts_of(layer)["mask"].mask.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("keep", [(), (3,)])
def test_misfits_are_refused(keep) -> None:
    with pytest.raises(BadArgument, match="0: wanted 3 channels"):
        rewire_(nn.Conv2d(3, 3, 1), rewire("scatter", 3, keep))
    layer = nn.Conv2d(3, 3, 1)
    rewire_(layer, rewire("gather", 3, (0, 1)))
    with pytest.raises(BadArgument, match="0: wanted 3 channels, found 2"):
        rewire_(layer, rewire("gather", 3, (0, 1)))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 3, 1)],
)
def test_masks_are_absorbed_where_they_can_be(layer) -> None:
    net = nn.Sequential(layer).eval()
    outs = layer(torch.zeros(1, 2, 3, 3)).shape[1]
    attach_(layer, "mask", MaskChannels(torch.tensor([0.0, 1.0, 1.0][:outs])))
    x = torch.randn(2, 2, 3, 3)
    with torch.no_grad():
        wanted = net(x)
        assert absorb_masks_(net) == (() if isinstance(layer, nn.ConvTranspose2d) else ("0",))
        torch.testing.assert_close(net(x), wanted)


def test_a_border_of_a_plan_has_the_shape_to_load_into() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    border = Rewire(layer="0", module="0", kind="border", size=2, ends=((1, 1), (0, 2)))
    small = apply(net, PrunePlan(groups=(), slices=(), rewires=(border,)))
    assert small[0].border.table.shape == (2, 3, 3)
    assert "0.border.table" not in net.state_dict()
