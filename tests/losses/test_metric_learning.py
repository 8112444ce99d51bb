"""Losses and miners of pytorch-metric-learning by name: all build, train and name faults."""

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners
from torch.testing import assert_close

from reidkit.losses import LOSSES, MetricLearning
from reidkit.losses.components import known_names
from reidkit.losses.metric_learning import WITHOUT_MINER

NEEDED = {"RankedListLoss": {"margin": 0.4, "Tn": 1}}


@pytest.mark.parametrize("name", known_names("loss"))
def test_every_loss_of_the_library_builds_and_has_a_gradient(clustered, name):
    torch.manual_seed(0)
    rows, labels = clustered(4, 3, 8, noise=2.0)
    rows = rows.float().requires_grad_()
    args = {"loss": name, "loss_args": NEEDED.get(name, {})}
    loss = LOSSES.build("metric_learning", args, num_classes=4, embedding_size=8)
    value = loss(rows, labels)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert rows.grad.isfinite().all()


def test_none_of_the_well_known_losses_is_missing():
    known = known_names("loss")
    for name in (
        "ArcFaceLoss", "CircleLoss", "ContrastiveLoss", "CosFaceLoss", "MultiSimilarityLoss",
        "NTXentLoss", "ProxyAnchorLoss", "SoftTripleLoss", "SupConLoss", "TripletMarginLoss",
    ):  # fmt: skip
        assert name in known


@pytest.mark.parametrize("name", known_names("miner"))
def test_every_miner_of_the_library_feeds_a_loss(clustered, name):
    torch.manual_seed(0)
    rows, labels = clustered(4, 3, 8)
    value = MetricLearning("ContrastiveLoss", name)(rows.float().requires_grad_(), labels)
    value.backward()
    assert value.isfinite()


@pytest.mark.parametrize("name", WITHOUT_MINER)
def test_losses_said_to_take_no_miner_indeed_refuse_chosen_pairs(clustered, name):
    rows, labels = clustered(4, 3, 8)
    loss = MetricLearning(name, None, NEEDED.get(name), num_classes=4, embedding_size=8)
    pairs = miners.MultiSimilarityMiner()(rows.float(), labels)
    with pytest.raises(ValueError, match="indices_tuple is not supported"):
        loss.loss(rows.float(), labels, pairs)


def test_the_arguments_and_the_miner_reach_the_library(clustered):
    rows, labels = clustered(4, 3, 8)
    rows = rows.float()
    loss = MetricLearning(
        "TripletMarginLoss", "TripletMarginMiner", {"margin": 0.3}, {"margin": 0.5}
    )
    chosen = miners.TripletMarginMiner(margin=0.5)(rows, labels)
    assert_close(loss(rows, labels), pml.TripletMarginLoss(margin=0.3)(rows, labels, chosen))


def test_a_distance_can_be_named_with_its_arguments(clustered):
    distance = {"name": "LpDistance", "p": "1", "normalize_embeddings": False}
    loss = MetricLearning(
        "ContrastiveLoss", loss_args={"distance": distance, "reducer": "MeanReducer"}
    )
    assert (loss.loss.distance.p, loss.loss.distance.normalize_embeddings) == (1.0, False)


def test_a_number_that_yaml_left_as_text_becomes_a_number():
    assert MetricLearning("SupConLoss", loss_args={"temperature": "5e-2"}).loss.temperature == 0.05


def test_proxies_are_parameters_of_the_module_with_the_facts_sizes():
    loss = MetricLearning("ProxyAnchorLoss", num_classes=5, embedding_size=3)
    assert [tuple(p.shape) for p in loss.parameters()] == [(5, 3)]


def test_it_works_in_float32_under_autocast(clustered):
    rows, labels = clustered(4, 3, 8)
    loss = MetricLearning("MultiSimilarityLoss", "MultiSimilarityMiner")
    expected = loss(rows.half().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(rows.half(), labels)
    assert value.dtype == torch.float32
    assert_close(value, expected)


def test_a_memory_compares_with_earlier_batches_and_survives_a_save(clustered):
    rows, labels = clustered(4, 3, 8)
    rows = rows.float()

    def fresh() -> MetricLearning:
        return MetricLearning("ContrastiveLoss", memory_size=30, embedding_size=8)

    running = fresh()
    running(rows, labels)
    resumed = fresh()
    resumed.load_state_dict(running.state_dict())
    for turn in range(1, 4):
        batch = rows.roll(turn, 1)
        assert_close(resumed(batch, labels), running(batch, labels), atol=0, rtol=0)
    assert (running.loss.queue_idx, running.loss.has_been_filled) == (18, True)
    assert running(rows, labels) != fresh()(rows, labels)


def contrastive(**loss_args: object) -> dict[str, object]:
    return {"loss": "ContrastiveLoss", "loss_args": loss_args}


@pytest.mark.parametrize(
    "args, words",
    [
        ({"loss": "TripletMarginLos"}, "Did you mean 'TripletMarginLoss'"),
        ({"loss": "ContrastiveLoss", "miner": "HardMiner"}, "unknown miner 'HardMiner'"),
        ({"loss": "VICRegLoss"}, "takes no labels"),
        ({"loss": "BaseMetricLossFunction"}, "unknown loss"),
        ({"loss": "WeightRegularizerMixin"}, "base class"),
        ({"loss": "RankedListLoss"}, "RankedListLoss needs 'margin'; RankedListLoss needs 'Tn'"),
        (contrastive(pos_magin=1), "Did you mean 'pos_margin'"),
        ({"loss": "CosFaceLoss", "loss_args": {"num_classes": 4}}, "set by reidkit at run time"),
        ({"loss": "CosFaceLoss"}, "CosFaceLoss needs num_classes; CosFaceLoss needs embedding"),
        (contrastive(pos_margin="big"), "must be a number"),
        ({"loss": "MarginLoss", "loss_args": {"learn_beta": 1}}, "must be true or false"),
        (contrastive(distance="Cosine"), "unknown distance"),
        (contrastive(distance={"p": 1}), "needs a class name"),
        (contrastive(distance={"name": "LpDistance", "q": 1}), "unknown key 'q'"),
        ({"loss": "CircleLoss", "loss_args": {"distance": "LpDistance"}}, "requires the distance"),
        ({"loss": "ContrastiveLoss", "miner_args": {"margin": 1}}, "miner_args without a miner"),
        ({"loss": "InstanceLoss", "miner": "BatchHardMiner"}, "remove the miner"),
        ({"loss": "InstanceLoss", "memory_size": 64}, "cannot use a memory"),
        ({"loss": "ContrastiveLoss", "memory_size": -1}, "memory_size must be 0 or more"),
        ({"loss": "ContrastiveLoss", "memory_size": 64}, "memory_size needs embedding_size"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_named_before_training(args, words):
    with pytest.raises(ValueError, match=words):
        MetricLearning(**args)


def test_a_batch_larger_than_the_memory_is_named():
    loss = MetricLearning("ContrastiveLoss", memory_size=4, embedding_size=2)
    with pytest.raises(ValueError, match="batch of 6 does not fit memory_size 4"):
        loss(torch.randn(6, 2), torch.arange(6) // 2)
