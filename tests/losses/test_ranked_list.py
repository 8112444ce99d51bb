"""Ranked list loss against the double loop, the numbers worked out by hand, and its limits."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor
from torch.testing import assert_close

from reidkit.losses import LOSSES, RankedListLoss
from tests import reference


def on_circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], 1)


PAIRS = torch.tensor([0, 0, 1, 1])


def value_and_gradient(loss: torch.nn.Module, rows: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    rows = rows.detach().clone().requires_grad_()
    value = loss(rows, *args)
    (gradient,) = torch.autograd.grad(value, rows)
    return value.detach(), gradient


@pytest.mark.parametrize(
    "temperature, expected", [(0.0, 0.9879142334), (10.0, 1.0162672678)], ids=["plain", "weighted"]
)
def test_four_points_on_the_circle_give_the_value_worked_out_by_hand(temperature, expected):
    value = RankedListLoss(0.4, 1.2, temperature)(on_circle(0, 70, 30, 100), PAIRS)
    assert value.item() == pytest.approx(expected, abs=5e-11)


def test_the_parts_of_the_four_points_are_those_of_the_paper():
    rows = on_circle(0, 70, 30, 100)
    pull = RankedListLoss(0.4, 1.2, 10, negative_weight=0)(rows, PAIRS)
    assert pull.item() == pytest.approx(0.347153, abs=1e-6)
    push = RankedListLoss(0.4, 1.2, 10)(rows, PAIRS) - pull
    assert push.item() == pytest.approx((2 * 0.682362 + 2 * 0.655867) / 4, abs=1e-6)


@pytest.mark.parametrize(
    "gradient, expected",
    [
        (
            "query",
            [
                [0.078689, 0.036693],
                [-0.322296, 0.197521],
                [0.250486, -0.2831],
                [0.022472, 0.083866],
            ],
        ),
        (
            "pair",
            [
                [0.167681, 0.034938],
                [-0.684245, 0.398511],
                [0.511275, -0.604649],
                [0.005289, 0.171201],
            ],
        ),
    ],
)
def test_four_points_on_the_circle_move_as_worked_out_by_hand(gradient, expected):
    table = torch.tensor(expected, dtype=torch.float64)
    rows = on_circle(0, 70, 30, 100)
    loss = RankedListLoss(0.4, 1.2, 10, gradient=gradient, normalize=False)
    assert_close(value_and_gradient(loss, rows, PAIRS)[1], table, atol=1e-6, rtol=0)
    # With normalisation only the part along the circle is left.
    along = table - (table * rows).sum(1, keepdim=True) * rows
    loss = RankedListLoss(0.4, 1.2, 10, gradient=gradient)
    assert_close(value_and_gradient(loss, rows, PAIRS)[1], along, atol=1e-6, rtol=0)


def test_identities_apart_by_the_boundary_cost_nothing():
    rows = on_circle(0, 40, 180, 220).requires_grad_()
    value = RankedListLoss(0.4, 1.2)(rows, PAIRS)
    value.backward()
    assert value.item() == 0
    assert rows.grad.abs().max() == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0, 10.0, 1000.0])
def test_a_single_violating_negative_makes_the_temperature_meaningless(temperature):
    value = RankedListLoss(0.4, 1.2, temperature)(on_circle(0, 70, 100, 180), PAIRS)
    assert value.item() == pytest.approx(0.7575450009, abs=5e-11)


@pytest.mark.parametrize("query_weighting", ["uniform", "mass"])
@pytest.mark.parametrize("gradient", ["query", "pair"])
@pytest.mark.parametrize("temperature", [0.0, 10.0])
@pytest.mark.parametrize(
    "margin, alpha, negative_weight",
    [(0.4, 1.2, 1.0), (0.2, 1.4, 0.5), (1.3, 2.0, 1.0), (0.9, 0.8, 2.0)],
)
def test_it_equals_the_double_loop(
    clustered, margin, alpha, negative_weight, temperature, gradient, query_weighting
):
    rows, labels = clustered(5, 4, 6)
    rows, labels = rows[:-1], labels[:-1]  # identities of different size: 1/3 and 1/2 are both met
    unit = F.normalize(rows, dim=1)
    settings = (margin, alpha, temperature, negative_weight, gradient)
    loss = RankedListLoss(*settings, query_weighting=query_weighting, normalize=False)
    value, gradient_by_point = value_and_gradient(loss, unit, labels)
    slow, slow_gradient = reference.ranked_list(
        unit.tolist(), labels.tolist(), *settings, query_weighting=query_weighting
    )
    assert value.item() == pytest.approx(slow, abs=1e-10)
    assert_close(
        gradient_by_point, torch.tensor(slow_gradient, dtype=torch.float64), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_it_normalises_and_sends_the_gradient_through(clustered, gradient):
    rows, labels = clustered(4, 3, 5)
    value, found = value_and_gradient(RankedListLoss(gradient=gradient), 7 * rows, labels)
    scaled = (7 * rows).requires_grad_()
    points = F.normalize(scaled, dim=1)
    slow, by_point = reference.ranked_list(
        reference.unit(rows), labels.tolist(), 0.4, 1.2, 10, gradient=gradient
    )
    (expected,) = torch.autograd.grad(points, scaled, torch.tensor(by_point, dtype=torch.float64))
    assert value.item() == pytest.approx(slow, abs=1e-10)
    assert_close(found, expected, atol=1e-10, rtol=0)


def test_both_ends_moving_is_the_derivative_of_the_value_when_the_weights_are_constant(clustered):
    rows, labels = clustered(3, 3, 4)
    loss = RankedListLoss(temperature=0, gradient="pair")
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), rows.requires_grad_())


def test_both_ends_moving_is_not_the_derivative_when_the_weights_depend_on_the_rows(clustered):
    rows, labels = clustered(3, 3, 4)
    loss = RankedListLoss(temperature=10, gradient="pair")
    assert not torch.autograd.gradcheck(
        lambda x: loss(x, labels), rows.requires_grad_(), raise_exception=False
    )


def test_a_second_derivative_is_refused_and_not_silently_wrong(clustered):
    rows, labels = clustered(3, 3, 4)
    value = RankedListLoss()(rows.requires_grad_(), labels)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, rows, create_graph=True)


@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_the_gradient_scales_with_the_weight_of_the_loss(clustered, gradient):
    rows, labels = clustered(4, 3, 8)
    loss = RankedListLoss(gradient=gradient)
    _, once = value_and_gradient(loss, rows, labels)
    _, third = value_and_gradient(lambda x, y: loss(x, y) / 3, rows, labels)
    assert_close(third, once / 3)


def test_the_order_of_the_batch_and_a_rotation_change_nothing(clustered):
    rows, labels = clustered(5, 3, 6)
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(rows), generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    value, gradient = value_and_gradient(RankedListLoss(), rows, labels)
    shuffled, shuffled_gradient = value_and_gradient(RankedListLoss(), rows[order], labels[order])
    turned, turned_gradient = value_and_gradient(RankedListLoss(), rows @ turn, labels)
    assert_close(torch.stack([shuffled, turned]), torch.stack([value, value]))
    assert_close(shuffled_gradient, gradient[order])
    assert_close(turned_gradient, gradient @ turn)


def test_renaming_the_identities_changes_nothing(clustered):
    rows, labels = clustered(5, 3, 6)
    assert_close(RankedListLoss()(rows, 100 - 7 * labels), RankedListLoss()(rows, labels))


def violations(rows: Tensor, labels: Tensor, alpha: float) -> list[Tensor]:
    d = torch.cdist(F.normalize(rows, dim=1), F.normalize(rows, dim=1))
    wrong = labels[:, None] != labels
    return [(alpha - d[i][wrong[i] & (d[i] < alpha)]) for i in range(len(rows))]


def test_no_temperature_is_the_plain_mean_of_violations(clustered):
    rows, labels = clustered(5, 3, 6)
    loss = RankedListLoss(temperature=0)
    pull = RankedListLoss(negative_weight=0)(rows, labels)
    means = [v.mean() if len(v) else v.sum() for v in violations(rows, labels, 1.2)]
    assert_close(loss(rows, labels) - pull, torch.stack(means).mean())


def test_an_endless_temperature_is_the_hinge_of_the_closest_negative(clustered):
    rows, labels = clustered(5, 3, 6)
    pull = RankedListLoss(negative_weight=0)(rows, labels)
    hardest = [v.max() if len(v) else v.sum() for v in violations(rows, labels, 1.2)]
    value = RankedListLoss(temperature=1e9)(rows, labels) - pull
    assert_close(value, torch.stack(hardest).mean())


def test_alpha_left_out_is_one_and_half_the_margin(clustered):
    rows, labels = clustered(4, 3, 6)
    assert RankedListLoss(0.6).alpha == pytest.approx(1.3)
    assert_close(RankedListLoss(0.6)(rows, labels), RankedListLoss(0.6, 1.3)(rows, labels))


def test_one_identity_alone_is_only_pulled(clustered):
    rows, labels = clustered(1, 6, 4, noise=3.0)
    expected, _ = reference.ranked_list(reference.unit(rows), [0] * 6, 0.4, 1.2, 10)
    assert expected > 0
    assert RankedListLoss()(rows, labels).item() == pytest.approx(expected, abs=1e-10)


def test_one_image_an_identity_is_only_pushed(clustered):
    rows, labels = clustered(6, 1, 3)
    expected, _ = reference.ranked_list(reference.unit(rows), list(range(6)), 0.4, 1.2, 10)
    assert expected > 0
    assert RankedListLoss()(rows, labels).item() == pytest.approx(expected, abs=1e-10)


def test_a_single_image_costs_nothing_and_still_has_a_gradient():
    value, gradient = value_and_gradient(RankedListLoss(), torch.randn(1, 4), torch.tensor([3]))
    assert value == 0
    assert_close(gradient, torch.zeros(1, 4))


@pytest.mark.parametrize("query_weighting", ["uniform", "mass"])
@pytest.mark.parametrize("gradient", ["query", "pair"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_collapsed_batch_costs_the_whole_boundary(dtype, gradient, query_weighting):
    row = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=dtype)
    labels = torch.arange(4).repeat_interleave(3)
    loss = RankedListLoss(0.4, 1.2, 10, 0.7, gradient, query_weighting=query_weighting)
    value, found = value_and_gradient(loss, row.repeat(12, 1), labels)
    assert value.item() == pytest.approx(0.7 * 1.2, abs=1e-5)
    assert found.isfinite().all()


def test_a_batch_of_zeros_is_collapsed_too():
    value, gradient = value_and_gradient(RankedListLoss(), torch.zeros(6, 4), torch.arange(6) // 2)
    assert value.item() == pytest.approx(1.2)
    assert gradient.isfinite().all()


def test_the_other_librarys_loss_does_not_see_a_collapsed_batch():
    row = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(6, 1)
    labels = torch.arange(6) // 2
    assert pml.RankedListLoss(margin=0.4, Tn=5)(row, labels) == 0
    assert RankedListLoss()(row, labels).item() == pytest.approx(1.2)


@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_two_equal_images_give_a_finite_gradient(clustered, gradient):
    rows, labels = clustered(4, 3, 6)
    rows[1] = rows[0]  # one identity
    rows[6] = rows[3]  # two identities
    value, found = value_and_gradient(RankedListLoss(gradient=gradient), rows, labels)
    expected, _ = reference.ranked_list(reference.unit(rows), labels.tolist(), 0.4, 1.2, 10)
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert found.isfinite().all()


def test_a_pair_exactly_on_its_boundary_is_no_violation():
    # Distances 1 and 2 are exact here: with alpha 2 and margin 1 the boundaries are 1 and 2.
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    loss = RankedListLoss(1.0, 2.0, 0, normalize=False)
    pair = torch.tensor([0, 0])
    assert loss(rows[:2], pair) == 0
    assert loss(rows[[0, 2]], torch.tensor([0, 1])) == 0


def test_half_the_sum_is_what_the_other_library_calls_its_loss():
    rows = on_circle(0, 70, 30, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of temperatures above 5
        theirs = pml.RankedListLoss(margin=0.4, Tn=10, alpha=1.2)(rows, PAIRS).item()
    ours = RankedListLoss(0.4, 1.2, 10)(rows, PAIRS).item()
    assert theirs == pytest.approx(0.508127, abs=1e-6)
    assert ours / 2 == pytest.approx(0.5081336339, abs=5e-11)
    assert 2 * theirs == pytest.approx(ours, rel=2e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_embedding_breaks_the_loss_instead_of_hiding(clustered, value):
    rows, labels = clustered(4, 3, 6)
    rows[2, 0] = value
    assert RankedListLoss()(rows, labels).isnan()
    assert RankedListLoss()(rows, torch.arange(12)).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_are_compared_in_float32(clustered, dtype):
    rows, labels = clustered(4, 3, 16)
    half = rows.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(RankedListLoss(temperature=12), half, labels)
    expected, wide = value_and_gradient(RankedListLoss(temperature=12), half.float(), labels)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(value, expected)
    assert_close(gradient, wide.to(dtype))


def test_autocast_touches_neither_the_value_nor_the_way_back(clustered):
    rows, labels = clustered(4, 3, 16)
    plain = value_and_gradient(RankedListLoss(), rows.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_and_gradient(RankedListLoss(), rows.float(), labels)
    assert_close(cast, plain, atol=0, rtol=0)


def test_float64_stays_float64(clustered):
    rows, labels = clustered(4, 3, 8)
    assert RankedListLoss()(rows, labels).dtype == torch.float64


@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_naming_all_pairs_changes_nothing(clustered, gradient):
    rows, labels = clustered(4, 3, 6)
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(12, dtype=torch.bool)).nonzero(as_tuple=True)
    second, negative = (~same).nonzero(as_tuple=True)
    loss = RankedListLoss(gradient=gradient)
    named = value_and_gradient(loss, rows, labels, (anchor, positive, second, negative))
    assert_close(named, value_and_gradient(loss, rows, labels))


def test_only_the_named_pairs_count():
    rows = on_circle(0, 70, 30, 100)
    d = torch.cdist(rows, rows)
    one = [torch.tensor([k]) for k in (0, 1, 0, 2)]
    value = RankedListLoss(0.4, 1.2)(rows, PAIRS, tuple(one))
    assert_close(value, ((d[0, 1] - 0.8) + (1.2 - d[0, 2])) / 4)
    triplet = RankedListLoss(0.4, 1.2)(rows, PAIRS, (one[0], one[1], one[3]))
    assert_close(triplet, value)


def test_a_gallery_of_others_is_compared_with_every_query(clustered):
    rows, labels = clustered(4, 3, 6)
    gallery, gallery_labels = clustered(4, 2, 6, seed=0, noise=0.9)
    unit, others = F.normalize(rows, dim=1), F.normalize(gallery, dim=1)
    total = 0.0
    for i in range(len(unit)):
        d = (unit[i] - others).norm(dim=1)
        near = d[(gallery_labels != labels[i]) & (d < 1.2)]
        far = d[(gallery_labels == labels[i]) & (d > 0.8)]
        total += float((far - 0.8).mean()) if len(far) else 0.0
        weights = (10 * (1.2 - near)).softmax(0)
        total += float((weights * (1.2 - near)).sum())
    value = RankedListLoss()(rows, labels, None, gallery, gallery_labels)
    assert value.item() == pytest.approx(total / len(unit), abs=1e-10)


@pytest.mark.parametrize("gradient, moves", [("query", False), ("pair", True)])
def test_a_gallery_of_others_moves_only_when_both_ends_do(clustered, gradient, moves):
    rows, labels = clustered(4, 3, 6)
    gallery = (rows + 0.5).requires_grad_()
    value = RankedListLoss(gradient=gradient, temperature=0)(
        rows.requires_grad_(), labels, None, gallery, labels
    )
    value.backward()
    assert rows.grad.abs().max() > 0
    assert (gallery.grad is not None) is moves


def test_both_sides_of_a_gallery_get_the_derivative(clustered):
    rows, labels = clustered(3, 2, 4)
    gallery, gallery_labels = clustered(3, 3, 4, noise=0.9)
    loss = RankedListLoss(temperature=0, gradient="pair")
    inputs = (rows.requires_grad_(), gallery.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, g: loss(x, labels, None, g, gallery_labels), inputs)


@pytest.mark.parametrize(
    "miner",
    [
        miners.MultiSimilarityMiner(),
        miners.TripletMarginMiner(),
        miners.BatchHardMiner(),
        miners.PairMarginMiner(),
        miners.DistanceWeightedMiner(),
    ],
    ids=lambda miner: type(miner).__name__,
)
def test_it_takes_what_the_other_librarys_miners_choose(clustered, miner):
    rows, labels = clustered(5, 3, 6)
    value, gradient = value_and_gradient(RankedListLoss(), rows, labels, miner(rows, labels))
    assert value > 0
    assert gradient.isfinite().all()


def test_the_memory_of_the_other_library_accepts_it(clustered):
    rows, labels = clustered(4, 3, 8)
    rows = rows.float()
    memory = pml.CrossBatchMemory(RankedListLoss(), embedding_size=8, memory_size=24)
    first, _ = value_and_gradient(memory, rows, labels)
    assert_close(first, RankedListLoss()(rows, labels))  # the memory holds this batch only
    second, gradient = value_and_gradient(memory, rows.flip(1), labels)
    twice = torch.cat([rows, rows.flip(1)])
    others = torch.ones(12, 24, dtype=torch.bool)
    others[torch.arange(12), torch.arange(12, 24)] = False
    same = labels[:, None] == labels.repeat(2)
    pairs = (*(same & others).nonzero(as_tuple=True), *(~same & others).nonzero(as_tuple=True))
    assert_close(second, RankedListLoss()(rows.flip(1), labels, pairs, twice, labels.repeat(2)))
    assert gradient.abs().max() > 0


@pytest.mark.filterwarnings("ignore:DistributedLossWrapper")
@pytest.mark.parametrize("efficient", [False, True])
def test_the_distributed_wrapper_of_the_other_library_accepts_it(clustered, efficient):
    rows, labels = clustered(4, 3, 8)
    wrapped = DistributedLossWrapper(RankedListLoss(), efficient=efficient)
    assert_close(
        value_and_gradient(wrapped, rows, labels),
        value_and_gradient(RankedListLoss(), rows, labels),
    )


def test_a_config_can_name_it():
    loss = LOSSES.build("ranked_list", {"margin": "0.2", "temperature": 5, "gradient": "pair"})
    assert (loss.margin, loss.alpha, loss.temperature, loss.gradient) == (0.2, 1.1, 5.0, "pair")
    assert "unknown key 'temprature'" in LOSSES.faults("ranked_list", {"temprature": 5})[0]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"margin": -0.1}, "margin must be a number >= 0"),
        ({"alpha": 0.0}, "alpha must be a number > 0"),
        ({"alpha": math.nan}, "alpha must be a number > 0"),
        ({"temperature": math.inf}, "temperature must be a number >= 0"),
        ({"negative_weight": -1.0}, "negative_weight must be a number >= 0"),
        ({"gradient": "both"}, "gradient must be 'query' or 'pair'"),
        ({"query_weighting": "none"}, "query_weighting must be 'uniform' or 'mass'"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        RankedListLoss(**settings)


@pytest.mark.parametrize(
    "rows, labels, extra, words",
    [
        (torch.zeros(4), torch.zeros(4), (), r"embeddings must be floating point \(B, D\)"),
        (torch.zeros(0, 4), torch.zeros(0), (), "with B > 0"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4), (), "floating point"),
        (torch.zeros(4, 2), torch.zeros(3), (), r"labels have shape \(3,\), expected \(4,\)"),
        (torch.zeros(4, 2), torch.zeros(4, 1), (), r"labels have shape \(4, 1\)"),
        (torch.zeros(4, 2), torch.zeros(4), (None, torch.zeros(3, 2)), "belong together"),
        (
            torch.zeros(4, 2),
            torch.zeros(4),
            (None, torch.zeros(3, 3), torch.zeros(3)),
            "must agree",
        ),
        (torch.zeros(4, 2), torch.zeros(4), ((torch.zeros(1),),), "got 1 tensors"),
    ],
)
def test_wrong_shapes_are_named(rows, labels, extra, words):
    with pytest.raises(ValueError, match=words):
        RankedListLoss()(rows, labels, *extra)
