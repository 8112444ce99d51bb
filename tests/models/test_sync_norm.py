"""Batch norms over processes: they are those of one process on the joined batch."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from reidkit import distributed
from reidkit.losses import CrossEntropyLoss, Objective, Term, TripletLoss
from reidkit.models import BNNeck
from reidkit.models.necks import PartNorm
from reidkit.models.sync_norm import synchronise_norms
from reidkit.types import ModelOutput
from tests import processes

ROWS = {1: (12,), 2: (9, 3), 4: (5, 1, 0, 6)}  # of each rank: never equally many
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def frozen():
    norm = nn.BatchNorm2d(3)
    norm.weight.requires_grad_(False)
    return norm


# name -> norm, shape of a row, where the values lie
CASES = {
    "1d": (lambda: nn.BatchNorm1d(3), (3,), 0.0),
    "1d of sequences": (lambda: nn.BatchNorm1d(3), (3, 5), 0.0),
    "2d": (lambda: nn.BatchNorm2d(3), (3, 4, 2), 0.0),
    "3d": (lambda: nn.BatchNorm3d(3), (3, 4, 2, 2), 0.0),
    "momentum": (lambda: nn.BatchNorm2d(3, momentum=0.7, eps=0.1), (3, 4, 2), 0.0),
    "cumulative": (lambda: nn.BatchNorm2d(3, momentum=None), (3, 4, 2), 0.0),
    "not affine": (lambda: nn.BatchNorm2d(3, affine=False), (3, 4, 2), 0.0),
    "without running": (lambda: nn.BatchNorm1d(3, track_running_stats=False), (3,), 0.0),
    "frozen weight": (frozen, (3, 4, 2), 0.0),
    "far from zero": (lambda: nn.BatchNorm1d(3), (3,), 1e4),
    "parts": (lambda: PartNorm(3, parts=2, learn_bias=False), (2, 3), 0.0),
    "activation": (lambda: BatchNormAct2d(3), (3, 4, 2), 0.0),
    "two": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3)), (3, 4, 2), 0.0),
}


def norm_and_rows(case, dtype=torch.float64):
    """The norm with weights of its own, and the batches of two steps."""
    make, shape, offset = CASES[case]
    generator = torch.Generator().manual_seed(0)
    norm = make()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + 1)
    rows = torch.randn(2, 12, *shape, generator=generator, dtype=torch.float64) + offset
    return norm.to(dtype), rows.to(dtype)


def stepped(case, dtype=torch.float64, channels_last=False):
    """(outputs, gradients of the input, of the parameters, state, output in evaluation) of this
    process's rows; the loss is their sum over processes."""
    norm, batches = norm_and_rows(case, dtype)
    parts = ROWS[distributed.world_size()]
    first = sum(parts[: distributed.rank()])
    own = slice(first, first + parts[distributed.rank()])
    if distributed.world_size() > 1:
        synchronise_norms(norm)
    outputs, gradients = [], []
    for batch in batches:
        x = batch[own]
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        x = x.clone().requires_grad_()
        y = norm(x)
        pull = torch.randn(batch.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        (y * y * pull[own]).sum().backward()
        outputs.append(y.detach())
        gradients.append(x.grad)
    weights = [parameter.grad for parameter in norm.parameters() if parameter.requires_grad]
    with torch.no_grad():
        evaluated = norm.eval()(batches[0][own]) if "running" not in case else None
    return outputs, gradients, weights, norm.state_dict(), evaluated


def all_stepped():
    found = {case: stepped(case) for case in CASES}
    found["channels last"] = stepped("2d", channels_last=True)
    found["float32"] = stepped("far from zero", torch.float32)
    return found


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    return processes.run(all_stepped, world=request.param, folder=folder)


@pytest.mark.parametrize("case", [*CASES, "channels last"])
def test_processes_norm_as_one_does_the_joined_batch(together, case):
    outputs, gradients, weights, state, evaluated = stepped("2d" if case not in CASES else case)
    ranks = [rank[case] for rank in together]
    # Around 10,000 the input itself has 12 digits after the point.
    close = {"rtol": 1e-9, "atol": 1e-9} if case == "far from zero" else TIGHT
    for step in range(2):
        assert_close(torch.cat([rank[0][step] for rank in ranks]), outputs[step], **close)
        assert_close(torch.cat([rank[1][step] for rank in ranks]), gradients[step], **close)
    for place, gradient in enumerate(weights):
        assert_close(sum(rank[2][place] for rank in ranks), gradient, **close)
    for rank in ranks:
        assert list(rank[3]) == list(state)
        assert_close(dict(rank[3]), dict(state), **close)
    if evaluated is not None:
        assert_close(torch.cat([rank[4] for rank in ranks]), evaluated, **close)


def test_channels_last_stays_so(together):
    for rank in together:
        for y in (*rank["channels last"][0], *rank["channels last"][1]):
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_small_variance_far_from_zero_keeps_its_digits_in_float32(together):
    _, batches = norm_and_rows("far from zero", torch.float32)
    exact = batches[0].double().var(0, unbiased=False)
    exact = (batches[0].double() - batches[0].double().mean(0)) * exact.add(1e-5).rsqrt()
    norm, _ = norm_and_rows("far from zero")
    exact = (exact * norm.weight + norm.bias).detach()
    found = torch.cat([rank["float32"][0][0] for rank in together])
    assert_close(found.double(), exact, rtol=0, atol=2e-3)  # half a step of float32 at 10,000


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_the_plain_norm_to_the_last_bit(case, training):
    plain, batches = norm_and_rows(case)
    other = synchronise_norms(copy.deepcopy(plain))
    for norm in (plain, other):
        norm.train(training)
    for batch in batches:
        assert torch.equal(plain(batch), other(batch))
    for mine, theirs in zip(other.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_weights_buffers_hooks_and_modes_stay_the_same_objects():
    norm = nn.BatchNorm2d(3, momentum=0.2, eps=0.01)
    norm.weight.requires_grad_(False)
    shared = nn.Sequential(norm, nn.Sequential(norm).eval())
    called = []
    norm.register_forward_hook(lambda *_: called.append(1))
    before = dict(shared.named_parameters()), dict(shared.named_buffers())
    names = list(shared.state_dict())
    assert synchronise_norms(shared) is shared
    after = dict(shared.named_parameters()), dict(shared.named_buffers())
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new)
        assert all(new[name] is value for name, value in old.items())
    assert list(shared.state_dict()) == names
    assert shared[0] is shared[1][0]
    assert not norm.training
    assert (norm.momentum, norm.eps, norm.weight.requires_grad) == (0.2, 0.01, False)
    shared(torch.randn(2, 3, 1, 1))
    assert called == [1, 1]
    assert isinstance(norm, nn.BatchNorm2d)


def test_twice_is_once_and_a_copy_stays_synchronised():
    module = synchronise_norms(nn.Sequential(nn.BatchNorm1d(2)))
    kind = type(module[0])
    assert type(synchronise_norms(module)[0]) is kind
    assert type(copy.deepcopy(module)[0]) is kind
    assert kind is not nn.BatchNorm1d


def test_a_module_without_batch_norms_is_left_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2))
    kinds = [type(part) for part in module]
    assert [type(part) for part in synchronise_norms(module)] == kinds


