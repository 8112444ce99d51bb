import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.models import (
    GaitSet,
    Projected,
    ReIDModel,
    build_model,
    fit_projection,
    load_model,
    model_faults,
    projection_faults,
    read_card,
    save_model,
)
from reidkit.models.projection import pair_covariances
from reidkit.types import Preprocessing

SPEC = {"name": "reid", "backbone": {"name": "osnet", "width": 0.25}}
PARTS = SPEC | {"spatial": {"name": "parts", "count": 2}}
PREPROCESSING = Preprocessing((64, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def make(spec: dict = SPEC) -> ReIDModel:
    torch.manual_seed(0)
    model = build_model(spec, num_classes=4, size=PREPROCESSING.size, preprocessing=PREPROCESSING)
    return model.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 1, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def covariance(rows: Tensor) -> Tensor:
    return torch.from_numpy(np.cov(rows.numpy(), rowvar=False))


def slow_pairs(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean half products of differences, over matching and over other pairs, pair by pair."""
    sums = [torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype) for _ in range(2)]
    counts = [0, 0]
    for i in range(len(rows)):
        for j in range(i):
            other = int(labels[i] != labels[j])
            difference = rows[i] - rows[j]
            sums[other] += torch.outer(difference, difference) / 2
            counts[other] += 1
    return sums[0] / counts[0], sums[1] / counts[1]


def test_all_dimensions_without_whitening_keep_every_distance(clustered):
    vectors, _ = clustered(10, 4, 6)
    found = fit_projection(vectors, 6, "none")
    projected = (vectors - found.mean) @ found.components
    torch.testing.assert_close(torch.cdist(projected, projected), torch.cdist(vectors, vectors))
    centred = vectors - vectors.mean(0)
    cosines = [F.normalize(x, dim=1) @ F.normalize(x, dim=1).t() for x in (projected, centred)]
    torch.testing.assert_close(*cosines)
    assert found.kept == pytest.approx(1)


def test_fewer_dimensions_are_those_of_the_largest_variance(clustered):
    vectors, _ = clustered(10, 4, 6)
    found = fit_projection(vectors, 2, "none")
    values = np.linalg.svd((vectors - vectors.mean(0)).numpy(), compute_uv=False) ** 2
    projected = (vectors - found.mean) @ found.components
    np.testing.assert_allclose(covariance(projected), np.diag(values[:2]) / 39, atol=1e-10)
    assert found.kept == pytest.approx(values[:2].sum() / values.sum())


def test_whitened_vectors_have_the_covariance_one(clustered):
    vectors, _ = clustered(10, 4, 6)
    found = fit_projection(vectors, 4, "pca")
    projected = (vectors - found.mean) @ found.components
    torch.testing.assert_close(covariance(projected), torch.eye(4, dtype=torch.float64))


def test_fewer_vectors_than_dimensions_are_whitened_too():
    vectors = torch.randn(9, 20, generator=torch.Generator().manual_seed(0))
    found = fit_projection(vectors, 8, "pca")
    projected = (vectors.double() - found.mean) @ found.components
    torch.testing.assert_close(covariance(projected), torch.eye(8, dtype=torch.float64))
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert fit_projection(vectors, 8, "learned", labels=labels).components.isfinite().all()


@pytest.mark.parametrize("whiten", ["none", "pca", "learned"])
def test_the_same_vectors_in_any_order_give_the_same_projection(clustered, whiten):
    vectors, labels = clustered(10, 4, 6)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first = fit_projection(vectors, 3, whiten, labels=labels)
    again = fit_projection(vectors[order], 3, whiten, labels=labels[order])
    torch.testing.assert_close(first.components, again.components)
    if whiten == "none":
        signs = first.components.gather(0, first.components.abs().argmax(0, keepdim=True))
        assert (signs > 0).all()


def test_pair_covariances_equal_a_loop_over_all_pairs(clustered):
    vectors, labels = clustered(5, 4, 3)
    vectors, labels = vectors[:-3], labels[:-3] * 7  # identities of other sizes, one of a single
    rows = vectors - vectors.mean(0)
    for fast, slow in zip(pair_covariances(rows, labels), slow_pairs(vectors, labels), strict=True):
        torch.testing.assert_close(fast, slow)


def test_learned_whitening_makes_matching_pairs_differ_alike_in_all_directions(clustered):
    vectors, labels = clustered(10, 4, 6)
    found = fit_projection(vectors, 4, "learned", labels=labels, shrink=0)
    projected = (vectors - found.mean) @ found.components
    within, between = slow_pairs(projected, labels)
    torch.testing.assert_close(within, torch.eye(4, dtype=torch.float64))
    values = between.diagonal()
    torch.testing.assert_close(between, values.diag())  # principal directions of the other pairs
    assert (values.diff() < 0).all()


def test_shrinking_all_the_way_is_pca_of_the_pairs_that_do_not_match(clustered):
    vectors, labels = clustered(10, 4, 6)
    found = fit_projection(vectors, 2, "learned", labels=labels, shrink=1)
    directions = np.linalg.svd(slow_pairs(vectors, labels)[1].numpy())[0][:, :2]
    cosines = np.abs((F.normalize(found.components, dim=0).numpy() * directions).sum(0))
    np.testing.assert_allclose(cosines, 1)
    lengths = found.components.norm(dim=0)
    torch.testing.assert_close(lengths[0], lengths[1])


def test_learned_whitening_finds_identities_behind_a_loud_nuisance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20).repeat_interleave(5)
    vectors = torch.randn(100, 8, generator=generator) * 0.1
    vectors[:, :2] += torch.randn(20, 2, generator=generator)[labels]
    vectors[:, 2:5] += 5 * torch.randn(100, 3, generator=generator)

    def right(whiten: str) -> float:
        shrink = 0.0 if whiten == "learned" else None
        found = fit_projection(vectors, 2, whiten, labels=labels, shrink=shrink)
        projected = (vectors.double() - found.mean) @ found.components
        near = torch.cdist(projected, projected).fill_diagonal_(torch.inf).argmin(1)
        return float((labels[near] == labels).double().mean())

    assert right("learned") > 0.7 > 0.2 > right("pca")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vectors": torch.zeros(4)}, r"shape \(N, D\) of floats, got torch.float32 of shape \(4,"),
        ({"vectors": torch.zeros(4, 3, dtype=torch.int64)}, "of floats, got torch.int64"),
        ({"vectors": torch.full((8, 3), torch.nan)}, "8 vectors are not finite"),
        ({"vectors": torch.ones(8, 3)}, "all 8 vectors are the same"),
        ({"vectors": torch.zeros(0, 3)}, "dim 2 for 0 vectors"),
        ({"dim": 0}, "dim 0 for 8 vectors of 3 numbers: expected at least 1, and at most 3"),
        ({"dim": 4}, "at most 3"),
        ({"vectors": torch.eye(3)[:2]}, "dim 2 for 2 vectors of 3 numbers: .* at most 1"),
        ({"whiten": "zca"}, "whiten 'zca': expected none, pca, learned"),
        ({"whiten": "pca"}, "vary in 1 directions only; whitening to dim 2"),
        ({"whiten": "pca", "shrink": 0.1}, "shrink is for whiten 'learned'"),
        ({"shrink": 2.0}, "shrink 2: expected a number from 0 to 1"),
        ({"shrink": 0.0}, "differ in 1 of 3 directions only; set shrink above 0"),
        ({"labels": None}, "needs the labels"),
        ({"labels": [0, 1]}, r"labels need shape \(8,\) of integers"),
        ({"labels": [0.5] * 8}, "of integers, got torch.float32"),
        ({"labels": [0, 0, 1, 1, -1, -1, 2, 2]}, "2 of 8 vectors have no identity"),
        ({"labels": [0] * 8}, "8 vectors of 1 identities have not both"),
        ({"labels": list(range(8))}, "8 vectors of 8 identities have not both"),
    ],
)
def test_what_cannot_be_fitted_is_told_in_a_line(change, words):
    line = torch.zeros(8, 3)
    line[:, 0] = torch.arange(8.0)
    settings = {"vectors": line, "dim": 2, "whiten": "learned", "labels": [0, 0, 1, 1] * 2}
    with pytest.raises(ValueError, match=words) as caught:
        fit_projection(**{**settings, **change})
    assert "\n" not in str(caught.value)


def test_identities_without_any_spread_have_nothing_to_learn_from():
    vectors = torch.eye(3).repeat_interleave(3, 0)
    labels = torch.arange(3).repeat_interleave(3)
    with pytest.raises(ValueError, match="of each identity are all the same"):
        fit_projection(vectors, 2, "learned", labels=labels)


@pytest.mark.parametrize("spec", [SPEC, PARTS])
def test_a_projected_model_answers_with_its_inner_features_projected(spec):
    inner, x = make(spec), images(6)
    with torch.no_grad():
        output = inner(x)
        plain = F.normalize(output.feature, dim=2) if inner.parts > 1 else output.feature
        unit = F.normalize(plain.flatten(1), dim=1)
        found = fit_projection(unit, 3, "pca")
        model = Projected.fitted(inner, found, "pca")
        answer = model(x)
    wanted = (unit.double().numpy() - found.mean.numpy()) @ found.components.numpy()
    np.testing.assert_allclose(answer.feature[:, 0].numpy(), wanted, atol=1e-4)
    assert answer.feature.shape == (6, 1, 3)
    assert torch.equal(answer.embedding, output.embedding)
    assert torch.equal(answer.logits, output.logits)
    assert (model.parts, model.embedding_size) == (1, 3)
    assert model.preprocessing == PREPROCESSING and not model.training


@pytest.mark.parametrize("spec", [SPEC, PARTS])
def test_a_saved_projected_model_comes_back_and_answers_the_same(tmp_path, spec):
    inner, x = make(spec), images(6)
    vectors = torch.randn(9, inner.embedding_size, generator=torch.Generator().manual_seed(2))
    model = Projected.fitted(inner, fit_projection(vectors, 5), "pca")
    save_model(tmp_path, model, model.spec(spec), num_classes=4)
    loaded = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(x).feature, model(x).feature)
    assert (loaded.whiten, loaded.preprocessing) == ("pca", PREPROCESSING)
    assert read_card(tmp_path).embedding_size == 5
    assert model_faults(read_card(tmp_path).spec) == []


def test_loading_a_projected_model_downloads_nothing(tmp_path, monkeypatch):
    small = {"name": "resnet", "depth": 18, "width": 0.125, "pretrained": False}
    model = Projected(make({"name": "reid", "backbone": small}), 5)
    asked = {"name": "reid", "backbone": {"name": "resnet", "depth": 18, "pretrained": True}}
    asked["backbone"]["width"] = 0.125
    save_model(tmp_path, model, model.spec(asked), num_classes=4)

    def refuse(*_):
        raise AssertionError("asked for weights")

    monkeypatch.setattr("reidkit.models.backbones.resnet.state_from_url", refuse)
    assert load_model(tmp_path).embedding_size == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 0}, "dim 0: expected 1 to 128"),
        ({"dim": 129}, "dim 129: expected 1 to 128"),
        ({"dim": "many"}, "dim = 'many'"),
        ({"whiten": "zca"}, "whiten = 'zca'"),
        ({"model": {"name": "ried"}}, "unknown model 'ried'"),
        ({"model": {"name": "gaitset"}}, "compared part by part"),
        ({"model": {"name": "projected", "model": SPEC, "dim": 5}}, "projected already, to 5"),
    ],
)
def test_a_card_that_cannot_be_is_told_in_a_line(tmp_path, change, words):
    model = Projected(make(), 5)
    save_model(tmp_path, model, model.spec(SPEC), num_classes=4)
    card = json.loads((tmp_path / "model.json").read_text())
    card["spec"] |= change
    if card["spec"]["model"]["name"] == "gaitset":
        card["preprocessing"] = {"size": [64, 44], "mean": [0.0], "std": [1.0]}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=words) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_projected_is_known_before_anything_is_extracted():
    assert projection_faults(make(), 128) == projection_faults(make(), 127, 128) == []
    few = projection_faults(make(), 200, 100)
    assert few == [
        "dim 200: expected 1 to 128, the features' size",
        "dim 200 needs 201 samples to be fitted on, there are 100",
    ]
    assert "GaitSet is compared part by part" in projection_faults(GaitSet(), 5)[0]
    assert "projected already" in projection_faults(Projected(make(), 5), 3)[0]
