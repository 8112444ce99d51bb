"""GREW: the submission's file, line by line, and the local check against a full sort."""

import csv

import numpy as np
import pytest
import torch

from reidkit.evaluation.gait.grew import grew_check, grew_submission
from reidkit.types import Features, Sample


def made(n, condition, first=1, pids=None, seed=0, parts=2, view=""):
    random = torch.Generator().manual_seed(seed)
    pids = list(range(first, first + n)) if pids is None else pids
    samples = tuple(
        Sample((f"test/{pid:05d}/{i:04d}/00001.png",), pid, view=view, condition=condition)
        for i, pid in enumerate(pids)
    )
    return Features(torch.randn(n, parts * 3, generator=random), samples, parts)


def written(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def slow_table(probe, gallery):
    a, b = (side.vectors.double().reshape(len(side), side.parts, -1) for side in (probe, gallery))
    return (a[:, None] - b[None]).norm(dim=3).mean(2).numpy()


def test_a_submission_lists_the_twenty_nearest_identities(tmp_path):
    probe, gallery = made(7, "03", seed=1), made(60, "01", first=100)
    grew_submission(probe, gallery, tmp_path / "out" / "grew.csv")
    head, *rows = written(tmp_path / "out" / "grew.csv")
    assert head == ["videoId", *(f"rank{k}" for k in range(1, 21))]
    order = np.argsort(slow_table(probe, gallery), axis=1)[:, :20]
    for i, row in enumerate(rows):
        assert row[0] == f"{i:04d}"  # the folder of the probe's frames
        assert row[1:] == [f"{gallery.samples[j].pid:05d}" for j in order[i]]
    assert len(rows) == 7


def test_a_probe_is_called_by_its_view_and_identities_may_be_plain_numbers(tmp_path):
    probe, gallery = made(1, "03", view="vid7"), made(30, "01")
    grew_submission(probe, gallery, tmp_path / "grew.csv", digits=1)
    row = written(tmp_path / "grew.csv")[1]
    assert row[0] == "vid7"
    assert all(str(int(cell)) == cell for cell in row[1:])


def test_an_identity_with_two_near_sequences_stands_there_twice(tmp_path):
    gallery = made(40, "01", pids=[1 + i // 2 for i in range(40)])
    vectors = gallery.vectors.clone()
    vectors[1::2] = vectors[::2] + 1e-3
    gallery = Features(vectors, gallery.samples, 2)
    grew_submission(made(1, "03", seed=2), gallery, tmp_path / "grew.csv")
    row = written(tmp_path / "grew.csv")[1][1:]
    assert len(row) == 20 and len(set(row)) == 10


def test_items_at_one_distance_come_in_the_order_of_the_gallery(tmp_path):
    gallery = made(50, "01")
    same = Features(gallery.vectors[:1].repeat(50, 1), gallery.samples, 2)
    grew_submission(made(1, "03", seed=3), same, tmp_path / "grew.csv")
    assert written(tmp_path / "grew.csv")[1][1:] == [f"{pid:05d}" for pid in range(1, 21)]


def test_a_failed_submission_leaves_the_old_file(tmp_path):
    path = tmp_path / "grew.csv"
    path.write_text("before")
    with pytest.raises(ValueError, match="ranks 20"):
        grew_submission(made(2, "03"), made(19, "01"), path)
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    "probe, gallery, words",
    [
        (made(1, "03"), made(25, "01", pids=[-1] + [1] * 24), "gallery .* has pid -1"),
        (made(2, "03", view="one"), made(25, "01"), "several probes have the video 'one'"),
        (
            Features(torch.zeros(1, 6), (Sample((), 1),), 2),
            made(25, "01"),
            "neither view nor frames",
        ),
        (made(1, "03", parts=1), made(25, "01"), "3 dimensions, gallery features 6"),
    ],
)
def test_what_makes_no_submission_is_refused_with_words(probe, gallery, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        grew_submission(probe, gallery, tmp_path / "grew.csv")


@pytest.mark.parametrize("distance", ["parts", "flat"])
def test_the_check_equals_a_full_sort(distance):
    both = [made(60, kind, seed=5) for kind in ("01", "02", "03")]
    vectors = torch.cat([both[0].vectors, both[1].vectors + 0, both[2].vectors])
    vectors[60:120] += 1.2 * torch.randn(60, 6, generator=torch.Generator().manual_seed(6))
    everything = Features(vectors, sum((side.samples for side in both), ()), 2)
    scores = grew_check(everything, everything, distance=distance)
    parts = 2 if distance == "parts" else 1
    probe = Features(vectors[60:120], both[1].samples, parts)
    table = slow_table(probe, Features(vectors[:60], both[0].samples, parts))
    ranks = 1 + (table < np.diag(table)[:, None]).sum(1)
    for k in (1, 5, 10, 20):
        assert scores[f"rank-{k}"] == pytest.approx((ranks <= k).mean())
    assert 0 < scores["rank-1"] < scores["rank-10"] < 1
    assert (scores.queries, scores.skipped, scores.tied) == (60, 0, 0)
    assert scores.cmc.shape == (20,)


def test_the_check_by_hand_with_a_tie_and_a_probe_without_an_answer():
    # Probe 1 at 0: right at 2, wrong at -2 (a tie) and at 1: rank 3. Probe 2 at 9: right, rank 1.
    # Probe 7 has no right answer.
    gallery = Features(
        torch.tensor([[2.0], [-2.0], [1.0], [10.0]]),
        tuple(Sample((), pid, condition="01") for pid in (1, 3, 4, 2)),
    )
    probe = Features(
        torch.tensor([[0.0], [9.0], [0.0]]),
        tuple(Sample((), pid, condition="02") for pid in (1, 2, 7)),
    )
    scores = grew_check(probe, gallery)
    assert (scores["rank-1"], scores["rank-5"]) == (0.5, 1)
    assert scores.cmc[:3].tolist() == [0.5, 0.5, 1]
    assert (scores.queries, scores.skipped, scores.tied) == (2, 1, 1)


def test_a_collapsed_model_finds_nobody_within_twenty():
    one = made(1, "01").vectors
    gallery, probe = (
        Features(one.repeat(40, 1), made(40, kind).samples, 2) for kind in ("01", "02")
    )
    assert grew_check(probe, gallery)["rank-20"] == 0


def test_a_check_without_the_conditions_is_refused():
    with pytest.raises(ValueError, match="no probe sample of condition '02'"):
        grew_check(made(3, "01"), made(3, "01"))
    with pytest.raises(ValueError, match="no gallery sample of condition '01'"):
        grew_check(made(3, "02"), made(3, "02"))
    with pytest.raises(ValueError, match=r"no probe \(condition 02\) has a right answer"):
        grew_check(made(3, "02"), made(3, "01", first=50))