class Odd(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def test_a_kind_of_norm_that_would_lose_something_is_named():
    with pytest.raises(ValueError, match=r"batch norm 1 is a Odd, which cannot be synchronised"):
        synchronise_norms(nn.Sequential(nn.BatchNorm2d(2), Odd(2)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 2)
        )
        self.neck = BNNeck(6, num_classes=3)
        self.objective = Objective(
            [
                Term("cross_entropy", CrossEntropyLoss(), "logits"),
                Term("triplet", TripletLoss(), "embedding"),
                Term("feature", TripletLoss(), "feature"),
            ]
        )

    def forward(self, frames, labels):
        embedding = self.backbone(frames).mean((2, 3))[:, None]
        return self.objective(ModelOutput(embedding, *self.neck(embedding)), labels)


def trained():
    torch.manual_seed(0)
    network = Network().double()
    run = network
    world, rank = distributed.world_size(), distributed.rank()
    if world > 1:
        run = DistributedDataParallel(synchronise_norms(network), forward_sync_buffers=False)
    learnt = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(3).repeat(4)
    for _ in range(20):
        frames = torch.randn(12, 2, 6, 5, generator=generator, dtype=torch.float64)
        own = slice(rank * 12 // world, (rank + 1) * 12 // world)
        run(frames[own], labels[own])["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.state_dict()


def test_a_network_with_a_bnneck_and_pair_losses_trains_as_in_one_process(tmp_path):
    alone = trained()
    for state in processes.run(trained, world=2, folder=tmp_path):
        assert_close(dict(state), dict(alone), rtol=1e-9, atol=1e-9)


def too_few():
    norm = synchronise_norms(nn.BatchNorm1d(2))
    try:
        norm(torch.zeros(1 - distributed.rank(), 2))
    except ValueError as error:
        return str(error)


def one_value_each():
    """More than one value over all ranks is enough, and half precision stays half."""
    norm = synchronise_norms(nn.BatchNorm1d(1))
    y = norm(torch.full((1, 1), float(distributed.rank()), dtype=torch.bfloat16))
    return y.detach(), norm.running_var


def test_one_value_over_all_ranks_is_refused_on_all(tmp_path):
    for words in processes.run(too_few, world=2, folder=tmp_path):
        assert "more than 1 value per channel over all ranks, got 1" in words


def test_one_value_on_each_rank_is_enough(tmp_path):
    for rank, (y, variance) in enumerate(processes.run(one_value_each, world=2, folder=tmp_path)):
        assert y.dtype == torch.bfloat16
        assert_close(y.float(), torch.full((1, 1), 2.0 * rank - 1), atol=0.01, rtol=0)
        # mean 0.5, unbiased variance 0.5, a tenth of the way from 1
        assert_close(variance, torch.tensor([0.95]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_it_is_torchs_own():
    module = synchronise_norms(nn.Sequential(nn.BatchNorm2d(2)).cuda())
    assert isinstance(module[0], nn.SyncBatchNorm)
