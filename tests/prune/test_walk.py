"""Running a graph operation by operation."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from gracile.errors import BadArgument, NonFiniteError
from gracile.graph import capture
from gracile.prune.walk import Walk, chunks, joined


def test_every_kind_of_net_gives_its_own_outputs(net, data) -> None:
    batches = chunks(data, 32)
    captured = capture(net, batches[0])
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    seen = []
    walk = Walk(captured, state.__getitem__, batches, before=seen.append)
    last = walk.nodes[-1].all_input_nodes[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(walk(last)), net(data))
    assert len(seen) == len(set(seen))
    assert set(walk._values) <= {last, *(n for n in walk.nodes if n.op == "placeholder")}


def test_only_what_is_needed_runs(residual, data) -> None:
    captured = capture(residual, (data,))
    seen = []
    walk = Walk(captured, residual.state_dict().__getitem__, [(data,)], before=seen.append)
    walk(next(n for n in walk.nodes if n.op == "call_function"))
    assert len(seen) == 1


@pytest.mark.parametrize("given", [lambda x: x, lambda x: x.split(7), lambda x: [(b,) for b in x.split(50)]])
def test_any_way_of_giving_data_gives_the_same_batches(data, given) -> None:
    found = chunks(given(data), 40)
    assert [len(b[0]) for b in found] == [40, 40]
    assert torch.equal(torch.cat([b[0] for b in found]), data[:80])


@pytest.mark.parametrize("given", [[], torch.zeros(0, 2), [()]])
def test_no_data_is_refused(given) -> None:
    with pytest.raises(BadArgument, match="calibration: wanted at least one input"):
        chunks(given, 4)


def test_batches_may_be_lists_as_a_loader_gives_them(data) -> None:
    loader = DataLoader(TensorDataset(data), batch_size=7)
    assert torch.equal(joined(loader)[0], data)


def test_inputs_that_are_no_numbers_are_counted_and_refused() -> None:
    images = torch.zeros(4, 2)
    images[3, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="calibration: wanted numbers, found NaN in 1 of 4 inputs"):
        chunks([images[:2], images[2:]], 2)
