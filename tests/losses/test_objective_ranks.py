"""The objective over processes: together they compute what one does with the whole batch."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from reidkit import distributed
from reidkit.losses import (
    CrossEntropyLoss,
    Objective,
    RankedListLoss,
    Term,
    TripletLoss,
    build_objective,
)
from reidkit.types import ModelOutput
from tests import processes

IDENTITIES, ROWS, STEPS = 4, 12, 4
MEMORY = {"name": "metric_learning", "loss": "ContrastiveLoss", "memory_size": 30}
PROXIES = {"name": "metric_learning", "loss": "ProxyAnchorLoss"}
CLASSES = {"name": "metric_learning", "loss": "CosFaceLoss", "on": "feature"}
MINED = {"name": "metric_learning", "loss": "CircleLoss", "miner": "MultiSimilarityMiner"}
CENTRES = {"name": "center", "weight": 5e-4}

# name -> parts, terms
CASES = {
    "cross_entropy": (1, [{"name": "cross_entropy"}]),
    "triplet": (1, [{"name": "triplet"}]),
    "batch_all": (1, [{"name": "triplet", "mining": "all", "margin": None}]),
    "ranked_list": (1, [{"name": "ranked_list"}]),
    "ranked_list_pair": (1, [{"name": "ranked_list", "gradient": "pair", "weight": 0.3}]),
    "memory": (1, [MEMORY]),
    "proxies": (1, [PROXIES]),
    "class_weights": (1, [CLASSES]),
    "miner": (1, [MINED]),
    "centres": (1, [{"name": "cross_entropy"}, CENTRES]),
    "part_triplet": (3, [{"name": "part_triplet"}, {"name": "cross_entropy", "weight": 2.0}]),
    "everything": (
        2,
        [
            {"name": "cross_entropy"},
            {"name": "triplet", "on": "feature", "weight": 0.5},
            {"name": "ranked_list"},
            {"name": "ranked_list", "on": "feature"},
            MEMORY,
            PROXIES,
            CENTRES,
        ],
    ),
}


class Model(nn.Module):
    """Points -> parts; without batch norm, so that only the losses know the batch."""

    def __init__(self, parts, objective):
        super().__init__()
        self.embed = nn.Linear(6, parts * 8)
        self.classify = nn.Linear(8, IDENTITIES)
        self.objective = objective
        self.parts = parts

    def forward(self, points, labels):
        embedding = self.embed(points).unflatten(1, (self.parts, 8))
        feature = embedding.tanh()
        return self.objective(ModelOutput(embedding, feature, self.classify(feature)), labels)


def batches():
    """Whose rows are mixed: pairs of an identity lie on different ranks."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        labels = torch.arange(IDENTITIES).repeat(ROWS // IDENTITIES)
        points = torch.randn(ROWS, 6, generator=generator, dtype=torch.float64)
        yield points + labels[:, None], labels


def trained(case):
    """Terms of each step, and the state after the last, of this process's share."""
    parts, specs = CASES[case]
    torch.manual_seed(0)
    objective = build_objective(specs, num_classes=IDENTITIES, embedding_size=8, parts=parts)
    model = Model(parts, objective).double()
    optimizers = [
        torch.optim.SGD([*model.embed.parameters(), *model.classify.parameters()], lr=0.05),
        *objective.own_optimizers().values(),
    ]
    if proxies := objective.main_parameters():
        optimizers.append(torch.optim.SGD([p for some in proxies.values() for p in some], lr=0.05))
    run = model
    if distributed.world_size() > 1:
        run = DistributedDataParallel(
            model, find_unused_parameters=True, forward_sync_buffers=False
        )
    share = ROWS // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    told = []
    for points, labels in batches():
        terms = run(points[own], labels[own])
        terms["loss"].backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        told.append({name: value.detach() for name, value in terms.items()})
    return told, model.state_dict()


def all_trained():
    return {case: trained(case) for case in CASES}


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return processes.run(all_trained, world=request.param, folder=folder)


