import json
from dataclasses import replace

import pytest
import torch

from reidkit import evaluation
from reidkit.compose.scoring import check_views, gait_rules, rules_of, score
from reidkit.registry import UnknownName
from reidkit.types import Benchmark, EvalProtocol, Features, Sample, StoredFrames

VIEWS = ("000", "090", "180")
PROBES = ("nm-05", "bg-01", "cl-02")


def features(conditions, noise, seed=0):
    """One vector an identity, condition and view: the identity's own, and noise."""
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(5, 8, generator=torch.Generator().manual_seed(9))
    samples = tuple(
        Sample((), pid, VIEWS.index(view), view, condition, "gait")
        for pid in range(5)
        for condition in conditions
        for view in VIEWS
    )
    vectors = torch.stack([own[sample.pid] for sample in samples])
    return Features(vectors + noise * torch.randn(vectors.shape, generator=draw), samples)


@pytest.fixture
def sides():
    return features(PROBES, 0.8), features(("nm-01", "nm-02", "nm-03", "nm-04"), 0.8, seed=1)


CASIA_B = rules_of("casia_b")


def test_a_gait_benchmark_is_scored_by_its_table(sides):
    scores = score(*sides, CASIA_B, name="casia_b", gait_distance="flat")
    table = evaluation.gait_table(*sides, "casia_b", distance="flat")
    assert dict(scores) == {name: table.mean(name) for name in ("NM", "BG", "CL")}
    assert 0 < scores["NM"] < 1
    assert table.table() in scores.table("casia_b")
    plain = json.loads(json.dumps(scores.to_dict()))
    assert plain["details"]["rank1"] == table.to_dict()["rank1"]


def test_a_benchmark_with_casia_b_conditions_gets_its_protocol(sides):
    assert gait_rules(sides[1], CASIA_B, "synthetic_casia_b").name == "casia_b"


@pytest.mark.parametrize("there", [("cl-02", "bg-02", "nm-02"), ("nm-02",)])
def test_the_cross_view_protocol_stays_pooled(there):
    gallery = features(there, 0.1)
    for name in ("casia_b", "casia_b_cross_view", "other"):
        rules = gait_rules(gallery, rules_of("casia_b_cross_view"), name)
        assert rules.name == "casia_b_cross_view"
        assert rules.pooled


def test_conditions_of_ones_own_become_a_protocol_of_ones_own():
    gallery = features(("1", "2"), 0.1)
    protocol = EvalProtocol("same_view", report=("gait_table",), groups={"NM": ("3",)})
    rules = gait_rules(gallery, protocol, "own")
    assert (rules.name, rules.gallery, dict(rules.probes)) == ("own", ("1", "2"), {"NM": ("3",)})
    assert dict(score(features(("3",), 0.0), gallery, protocol, name="own")) == {"NM": 1.0}


def test_other_protocols_are_scored_as_retrieval(sides):
    protocol = rules_of("no_camera")
    assert dict(score(*sides, protocol, name="x")) == dict(evaluation.evaluate(*sides, protocol))


def test_gait_retrieval_ranks_by_the_gait_distance():
    query = replace(Features.from_arrays(torch.zeros(1, 2), [1], [0]), parts=2)
    gallery = Features.from_arrays(torch.tensor([[3.0, 3.0], [4.5, 0.0]]), [1, 2], [1, 1])
    sides = query, replace(gallery, parts=2)
    protocol = rules_of("no_camera")
    for distance, rank_1 in (("flat", 1.0), ("parts", 0.0)):
        found = score(*sides, protocol, name="gait3d", gait_distance=distance)
        assert found["rank-1"] == rank_1


def test_a_benchmark_of_one_view_is_refused_before_anything_is_trained(sides):
    one = [tuple(s for s in side.samples if s.view == "090") for side in sides]
    test = Benchmark("home", (), one[0], one[1], CASIA_B)
    with pytest.raises(ValueError, match=r"home: .*one view \(090\).*data\.test=\[\]"):
        check_views(test)
    check_views(Benchmark("two", (), sides[0].samples, one[1], CASIA_B))


def test_only_probes_of_the_protocol_are_counted(sides):
    both = features((*PROBES, "nm-01"), 0.5)
    assert score(both, both, CASIA_B, name="casia_b").queries == len(sides[0])


def test_an_unknown_protocol_lists_gait_protocols_too():
    with pytest.raises(UnknownName, match="Did you mean 'casia_b'"):
        rules_of("casiab")


def test_views_and_conditions_survive_a_feature_file(sides, tmp_path):
    probe, _ = sides
    probe.save(tmp_path / "f.npz")
    loaded = Features.load(tmp_path / "f.npz")
    for key in ("pid", "camid", "view", "condition"):
        wanted = [getattr(sample, key) for sample in probe.samples]
        assert [getattr(sample, key) for sample in loaded.samples] == wanted


def test_stretches_of_a_store_survive_a_feature_file(tmp_path):
    samples = (
        Sample(StoredFrames("/data/a#b", 7, 30), 1),
        Sample(("/data/x#1.png",), 2),
        Sample((), 3),
    )
    Features(torch.zeros(3, 2), samples).save(tmp_path / "f.npz")
    loaded = Features.load(tmp_path / "f.npz").samples
    assert [sample.frames for sample in loaded] == [sample.frames for sample in samples]


def test_feature_files_are_scored_by_a_gait_protocol(sides, tmp_path, call):
    for name, side in zip(("p", "g"), sides, strict=True):
        side.save(tmp_path / f"{name}.npz")
    files = ("--query", tmp_path / "p.npz", "--gallery", tmp_path / "g.npz")
    code, out, _ = call("evaluate", *files, "--protocol", "casia_b")
    assert code == 0
    assert "casia_b: rank-1 in %, identical views left out" in out
    code, _, err = call("evaluate", *files, "--protocol", "casia_b", "--rerank")
    assert code == 1
    assert "no re-ranking" in err


def test_the_protocols_are_listed_with_their_source(call):
    code, out, _ = call("list", "protocol")
    assert code == 0
    assert "casia_b_cross_view: a gait table" in out
