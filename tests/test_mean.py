import json

import pytest

from reidkit.compose import mean_of_runs


def finished(folder, **values):
    """A run folder with these scores of the trained model on `ilids_vid`."""
    folder.mkdir()
    scores = {"ilids_vid": {"trained": {"scores": values}}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        finished(tmp_path / "a", mAP=0.25, **{"rank-1": 0.5}),
        finished(tmp_path / "b", mAP=0.75, **{"rank-1": 0.7}),
    ]


def test_the_mean_and_deviation_over_runs_are_those_by_hand(runs):
    found = mean_of_runs(runs).to_dict()["benchmarks"]["ilids_vid"]["trained"]
    # rank-1: mean (0.5 + 0.7) / 2, deviation sqrt(2 * 0.1^2 / (2 - 1))
    assert found["rank-1"]["mean"] == pytest.approx(0.6)
    assert found["rank-1"]["deviation"] == pytest.approx(0.02**0.5)
    assert found["mAP"]["runs"] == [0.25, 0.75]


def test_the_command_prints_percent(runs, call):
    code, out, _ = call("mean", *runs)
    assert code == 0
    assert "mean of 2 runs" in out
    assert "60.00 +- 14.14" in out


def test_what_cannot_be_averaged_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="at least two"):
        mean_of_runs(runs[:1])
    with pytest.raises(ValueError, match="named twice"):
        mean_of_runs([runs[0], runs[0]])
    with pytest.raises(FileNotFoundError, match="finished"):
        mean_of_runs([runs[0], tmp_path / "nothing"])
    other = finished(tmp_path / "c", mAP=0.5)
    with pytest.raises(ValueError, match="the same benchmarks, rows and scores"):
        mean_of_runs([runs[0], other])
    (other / "scores.json").write_text(json.dumps({"ilids_vid": {}}))
    with pytest.raises(ValueError, match="no scores of a trained model"):
        mean_of_runs([runs[0], other])
    (other / "scores.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"no scores\.json"):
        mean_of_runs([runs[0], other])
