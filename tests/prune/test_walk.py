"""Running a graph operation by operation."""

from __future__ import annotations

import torch

from gracile.graph import capture
from gracile.observe import chunks
from gracile.prune.walk import Walk


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
