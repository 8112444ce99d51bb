"""Scores for each pair of cameras or views, against a gallery that is cut by hand."""

import numpy as np
import pytest
import torch

from reidkit.evaluation import PROTOCOLS, find_hits
from reidkit.evaluation.breakdown import Breakdown, Cell, by_camera_pair, by_view
from reidkit.evaluation.metrics import average_precision, recall_at
from reidkit.evaluation.sides import side_of_arrays
from reidkit.types import EvalProtocol, Features, Sample

CAMERA, NOTHING, ITSELF = (EvalProtocol(kind) for kind in ("same_camera", "nothing", "itself"))


def drawn(seed, count, named=True):
    random = np.random.default_rng(seed)
    samples = [
        Sample((f"{seed}-{n}.jpg",) if named else (), int(pid), int(cam), view=f"{45 * view:03d}")
        for n, (pid, cam, view) in enumerate(random.integers([-1, 0, 0], [6, 3, 2], (count, 3)))
    ]
    vectors = torch.from_numpy(random.standard_normal((count, 4)).astype(np.float32))
    return Features(vectors, tuple(samples))


def chosen(side, test):
    kept = [n for n, sample in enumerate(side.samples) if test(sample)]
    return Features(side.vectors[kept], tuple(side.samples[n] for n in kept))


def sides(named=True):
    return chosen(drawn(0, 40, named), lambda sample: sample.pid > 0), drawn(1, 90, named)


def slow_cells(query, gallery, rules, of, metric):
    """Each pair of groups by itself."""
    found = {}
    for a in sorted({of(sample) for sample in query.samples}):
        for b in sorted({of(sample) for sample in gallery.samples}):
            parts = [
                chosen(side, lambda sample, name=name: of(sample) == name)
                for side, name in ((query, a), (gallery, b))
            ]
            try:
                hits = find_hits(*parts, rules, metric=metric)
            except ValueError:
                continue
            counted = hits.offsets.diff() > 0
            values = average_precision(hits, rules.precision), recall_at(hits, 1)
            found[a, b] = int(counted.sum()), *(float(v[counted].mean()) for v in values)
    return found


def plain(breakdown):
    return {
        (cell.query, cell.gallery): (cell.queries, cell.mean_average_precision, cell.rank_1)
        for cell in breakdown.cells
    }


def same(found, expected):
    assert list(found) == list(expected)
    for pair, values in expected.items():
        assert found[pair] == pytest.approx(values, abs=1e-14)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rules", [CAMERA, NOTHING, PROTOCOLS["market1501_matlab"]])
def test_each_pair_of_cameras_scores_as_if_it_were_alone(rules, metric):
    expected = slow_cells(*sides(), rules, lambda sample: sample.camid, metric)
    same(plain(by_camera_pair(*sides(), rules, metric=metric)), expected)
    diagonal = [a for a, b in expected if a == b]
    assert diagonal == ([] if rules.exclude == "same_camera" else [0, 1, 2])


@pytest.mark.parametrize("kind", ["same_view", "nothing"])
def test_each_pair_of_views_scores_as_if_it_were_alone(kind):
    rules = EvalProtocol(kind)
    expected = slow_cells(*sides(), rules, lambda sample: sample.view, "cosine")
    same(plain(by_view(*sides(), rules)), expected)
    assert set(expected) == {
        pair
        for pair in [("000", "000"), ("000", "045"), ("045", "000"), ("045", "045")]
        if kind == "nothing" or pair[0] != pair[1]
    }


def test_a_case_worked_by_hand():
    # Query in camera 0 at 0. Camera 1: right at 1. Camera 2: wrong at 1, right at 2: AP 1/2.
    query = Features.from_arrays(torch.tensor([[0.0]]), [1], [0])
    gallery = Features.from_arrays(
        torch.tensor([[1.0], [1.0], [2.0], [0.5]]), [1, 2, 1, 1], [1, 2, 2, 0]
    )
    found = by_camera_pair(query, gallery, "market1501", metric="euclidean")
    assert found.cells == (Cell(0, 1, 1, 1.0, 1.0), Cell(0, 2, 1, 0.5, 0.0))


