"""The messages between processes, each with two of them, and alone."""

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from reidkit import distributed
from tests import processes

TENSORS = {
    "float64": torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "integers": torch.tensor([[1], [-(2**60)], [3]]),
    "flags": torch.tensor([True, False, True]),
    "bytes": torch.tensor([255, 0], dtype=torch.uint8),
    "columns": torch.arange(6.0).view(2, 3).t(),  # not contiguous
    "channels last": torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "no rows": torch.zeros(0, 4),
}


def of_rank(tensor, rank):
    """Another value on every rank."""
    return tensor ^ bool(rank) if tensor.dtype == torch.bool else tensor + rank


def gathered():
    rank = distributed.rank()
    return {name: distributed.gather(of_rank(value, rank)) for name, value in TENSORS.items()}


class Network(nn.Module):
    """A linear layer, and a loss in which every row meets every other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4).double()

    def forward(self, rows):
        return meet(distributed.gather_with_grad(self.linear(rows)))


def meet(rows):
    return (rows @ rows.t()).softmax(1).square().sum()


def rows_of_all():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, generator=generator, dtype=torch.float64)


def gradients_through_gather():
    network = Network()
    parallel = DistributedDataParallel(network)  # held: with it would go its part of backward
    parallel(rows_of_all().chunk(2)[distributed.rank()]).backward()
    kept = [value.grad for value in network.parameters()]
    frozen = distributed.gather_with_grad(rows_of_all())
    return kept, frozen.requires_grad


def totals():
    """Each rank's loss uses the sum; the first rank's counts tenfold."""
    x = (torch.tensor([1.0, 2.0], dtype=torch.float64) * (1 + distributed.rank())).requires_grad_()
    summed = distributed.total_with_grad(x)
    weight = 1.0 if distributed.rank() else 10.0
    (weight * summed.square()).sum().backward()
    before = torch.arange(6).view(2, 3).t()
    after = distributed.total(before)
    return summed.detach(), x.grad, after, before


def agreements():
    rank = distributed.rank()
    return {
        "any": distributed.any_rank([rank == 0, rank == 1, False]),
        "none": distributed.any_rank([]),
        "from": distributed.from_main({"rank": rank, "words": ["a"]}),
        "from none": distributed.from_main(None if rank == 0 else 3),
        "to": distributed.to_main((rank, "x" * rank)),
        "who": (rank, distributed.world_size(), distributed.is_main(), distributed.launched()),
    }


def shared_buffers():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm2d(2))
    module.register_buffer("flags", torch.tensor([distributed.rank() == 0]))
    module.register_buffer("columns", torch.full((2, 3), 7.0 + distributed.rank()).t())
    rank = distributed.rank()
    with torch.no_grad():
        module[0].running_mean.fill_(rank + 1)
        module[0].num_batches_tracked.fill_(rank + 5)
        module[0].weight.fill_(rank + 9)
    held = dict(module.named_buffers())
    distributed.share_buffers(module)
    same = all(value is held[name] for name, value in module.named_buffers())
    return dict(module.named_buffers()), module[0].weight.detach(), same


def failures():
    found = {}
    for name, ranks in (("none", ()), ("second", (1,)), ("both", (0, 1))):
        error = OSError(f"no {name}") if distributed.rank() in ranks else None
        try:
            distributed.fail_together(error)
        except Exception as raised:
            found[name] = (type(raised).__name__, str(raised))
    try:
        distributed.fail_together(KeyError() if distributed.rank() == 0 else None)
    except Exception as raised:
        found["wordless"] = (type(raised).__name__, str(raised))
    return found


def joined_again():
    with distributed.joined():
        inside = distributed.world_size()
    after = distributed.world_size()  # the outer one goes on
    try:
        with distributed.joined():
            raise ValueError("inside")
    except ValueError:
        pass
    return inside, after, distributed.any_rank([True])


WORKS = (
    gathered,
    gradients_through_gather,
    totals,
    agreements,
    shared_buffers,
    failures,
    joined_again,
)


def all_works():
    return {work.__name__: work() for work in WORKS}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return processes.run(all_works, world=2, folder=tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("name", TENSORS)
def test_rows_are_gathered_in_the_order_of_ranks(pair, name):
    expected = torch.cat([of_rank(TENSORS[name], rank) for rank in range(2)])
    for rank in pair:
        assert rank["gathered"][name].dtype == expected.dtype
        assert torch.equal(rank["gathered"][name], expected)


def test_ddps_gradient_through_a_gather_is_that_of_one_process(pair):
    network = Network()
    meet(network.linear(rows_of_all())).backward()
    for rank in pair:
        found, required = rank["gradients_through_gather"]
        assert_close(found, [value.grad for value in network.parameters()])
        assert not required


def test_a_total_is_the_sum_and_sends_the_sum_of_gradients_back(pair):
    # x is [1, 2] and [2, 4], their sum s [3, 6]; the losses 10 s^2 and s^2 give 2 s (10 + 1).
    for rank in pair:
        summed, gradient, whole, before = rank["totals"]
        assert summed.tolist() == [3, 6]
        assert gradient.tolist() == [66, 132]
        assert torch.equal(whole, 2 * before)
        assert torch.equal(before, torch.arange(6).view(2, 3).t())


def test_flags_and_values_are_agreed_on(pair):
    for number, rank in enumerate(pair):
        told = rank["agreements"]
        assert told["any"] == [True, True, False]
        assert told["none"] == []
        assert told["from"] == {"rank": 0, "words": ["a"]}
        assert told["from none"] is None
        assert told["who"] == (number, 2, number == 0, 2)
    assert pair[0]["agreements"]["to"] == [(0, ""), (1, "x")]
    assert pair[1]["agreements"]["to"] is None


def test_buffers_become_the_first_ranks_and_weights_stay(pair):
    for number, rank in enumerate(pair):
        buffers, weight, same_objects = rank["shared_buffers"]
        assert buffers["0.running_mean"].tolist() == [1, 1, 1]
        assert int(buffers["0.num_batches_tracked"]) == 5
        assert buffers["flags"].tolist() == [True]
        assert buffers["columns"].eq(7).all()
        assert weight.tolist() == [number + 9] * 3
        assert same_objects


def test_an_error_of_one_rank_is_raised_on_all(pair):
    first, second = (rank["failures"] for rank in pair)
    assert "none" not in first and "none" not in second
    assert second["second"] == ("OSError", "no second")
    assert first["second"] == ("FailedElsewhere", "process 1: no second")
    assert first["both"] == second["both"] == ("OSError", "no both")
    assert second["wordless"] == ("FailedElsewhere", "process 0: KeyError")


def test_joining_inside_a_joined_process_changes_nothing(pair):
    for rank in pair:
        assert rank["joined_again"] == (2, 2, [True])


def test_alone_everything_is_the_identity(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    x = torch.randn(3, 2, requires_grad=True)
    with distributed.joined():
        assert not dist.is_initialized()
        assert distributed.gather_with_grad(x) is x
        assert distributed.gather(x) is x
        assert distributed.total(x) is x
        assert distributed.total_with_grad(x) is x
        assert distributed.any_rank([True, False]) == [True, False]
        assert distributed.from_main(x) is x
        assert distributed.to_main(x) == [x]
        distributed.share_buffers(nn.BatchNorm1d(2))
        distributed.fail_together(None)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert (distributed.launched(), distributed.local_rank()) == (1, 0)


def test_alone_an_error_is_raised_as_it_is():
    error = OSError("no disk")
    with pytest.raises(OSError, match="no disk") as raised:
        distributed.fail_together(error)
    assert raised.value is error


def world(monkeypatch, **facts):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    for name, value in facts.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("size", ["two", "", "0", "-1", "1.5"])
def test_a_world_size_that_is_no_number_is_named(monkeypatch, size):
    world(monkeypatch, WORLD_SIZE=size)
    with pytest.raises(ValueError, match=rf"WORLD_SIZE is '{size}', expected a whole number"):
        distributed.launched()


def enter():
    with distributed.joined():
        pass


def test_half_an_environment_names_what_is_missing(monkeypatch):
    world(monkeypatch, WORLD_SIZE="2", RANK="0")
    with pytest.raises(ValueError, match=r"no MASTER_ADDR, MASTER_PORT: start with torchrun"):
        enter()
    assert not dist.is_initialized()


def test_a_taken_port_is_one_clear_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        world(monkeypatch, WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        with pytest.raises(ConnectionError, match=r"process 0 of 2 cannot meet") as raised:
            enter()
    words = str(raised.value)
    assert f"127.0.0.1:{port}" in words
    assert "--master-port" in words
    assert "\n" not in words
    assert not dist.is_initialized()


LEAVES = """
from reidkit import distributed
try:
    with distributed.joined():
        assert distributed.world_size() == 2
        raise ValueError("inside")
except ValueError:
    print("left", distributed.world_size())
"""


def test_an_exception_leaves_the_group():
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    facts = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVES],
            env={**os.environ, **facts, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=60)[0] for process in started]
    assert told == ["left 1\n", "left 1\n"]
    assert [process.returncode for process in started] == [0, 0]
