"""The objective: what is added up, over which output and parts, and who moves which parameter."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reidkit.losses import (
    LOSSES,
    CenterLoss,
    CrossEntropyLoss,
    Objective,
    RankedListLoss,
    Term,
    TripletLoss,
    build_objective,
    learns_classes,
    objective_faults,
)
from reidkit.losses.components import known_names
from reidkit.losses.metric_learning import WITHOUT_MINER
from reidkit.types import ModelOutput

LABELS = torch.arange(4).repeat_interleave(3)


def output(parts: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> ModelOutput:
    generator = torch.Generator().manual_seed(seed)
    embedding, feature, logits = (
        torch.randn(12, parts, size, generator=generator).to(dtype).requires_grad_()
        for size in (8, 8, 4)
    )
    return ModelOutput(embedding, feature, logits)


def test_the_loss_is_the_weighted_sum_of_terms_that_are_returned_unweighted():
    seen = output()
    objective = Objective(
        [
            Term("cross_entropy", CrossEntropyLoss(), on="logits", weight=0.5),
            Term("ranked_list", RankedListLoss(), on="embedding", weight=2.0),
            Term("triplet", TripletLoss(), on="feature"),
        ]
    )
    terms = objective(seen, LABELS)
    assert list(terms) == ["cross_entropy", "ranked_list", "triplet", "loss"]
    assert_close(terms["cross_entropy"], CrossEntropyLoss()(seen.logits[:, 0], LABELS))
    assert_close(terms["ranked_list"], RankedListLoss()(seen.embedding[:, 0], LABELS))
    assert_close(terms["triplet"], TripletLoss()(seen.feature[:, 0], LABELS))
    total = 0.5 * terms["cross_entropy"] + 2 * terms["ranked_list"] + terms["triplet"]
    assert_close(terms["loss"], total)
    terms["loss"].backward()
    assert all(tensor.grad.abs().max() > 0 for tensor in seen)


def test_a_term_is_the_mean_over_parts():
    seen = output(parts=3)
    terms = build_objective(
        [{"name": "cross_entropy"}, {"name": "ranked_list"}],
        num_classes=4,
        embedding_size=8,
        parts=3,
    )(seen, LABELS)
    by_part = [RankedListLoss()(seen.embedding[:, part], LABELS) for part in range(3)]
    assert_close(terms["ranked_list"], torch.stack(by_part).mean())
    by_part = [CrossEntropyLoss()(seen.logits[:, part], LABELS) for part in range(3)]
    assert_close(terms["cross_entropy"], torch.stack(by_part).mean())


def test_a_loss_without_anything_of_its_own_serves_any_number_of_parts():
    objective = Objective([Term("ranked_list", RankedListLoss())])
    assert objective(output(parts=3), LABELS)["loss"] > 0


def test_parts_do_not_share_centres():
    objective = build_objective([{"name": "center"}], num_classes=4, embedding_size=8, parts=3)
    assert objective(output(parts=3), LABELS)["center"] > 0
    assert sorted(objective.own_optimizers()) == ["center.0", "center.1", "center.2"]
    shared = build_objective([{"name": "center"}], num_classes=4, embedding_size=8)
    with pytest.raises(ValueError, match=r"'center' learns .* build the objective with parts=3"):
        shared(output(parts=3), LABELS)


def test_equal_names_are_numbered():
    specs = [
        {"name": "triplet"},
        {"name": "triplet", "on": "feature"},
        {"name": "triplet", "weight": 0},
    ]
    terms = build_objective(specs, num_classes=4, embedding_size=8)(output(), LABELS)
    assert list(terms) == ["triplet", "triplet_2", "triplet_3", "loss"]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weight", [5e-4, 3.0])
def test_the_weight_of_the_centre_term_slows_the_network_and_not_the_centres(weight, parts):
    torch.manual_seed(0)
    objective = build_objective(
        [{"name": "center", "weight": weight}], num_classes=4, embedding_size=8, parts=parts
    )
    alone = copy.deepcopy([*objective.losses["center"]])
    seen = output(parts=parts)
    objective(seen, LABELS)["loss"].backward()
    for part, (moved, plain) in enumerate(zip(objective.losses["center"], alone, strict=True)):
        rows = seen.embedding[:, part].detach().requires_grad_()
        plain(rows, LABELS).backward()
        assert_close(moved.centres.grad, plain.centres.grad)
        assert_close(seen.embedding.grad[:, part], weight / parts * rows.grad)


def test_the_centres_rest_when_their_term_has_no_weight():
    objective = build_objective([{"name": "center", "weight": 0}], num_classes=4, embedding_size=8)
    before = objective.losses["center"][0].centres.detach().clone()
    (optimizer,) = objective.own_optimizers().values()
    objective(output(), LABELS)["loss"].backward()
    optimizer.step()
    assert_close(objective.losses["center"][0].centres.detach(), before, atol=0, rtol=0)


def test_every_parameter_has_exactly_one_optimiser():
    specs = [
        {"name": "center"},
        {"name": "metric_learning", "loss": "ProxyAnchorLoss"},
        {"name": "cross_entropy"},
    ]
    objective = build_objective(specs, num_classes=4, embedding_size=8)
    (optimizer,) = objective.own_optimizers().values()
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    (parameters,) = objective.main_parameters().values()
    main = {id(p) for p in parameters}
    assert not own & main
    assert own | main == {id(p) for p in objective.parameters()}
    assert len(own) == len(main) == 1


PROXIES = {"name": "metric_learning", "loss": "ProxyAnchorLoss"}


def test_what_losses_learn_is_told_by_the_factor_on_its_rate():
    specs = [{**PROXIES, "rate": 100}, {"name": "triplet"}, {**PROXIES, "weight": 2.0}]
    objective = build_objective(specs, num_classes=4, embedding_size=8)
    first, second = (
        [*objective.losses[name].parameters()] for name in ("metric_learning", "metric_learning_2")
    )
    assert objective.main_parameters() == {100.0: first, 1.0: second}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**PROXIES, "rate": -1}, "rate = -1 must be a number >= 0"),
        ({**PROXIES, "rate": "fast"}, "rate = 'fast' must be a number >= 0"),
        ({"name": "triplet", "rate": 2}, "rate = 2: triplet learns nothing; leave it out"),
        ({"name": "center", "rate": 2}, "rate: center has an optimiser of its own; set its lr"),
    ],
)
def test_a_wrong_rate_is_named(spec, words):
    assert objective_faults([spec]) == [f"losses.0: {words}"]


def test_a_term_that_reads_logits_says_when_there_are_none():
    objective = build_objective([{"name": "cross_entropy"}], num_classes=4, embedding_size=8)
    with pytest.raises(
        ValueError, match="'cross_entropy' reads logits, but the model has no classif"
    ):
        objective(output()._replace(logits=None), LABELS)


def test_an_output_without_parts_is_named():
    objective = build_objective([{"name": "triplet"}], num_classes=4, embedding_size=8)
    with pytest.raises(ValueError, match=r"embedding of shape \(B, P, D\), got \(12, 8\)"):
        objective(output()._replace(embedding=torch.zeros(12, 8)), LABELS)


NEEDED = {"RankedListLoss": {"margin": 0.4, "Tn": 1}}
EVERY_LOSS = [
    *({"name": name} for name in LOSSES if name != "metric_learning"),
    {"name": "triplet", "mining": "all"},
    {"name": "triplet", "margin": None},
    {"name": "ranked_list", "gradient": "pair", "query_weighting": "mass"},
    *(
        {"name": "metric_learning", "loss": name, "loss_args": NEEDED.get(name, {})}
        for name in known_names("loss")
    ),
    *(
        {"name": "metric_learning", "loss": name, "miner": "MultiSimilarityMiner"}
        for name in known_names("loss")
        if name not in WITHOUT_MINER
    ),
    {"name": "metric_learning", "loss": "ContrastiveLoss", "memory_size": 24},
]


@pytest.mark.parametrize("labels", [torch.arange(12), torch.zeros(12).long()], ids=["alone", "one"])
@pytest.mark.parametrize("spec", EVERY_LOSS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_no_loss_lets_go_of_the_graph_when_there_is_nothing_to_compare(spec, labels):
    torch.manual_seed(0)
    objective = build_objective([spec], num_classes=12, embedding_size=8)
    seen = output()
    seen = seen._replace(logits=torch.randn(12, 1, 12).requires_grad_())
    objective(seen, labels)["loss"].backward()
    read = getattr(seen, objective.sources[next(iter(objective.losses))])
    assert read.grad is not None
    assert read.grad.isfinite().all()


class Constant(nn.Module):
    def forward(self, embeddings, labels):
        return torch.tensor(2.0)


def test_a_foreign_loss_that_returns_a_constant_still_goes_backward():
    seen = output()
    terms = Objective([Term("x", Constant())])(seen, LABELS)
    assert terms["loss"].item() == 2
    terms["loss"].backward()
    assert_close(seen.embedding.grad, torch.zeros(12, 1, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_adds_up_in_float32_under_autocast(dtype):
    objective = build_objective(
        [{"name": "cross_entropy"}, {"name": "ranked_list"}], num_classes=4, embedding_size=8
    )
    seen = output(dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(seen, LABELS)
    wide = ModelOutput(*(tensor.detach().float() for tensor in seen))
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert_close(terms, objective(wide, LABELS))


def test_its_state_can_be_saved_and_loaded():
    specs = [{"name": "center"}, {"name": "metric_learning", "loss": "CosFaceLoss"}]
    first = build_objective(specs, num_classes=4, embedding_size=8)
    second = build_objective(specs, num_classes=4, embedding_size=8)
    second.load_state_dict(first.state_dict())
    assert_close(second(output(), LABELS), first(output(), LABELS), atol=0, rtol=0)


def test_checking_names_every_fault_with_its_place():
    faults = objective_faults(
        [
            {"name": "ranked_lst"},
            {"name": "ranked_list", "margin": -1, "weight": "much"},
            {"name": "cross_entropy", "on": "embedding"},
            {"name": "triplet", "on": "logit", "mrgin": 3},
            {"name": "metric_learning", "loss": "SupConLos"},
            {"weight": 1},
            {"name": "center", "num_classes": 3},
            {"name": "triplet", "weight": -1},
        ]
    )
    words = [
        ("losses.0", "Did you mean 'ranked_list'"),
        ("losses.1", "margin must be a number >= 0"),
        ("losses.1", "weight = 'much'"),
        ("losses.2", "cross_entropy reads logits"),
        ("losses.3", "unknown key 'mrgin'"),
        ("losses.3", "on = 'logit' must be one of"),
        ("losses.4", "Did you mean 'SupConLoss'"),
        ("losses.5", "needs a name"),
        ("losses.6", "set by reidkit at run time"),
        ("losses.7", "weight = -1"),
    ]
    assert len(faults) == len(words)
    for fault, (place, word) in zip(faults, words, strict=True):
        assert fault.startswith(f"{place}: ")
        assert word in fault


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    specs = [{"name": "center"}, {"name": "metric_learning", "loss": "ProxyAnchorLoss"}]
    assert objective_faults(specs) == []
    assert_close(torch.rand(2), expected, atol=0, rtol=0)


@pytest.mark.parametrize("specs, word", [([], "is empty"), ({"name": "triplet"}, "must be a list")])
def test_specs_that_are_no_list_are_named(specs, word):
    assert word in objective_faults(specs)[0]
    with pytest.raises(ValueError, match=word):
        build_objective(specs, num_classes=4, embedding_size=8)


@pytest.mark.parametrize(
    "terms, words",
    [
        ([], "at least one term"),
        ([Term("loss", nn.Identity())], "that is the sum"),
        ([Term("x", CenterLoss(1, 1), weight=float("nan"))], "x: weight = nan"),
        ([Term("x", nn.Identity(), on="pixels")], "x: on = 'pixels'"),
    ],
)
def test_terms_that_cannot_be_are_named(terms, words):
    with pytest.raises(ValueError, match=words):
        Objective(terms)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, embeddings, labels):
        return embeddings.sum()

    def after_step(self):
        self.steps += 1


def test_after_a_step_every_loss_that_remembers_is_told_once_and_the_others_are_left_alone():
    losses = [Remembering() for _ in range(3)]
    objective = Objective([Term("x", losses[:2]), Term("y", losses[2]), Term("z", TripletLoss())])
    objective(output(parts=2), LABELS)
    assert [loss.steps for loss in losses] == [0, 0, 0]
    objective.after_step()
    assert [loss.steps for loss in losses] == [1, 1, 1]


def test_memories_of_classes_are_found_among_all_parts_of_an_objective():
    specs = [{"name": "cluster_memory"}, {"name": "triplet"}, {"name": "cluster_memory"}]
    objective = build_objective(specs, num_classes=4, embedding_size=8, parts=3)
    assert [loss.vectors.shape for loss in objective.memories()] == [(4, 3, 8), (4, 3, 8)]
    assert objective.memories()[0] is objective.losses["cluster_memory"][0]


@pytest.fixture
def counting():
    """A loss with a count for each class and nothing to learn, registered while a test runs."""

    class Counting(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.register_buffer("counts", torch.zeros(num_classes))

    LOSSES.register("counting")(Counting)
    yield Counting
    del LOSSES._constructors["counting"]


def test_terms_that_cannot_follow_new_classes_are_named_with_the_reason(counting):
    specs = [
        {"name": "cross_entropy"},
        {"name": "cluster_memory"},
        {"name": "center"},
        {"name": "known_rivals", "loss": "triplet"},
        {"name": "counting", "on": "feature"},
        {"name": "counting", "on": "logits"},
        PROXIES,
        {"name": "metric_learning", "loss": "MarginLoss", "loss_args": {"learn_beta": True}},
    ]
    words = {
        "losses.0: cross_entropy": "reads logits",
        "losses.2: center": "learns something of its own",
        "losses.4: counting": "holds something for each class",
        "losses.5: counting": "reads logits",
        "losses.6: metric_learning": "learns something of its own",
        "losses.7: metric_learning": "learns something of its own",
    }
    faults = learns_classes(specs)
    assert len(faults) == len(words)
    for fault, (start, reason) in zip(faults, words.items(), strict=True):
        assert fault.startswith(f"{start} {reason}") and "use cluster_memory" in fault


def test_a_loss_that_each_round_makes_anew_may_hold_something_for_each_class(counting):
    counting.every_round = True
    assert learns_classes([{"name": "counting", "on": "feature"}]) == []


@pytest.mark.parametrize(
    "spec",
    [
        *({"name": name} for name in ("ranked_list", "triplet", "part_triplet", "memory")),
        {"name": "metric_learning", "loss": "MultiSimilarityLoss", "miner": "MultiSimilarityMiner"},
        {"name": "metric_learning", "loss": "ContrastiveLoss", "memory_size": 24},
    ],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
def test_losses_over_pairs_follow_any_classes(spec):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert learns_classes([spec]) == []
    assert_close(torch.rand(2), expected, atol=0, rtol=0)


def test_all_losses_are_offered_the_parts_and_the_rivals_and_no_config_may_set_them():
    for name, value in {"parts": 3, "rivals": [[True]]}.items():
        (fault,) = objective_faults([{"name": "cluster_memory", name: value}])
        assert f"{name} is set by reidkit at run time" in fault
