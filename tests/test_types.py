import numpy as np
import pytest
import torch

from reidkit.types import Features, Sample, Scores


def test_features_survive_a_file(tmp_path):
    samples = (Sample(("a.jpg", "b.jpg"), 3, 1), Sample(("c.jpg",), -1, 0))
    Features(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), samples, parts=2).save(tmp_path / "f.npz")
    found = Features.load(tmp_path / "f.npz")
    assert torch.equal(found.vectors, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert found.pids.tolist() == [3, -1]
    assert found.camids.tolist() == [1, 0]
    assert found.samples[0].frames == ("a.jpg",)
    assert found.parts == 2


def test_a_feature_file_of_another_toolkit_needs_only_vectors_and_pids(tmp_path):
    np.savez(tmp_path / "f.npz", vectors=np.eye(3, dtype=np.float64), pids=np.arange(3))
    found = Features.load(tmp_path / "f.npz")
    assert found.vectors.dtype == torch.float64
    assert found.camids.tolist() == [-1, -1, -1]  # unknown


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "f.npz", vectors=np.array([object()], dtype=object), pids=np.arange(1))
    with pytest.raises(ValueError, match="not a feature file"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip at all"])
def test_a_file_of_something_else_is_told_so(tmp_path, content):
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a feature file"):
        Features.load(tmp_path / "f.npz")


def test_a_missing_feature_file_tells_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="reidkit extract"):
        Features.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "vectors, pids, camids, words",
    [
        (np.ones((3, 2)), [1, 2], None, r"pids has shape \(2,\), expected \(3,\)"),
        (np.ones((2, 2)), [1, 2], [0], "camids has shape"),
        (np.ones((2, 2)), ["a", "b"], None, "pids must be integers"),
        (np.ones((2, 2)), [0.5, 1.0], None, "pids must be integers"),
        (np.ones((2, 2), dtype=np.int64), [1, 2], None, "must be floating point"),
        (np.ones(2), [1, 2], None, r"shape \(N, D\)"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(vectors, pids, camids, words):
    with pytest.raises(ValueError, match=words):
        Features.from_arrays(vectors, pids, camids)


def test_a_csv_of_features_has_a_line_a_sample(tmp_path):
    Features(torch.tensor([[0.5, -1.0]]), (Sample(("a,b.jpg",), 7, 2),)).save_csv(
        tmp_path / "f.csv"
    )
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines == ["path,pid,camid,v0,v1", '"a,b.jpg",7,2,0.5,-1.0']


def test_scores_read_as_fractions_and_print_as_percent():
    scores = Scores({"mAP": 0.5, "rank-1": 0.75}, skipped=2, queries=10, tied=1)
    assert scores["rank-1"] == 0.75
    table = scores.table("made up")
    assert "75.00%" in table
    assert "2 without a right answer" in table
    assert "1 decided by a tie" in table
    assert scores.to_dict()["scores"] == {"mAP": 0.5, "rank-1": 0.75}


def test_a_file_of_another_kind_is_no_feature_file(tmp_path):
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected an .npz of plain arrays, as `reidkit extract`"):
        Features.load(tmp_path / "s.json")


def test_the_model_of_features_is_kept_in_their_file(tmp_path):
    Features(torch.eye(2), (Sample((), 1), Sample((), 2)), model="abc").save(tmp_path / "f.npz")
    assert Features.load(tmp_path / "f.npz").model == "abc"
