"""Training without labels as a person does it, on a tiny synthetic street."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reidkit import compose, losses
from reidkit.compose import training
from reidkit.compose.rounds import class_means, rounds_table, sparse
from reidkit.config import ConfigError, load_config
from reidkit.engine import load_state
from reidkit.types import Sample

SMOKE = Path(__file__).parent.parent / "configs" / "smoke"
METHODS = ("smp", "cluster_contrast", "buc")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder for the benchmark, so that the tiny street is rendered once."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(autouse=True)
def in_this_world(monkeypatch, world):
    monkeypatch.setenv("REIDKIT_DATA", str(world))


def settings(name, *overrides):
    return load_config(SMOKE / f"{name}.yaml", overrides)


def records(out, kind):
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


def same(first, second):
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", METHODS)
def test_labels_are_logged_before_each_round_and_scores_after_it(call, tmp_path, name):
    code, out, error = call("train", SMOKE / f"{name}.yaml", "--out", tmp_path / "run")
    assert code == 0, error
    assert "without labels" in out and "round 1 of 3" in out and "rank-1 after" in out
    found = records(tmp_path / "run", "labels")
    assert [record["round"] for record in found] == list(range(len(found)))
    assert {"silhouette", "precision", "recall", "f1"} <= {
        *found[-1]["quality"],
        *found[-1]["method"],
    }
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["num_classes"] is None and card["info"]["identities"] is None


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_stopped_in_or_between_rounds_resumes_to_the_same_bits(
    tmp_path, monkeypatch, name, step
):
    config = settings(name, "evaluate.every=0")
    compose.train(config, tmp_path / "whole")
    after_step = training.Run.after_step

    def stops(run, state, report):
        after_step(run, state, report)
        if state.iteration == step:
            state.stop = True

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "after_step", stops)
        with pytest.raises(training.Interrupted, match=r"stopped"):
            compose.train(config, tmp_path / "broken")
    compose.train(config, tmp_path / "broken", resume=True)
    assert same(tmp_path / "whole", tmp_path / "broken")
    whole, broken = (records(tmp_path / each, "labels") for each in ("whole", "broken"))
    for first, second in zip(whole, broken, strict=True):
        assert {**first, "time": 0} == {**second, "time": 0}


@pytest.mark.parametrize("name", METHODS)
def test_identities_of_the_training_samples_change_nothing(tmp_path, monkeypatch, name):
    config = settings(name, "evaluate.every=0")
    compose.train(config, tmp_path / "true")
    load = training.load_benchmarks

    def shuffled(config):
        samples, tests = load(config)
        pids = [sample.pid for sample in samples]
        random.Random(1).shuffle(pids)
        return tuple(replace(s, pid=p) for s, p in zip(samples, pids, strict=True)), tests

    monkeypatch.setattr(training, "load_benchmarks", shuffled)
    compose.train(config, tmp_path / "shuffled")
    assert same(tmp_path / "true", tmp_path / "shuffled")


def test_samples_without_identities_train_and_are_judged_by_themselves(tmp_path, monkeypatch):
    load = training.load_benchmarks

    def unknown(config):
        samples, tests = load(config)
        return tuple(replace(sample, pid=-1) for sample in samples), tests

    monkeypatch.setattr(training, "load_benchmarks", unknown)
    compose.train(settings("buc"), tmp_path / "run")
    assert records(tmp_path / "run", "labels")[0]["quality"] == {}


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["losses.0.name=cross_entropy"], r"logits"),
        (["losses=[{name: center}]"], r"center"),
        (["method.name=smb"], r"unknown method 'smb'.*Did you mean 'smp'"),
        (["method.kk=3"], r"unknown key 'kk'"),
        (["method.k=0"], r"method: "),
        (["method.epochs=0"], r"method.epochs"),
        (["project={dim: 4, whiten: learned}"], r"learned needs identities"),
    ],
)
def test_what_does_not_go_without_labels_is_told_before_anything_is_read(
    tmp_path, overrides, words
):
    with pytest.raises(ConfigError, match=words):
        compose.train(settings("smp", *overrides), tmp_path / "run")


def test_a_batch_of_more_identities_than_classes_is_told_with_advice(call, tmp_path):
    words = ("data.batch.identities=50", "--out", tmp_path / "run")
    code, _, error = call("train", SMOKE / "buc.yaml", *words)
    assert code == 1 and error.count("\n") == 1
    assert "classes, but a batch takes 50 identities: lower data.batch.identities" in error


def test_a_gap_without_times_is_told_with_advice():
    with pytest.raises(ConfigError, match=r"method.gap"):
        sparse((Sample(("a.jpg",), 1), Sample(("b.jpg",), 2)), 5.0)


def test_a_gap_leaves_fewer_tracklets_and_none_keeps_all():
    samples = tuple(Sample((f"{n}.jpg",), n, span=(n, n + 0.5)) for n in range(10))
    assert sparse(samples, None) == samples
    assert [sample.pid for sample in sparse(samples, 2.0)] == [0, 3, 6, 9]


def test_the_memory_begins_with_the_mean_features_of_the_classes(tmp_path, monkeypatch):
    seen = []
    fill = losses.ClusterMemory.fill

    def watched(memory, centroids):
        seen.append(centroids)
        fill(memory, centroids)

    monkeypatch.setattr(losses.ClusterMemory, "fill", watched)
    compose.train(settings("buc", "evaluate.every=0"), tmp_path / "run")
    assert len(seen) == 3 and all(centroids.shape[1] == 1 for centroids in seen)
    assert len(seen[1]) < len(seen[0])


def test_class_means_leave_out_samples_without_a_class():
    vectors = torch.tensor([[[1.0, 0]], [[0, 1]], [[3, 0]], [[9, 9]]])
    means = class_means(vectors, torch.tensor([0, 1, 0, -1]))
    assert means.tolist() == [[[2.0, 0]], [[0, 1]]]


def test_the_table_has_a_line_each_round_and_a_dash_where_nothing_is_known():
    table = rounds_table(
        {0: {"matches": 3.0}, 1: {"matches": 5.0, "f1": 0.25}}, {0: 0.5, 1: None}, "rank-1"
    )
    assert table.splitlines() == [
        "round  matches     f1  rank-1 after",
        "    1        3      -        50.00%",
        "    2        5  0.250             -",
    ]


def test_scores_are_taken_after_rounds_whatever_their_epochs(tmp_path):
    overrides = ("method.first=2", "method.epochs=1", "optim.epochs=5", "evaluate.every=2")
    compose.train(settings("buc", *overrides), tmp_path / "run")
    # Rounds end after 2, 3, 4 and 5 epochs; every second one is scored, and the last.
    assert [record["epoch"] for record in records(tmp_path / "run", "evaluation")] == [3, 5]


def test_the_model_of_the_best_round_is_kept_and_its_score_is_no_later_rounds(
    tmp_path, monkeypatch
):
    from reidkit.unsupervised import BottomUpClustering

    label = BottomUpClustering.label

    def second_is_best(method, features, round, previous):
        found = label(method, features, round, previous)
        return replace(found, told={**found.told, "best_round": min(round + 1, 2)})

    monkeypatch.setattr(BottomUpClustering, "label", second_is_best)
    out = tmp_path / "run"
    compose.train(settings("buc"), out)
    kept, best = load_file(out / "model.safetensors"), load_file(out / "best_round.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in kept)
    trained = load_state(out / "state.pt")["state"]["task"]
    assert any(not torch.equal(trained[f"model.{name}"], kept[name]) for name in kept)
    assert [r["weights"] for r in records(out, "evaluation")] == ["raw", "raw", "best round"]


@pytest.mark.parametrize(
    "overrides, sizes",
    [
        ((), [128, 128, 128]),
        (("method.start=[pixels]",), [24, 128, 128]),
        (("method.beside=[pixels]",), [152, 152, 152]),
    ],
)
@pytest.mark.parametrize("centre", [False, True])
def test_the_method_sees_what_was_asked_for(tmp_path, monkeypatch, overrides, sizes, centre):
    from reidkit.unsupervised import BottomUpClustering

    seen = []
    label = BottomUpClustering.label

    def watched(method, features, round, previous):
        seen.append(features)
        return label(method, features, round, previous)

    monkeypatch.setattr(BottomUpClustering, "label", watched)
    words = (*overrides, f"method.centre={str(centre).lower()}", "evaluate.every=0")
    compose.train(settings("buc", *words), tmp_path / "run")
    assert [features.vectors.shape[1] for features in seen] == sizes
    one = seen[1].vectors[seen[1].camids == 0]
    assert (float(one[:, :128].mean(0).abs().max()) < 0.02) == centre


def test_a_later_round_that_finds_nothing_ends_the_rounds_and_not_the_run(
    tmp_path, monkeypatch, capsys, call
):
    from reidkit.unsupervised import BottomUpClustering, NothingToLearn

    label = BottomUpClustering.label

    def gives_up(method, features, round, previous):
        if round == 2:
            raise NothingToLearn("no cluster; raise eps")
        return label(method, features, round, previous)

    monkeypatch.setattr(BottomUpClustering, "label", gives_up)
    code, out, error = call("train", SMOKE / "buc.yaml", "--out", tmp_path / "run")
    assert code == 0, error
    assert "round 3: no cluster; raise eps; the rounds end here" in out
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_labels_of_another_method_are_not_gone_on_with(call, tmp_path):
    out = tmp_path / "run"
    assert call("train", SMOKE / "buc.yaml", "--out", out)[0] == 0
    words = ("train", SMOKE / "cluster_contrast.yaml", "--out", out, "--resume", "--force")
    code, _, error = call(*words)
    assert code == 1 and "labels by buc, this run finds them by cluster_contrast" in error
