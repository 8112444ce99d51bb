"""Losses and miners of pytorch-metric-learning by name: all build, train and name faults."""

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners
from torch.testing import assert_close

from reidkit.losses import LOSSES, MetricLearning, catalogue, objective_faults
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


def mined(miner: str, **miner_args: object) -> dict[str, object]:
    return {"loss": "ContrastiveLoss", "miner": miner, "miner_args": miner_args}


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
        (contrastive(distance="BatchedDistance"), "gives no distances back"),
        (contrastive(reducer="DoNothingReducer"), "must come out as one number"),
        (contrastive(reducer="DivisorReducer"), "with reducer DivisorReducer cannot train"),
        (contrastive(reducer="ThresholdReducer"), "At least one of low or high"),
        (contrastive(reducer={"name": "ClassWeightedReducer"}), "needs 'weights'"),
        (contrastive(weight_regularizer="LpRegularizer"), "unknown key 'weight_regularizer'"),
        (contrastive(embedding_regularizer="Lp"), "unknown embedding_regularizer 'Lp'"),
        (mined("TripletMarginMiner", type_of_triplets="hrad"), "must be one of: all, hard, semi"),
        (mined("TripletMarginMiner", margn=1), "Did you mean 'margin'"),
        (mined("TripletMarginMiner", margin="much"), "must be a number"),
        (mined("MultiSimilarityMiner", distance="Cosine"), "unknown distance"),
        (mined("DistanceWeightedMiner", distance="CosineSimilarity"), "to be LpDistance"),
        (mined("BatchEasyHardMiner", pos_strategy="no"), "miner BatchEasyHardMiner"),
        (mined("HDCMiner", filter_percentage=3), "with miner HDCMiner cannot train"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_named_before_training(args, words):
    with pytest.raises(ValueError, match=words):
        MetricLearning(**args)


def test_a_batch_larger_than_the_memory_is_named():
    loss = MetricLearning("ContrastiveLoss", memory_size=4, embedding_size=2)
    with pytest.raises(ValueError, match="batch of 6 does not fit memory_size 4"):
        loss(torch.randn(6, 2), torch.arange(6) // 2)


@pytest.mark.parametrize("wrong", [[1.0], [1.0, 2.0, 3.0]])
def test_too_few_class_weights_are_named_when_the_identities_are_known(wrong):
    loss_args = {"reducer": {"name": "ClassWeightedReducer", "weights": wrong}}
    with pytest.raises(ValueError, match="reducer ClassWeightedReducer cannot train"):
        MetricLearning("ContrastiveLoss", loss_args=loss_args, num_classes=4)


# What components need that only a person can say.
COMPONENTS = {
    "ClassWeightedReducer": {"weights": [1.0, 2.0, 1.0, 2.0]},
    "SparseCentersRegularizer": {"centers_per_class": 10},
    "ThresholdReducer": {"low": 0.1},
}
# How many losses at least take it.
FITTING = {
    ("embedding_regularizer", "SparseCentersRegularizer"): 0,
    ("weight_regularizer", "SparseCentersRegularizer"): 1,
    ("reducer", "DivisorReducer"): 7,
}
KINDS = ("distance", "reducer", "embedding_regularizer", "weight_regularizer")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, name", [(kind, name) for kind in KINDS for name in known_names(kind)]
)
def test_a_component_trains_with_a_loss_or_is_refused_before_the_training(kind, name):
    took = []
    for loss in known_names("loss"):
        given = {kind: {"name": name, **COMPONENTS.get(name, {})}}
        args = {"loss": loss, "loss_args": {**NEEDED.get(loss, {}), **given}}
        if faults := objective_faults([{"name": "metric_learning", **args}]):
            assert len(faults) == 1
            assert faults[0].startswith("losses.0: ")
            assert "\n" not in faults[0]
            continue
        built = LOSSES.build("metric_learning", args, num_classes=4, embedding_size=8)
        source = torch.Generator().manual_seed(0)
        for _ in range(2):
            rows = torch.randn(16, 8, generator=source).requires_grad_()
            value = built(rows, torch.arange(16) // 4)
            value.backward()
            assert value.isfinite()
            assert rows.grad.isfinite().all()
        took.append(loss)
    assert len(took) >= FITTING.get((kind, name), 9)


def test_regularizers_add_to_the_loss(clustered):
    rows, labels = clustered(4, 3, 8)
    rows = rows.float()
    plain = MetricLearning("ContrastiveLoss")(rows, labels)
    loss_args = {"embedding_regularizer": "LpRegularizer", "embedding_reg_weight": 0.5}
    value = MetricLearning("ContrastiveLoss", loss_args=loss_args)(rows, labels)
    assert_close(value, plain + 0.5 * rows.norm(dim=1).mean())


def test_what_a_loss_counts_is_in_its_state_and_not_in_the_graph(clustered):
    rows, labels = clustered(4, 3, 8)
    rows = rows.float()
    running = MetricLearning("DynamicSoftMarginLoss")
    for _ in range(2):  # the library's own holds on to the first graph and fails here
        running((rows + torch.randn_like(rows)).requires_grad_(), labels).backward()
    resumed = MetricLearning("DynamicSoftMarginLoss")
    resumed.load_state_dict(running.state_dict())
    assert resumed.loss.hist_.sum() > 0
    assert_close(resumed(rows, labels), running(rows, labels), atol=0, rtol=0)


def test_building_draws_nothing_of_the_run():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    MetricLearning("ContrastiveLoss", "DistanceWeightedMiner", memory_size=20, embedding_size=4)
    assert_close(torch.rand(2), expected, atol=0, rtol=0)


def test_a_new_loss_has_counted_and_remembered_nothing():
    loss = MetricLearning("ContrastiveLoss", memory_size=20, embedding_size=4)
    assert (loss.loss.queue_idx, loss.loss.has_been_filled) == (0, False)
    assert loss.loss.embedding_memory.abs().max() == 0
    assert MetricLearning("DynamicSoftMarginLoss").loss.hist_.sum() == 0


def test_the_catalogue_tells_what_a_config_may_name():
    told = catalogue()
    assert list(told) == [
        f"metric_learning {kind}"
        for kind in ("loss", "miner", "distance", "reducer", "regularizer")
    ]
    assert list(told["metric_learning loss"]) == known_names("loss")
    assert told["metric_learning loss"]["RankedListLoss"].startswith("margin, Tn, imbalance=0.5")
    assert "num_classes" not in told["metric_learning loss"]["ProxyAnchorLoss"]
    assert told["metric_learning miner"]["MultiSimilarityMiner"] == "epsilon=0.1, distance=None"