@pytest.mark.parametrize("case", CASES)
def test_processes_move_as_one(together, case):
    told, state = trained(case)
    for rank in together:
        assert_close(rank[case][1], state, rtol=1e-10, atol=1e-12)
        assert_close(rank[case][0], told, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_and_tell_the_same(together, case):
    first, *others = (rank[case] for rank in together)
    for other in others:
        assert_close(other, first, rtol=0, atol=0)


def output(rows, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(ROWS, 1, 8, generator=generator, dtype=dtype)[rows].requires_grad_()
    return ModelOutput(whole, whole, whole)


def own_rows():
    share = ROWS // distributed.world_size()
    return slice(distributed.rank() * share, (distributed.rank() + 1) * share)


def messages():
    """How many of each kind of message a step with seven terms sends, the first step aside."""
    seen = output(own_rows())
    seen = ModelOutput(seen.embedding, seen.embedding * 2, seen.embedding * 3)
    objective = Objective(
        [
            *(Term("triplet", TripletLoss(), on) for on in ("embedding", "feature") * 2),
            Term("ranked_list", RankedListLoss()),
            *(Term("cross_entropy", CrossEntropyLoss(), "logits") for _ in range(2)),
        ]
    )
    labels = torch.arange(ROWS) % IDENTITIES
    objective(seen, labels[own_rows()])
    sent = []
    for name in ("all_gather", "all_reduce"):
        true = getattr(torch.distributed, name)

        def counted(*args, _name=name, _true=true):
            sent.append(_name)
            return _true(*args)

        setattr(torch.distributed, name, counted)
    objective(seen, labels[own_rows()])["loss"].backward()
    return sorted(sent)


def gradients_of_the_ways():
    """Of the mean over ranks, as DDP takes it: ours, local pairs, and the own rows put back."""
    labels = torch.arange(ROWS) % IDENTITIES
    found = {}
    for way in ("ours", "local", "put_back"):
        seen = output(own_rows()).embedding
        if way == "ours":
            terms = Objective([Term("x", RankedListLoss())])(
                ModelOutput(seen, seen, None), labels[own_rows()]
            )
            loss = terms["loss"]
        elif way == "local":
            loss = RankedListLoss()(seen[:, 0], labels[own_rows()])
        else:
            rows = distributed.gather(seen).chunk(distributed.world_size())
            rows = [seen if n == distributed.rank() else part for n, part in enumerate(rows)]
            loss = RankedListLoss()(torch.cat(rows)[:, 0], labels)
        loss.backward()
        found[way] = distributed.gather(seen.grad) / distributed.world_size()
    return found


def unequal_rows():
    count = 3 + distributed.rank()
    objective = Objective([Term("triplet", TripletLoss())])
    try:
        objective(output(slice(count)), torch.arange(count))
    except ValueError as error:
        return str(error)


def one_is_not_finite():
    seen = output(own_rows())
    if distributed.rank() == 1:
        seen = ModelOutput(*(value * float("nan") for value in seen))
    objective = Objective([Term("cross_entropy", CrossEntropyLoss(), "logits")])
    terms = objective(seen, torch.zeros(6, dtype=torch.int64))
    return [float(value.detach()) for value in terms.values()]


def half_precision():
    seen = output(own_rows(), torch.bfloat16)
    labels = torch.arange(ROWS) % IDENTITIES
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = Objective([Term("triplet", TripletLoss())])(seen, labels[own_rows()])
    terms["loss"].backward()
    return terms["loss"].detach(), seen.embedding.grad / 2


def nothing_to_learn():
    """Each rank's gradient where there is no pair at all."""
    found = []
    for loss in (TripletLoss(mining="all"), RankedListLoss(alpha=1e-6, margin=0)):
        seen = output(own_rows())
        labels = torch.arange(ROWS)[own_rows()]
        Objective([Term("x", loss)])(seen, labels)["loss"].backward()
        found.append(float(seen.embedding.grad.abs().max()))
    return found


def singles():
    return {
        work.__name__: work()
        for work in (
            messages,
            gradients_of_the_ways,
            unequal_rows,
            one_is_not_finite,
            half_precision,
            nothing_to_learn,
        )
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return processes.run(singles, world=2, folder=tmp_path_factory.mktemp("pair"))


def test_each_output_travels_once_and_the_local_terms_together(pair):
    # embedding, feature, labels; the two cross-entropies in one message
    for rank in pair:
        assert rank["messages"] == ["all_gather"] * 3 + ["all_reduce"]


def test_the_other_ways_are_wrong_as_the_docstring_says(pair):
    whole = output(slice(None))
    RankedListLoss()(whole.embedding[:, 0], torch.arange(ROWS) % IDENTITIES).backward()
    right = whole.embedding.grad
    ways = pair[0]["gradients_of_the_ways"]
    assert_close(ways["ours"], right)
    assert_close(ways["put_back"], right / 2)
    turned = torch.cosine_similarity(ways["local"].flatten(), right.flatten(), dim=0)
    assert turned < 0.99


def test_ranks_with_different_numbers_of_rows_all_say_so(pair):
    for rank in pair:
        assert "the ranks hold 3, 4 rows of the batch" in rank["unequal_rows"]


def test_a_term_that_is_not_finite_on_one_rank_is_so_on_all(pair):
    for rank in pair:
        assert all(value != value for value in rank["one_is_not_finite"])


def test_half_precision_travels_and_the_loss_is_still_of_full(pair):
    whole = output(slice(None), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = TripletLoss()(whole.embedding[:, 0], torch.arange(ROWS) % IDENTITIES)
    loss.backward()
    for rank in pair:
        assert rank["half_precision"][0].dtype == torch.float32
        assert_close(rank["half_precision"][0], loss.detach())
    gradient = torch.cat([rank["half_precision"][1] for rank in pair])
    assert_close(gradient, whole.embedding.grad, rtol=0.01, atol=1e-3)


def test_ranks_without_pairs_go_backward_all_the_same(pair):
    for rank in pair:
        assert rank["nothing_to_learn"] == [0.0, 0.0]