@pytest.mark.parametrize("named", [True, False])
def test_an_item_is_not_found_by_itself_in_a_part_of_its_own_set(named):
    both = chosen(drawn(2, 60, named), lambda sample: sample.pid > 0)
    found = plain(by_camera_pair(both, both, ITSELF))
    # The whole table by hand: item by item, without the item.
    vectors = torch.nn.functional.normalize(both.vectors.double(), dim=1)
    table = vectors @ vectors.T
    firsts = {}
    for i, query in enumerate(both.samples):
        for camera in range(3):
            others = [j for j, s in enumerate(both.samples) if s.camid == camera and j != i]
            if not any(both.samples[j].pid == query.pid for j in others):
                continue
            best = max(others, key=lambda j: float(table[i, j]))
            right = both.samples[best].pid == query.pid
            firsts.setdefault((query.camid, camera), []).append(float(right))
    assert {pair: values[2] for pair, values in found.items()} == pytest.approx(
        {pair: np.mean(values) for pair, values in firsts.items()}
    )
    assert {pair: values[0] for pair, values in found.items()} == {
        pair: len(values) for pair, values in firsts.items()
    }


def test_queries_in_the_gallery_stay_out_where_the_protocol_says_so():
    query, gallery = sides()
    both = Features(torch.cat([query.vectors, gallery.vectors]), (*query.samples, *gallery.samples))
    rules = EvalProtocol("same_camera", gallery="without_queries")
    same(plain(by_camera_pair(query, both, rules)), plain(by_camera_pair(query, gallery, rules)))


def test_arrays_do_as_well_as_features():
    query, gallery = sides()
    arrays = [side_of_arrays(s.vectors, s.pids, s.camids) for s in (query, gallery)]
    same(plain(by_camera_pair(*arrays, CAMERA)), plain(by_camera_pair(query, gallery, CAMERA)))
    # Arrays have no file names: an item is known by its place.
    known = Features.from_arrays(query.vectors, query.pids, query.camids)
    side = side_of_arrays(query.vectors, query.pids, query.camids)
    same(plain(by_camera_pair(side, side, ITSELF)), plain(by_camera_pair(known, known, ITSELF)))


CELLS = Breakdown(
    "camera", (Cell(0, 1, 40, 0.5, 0.25), Cell(0, 10, 5, 0.1, 0.0), Cell(2, 1, 12, 0.375, 1.0))
)


def test_the_table_has_queries_down_and_galleries_across():
    assert [line.split() for line in CELLS.table().splitlines()[1:]] == [
        ["1", "10"],
        ["0", "50.00%", "10.00%"],
        ["2", "37.50%", "-"],
    ]
    assert CELLS.table("rank-1").startswith("rank-1: query camera down, gallery camera across")
    assert "25.00%" in CELLS.table("rank-1")
    assert len({len(line) for line in CELLS.table().splitlines()[1:]}) == 1


def test_the_hardest_pairs_come_worst_first_and_need_some_queries():
    assert [(cell.query, cell.gallery) for cell in CELLS.hardest()] == [(2, 1), (0, 1)]
    assert CELLS.hardest(1, at_least=1) == (CELLS.cells[1],)


def test_samples_without_a_view_are_refused():
    query, gallery = sides()
    blind = Features(query.vectors, (*query.samples[:3], Sample(("x.jpg",), 1), *query.samples[4:]))
    with pytest.raises(ValueError, match=r"query 3 \(x.jpg\) has no view"):
        by_view(blind, gallery, NOTHING)
    arrays = side_of_arrays(query.vectors, query.pids, query.camids)
    with pytest.raises(ValueError, match=r"query 0 .* has no view"):
        by_view(arrays, gallery, NOTHING)


@pytest.mark.parametrize(
    "query, rules, words",
    [
        (sides()[0], "cuhk03_single_shot", "single-shot protocol .* no breakdown"),
        (sides()[0], "market", "unknown protocol"),
        (
            Features.from_arrays(torch.ones(1, 4), [77], [0]),
            "market1501",
            "no query has a right answer",
        ),
        (Features.from_arrays(torch.ones(1, 3), [1]), "no_camera", "3 dimensions"),
    ],
)
def test_what_has_no_scores_has_no_breakdown(query, rules, words):
    with pytest.raises(ValueError, match=words):
        by_camera_pair(query, sides()[1], rules)
