"""Gait tables: by hand, against a double loop over everything, and whatever rounding does."""

import csv
import importlib
import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.evaluation.gait.part_distances import PartDistances, part_distances
from reidkit.evaluation.gait.table import GAIT_PROTOCOLS, GaitProtocol, gait_protocol, gait_table
from reidkit.types import Features, Sample

# By its name: the package may offer the function of the same name.
module = importlib.import_module("reidkit.evaluation.gait.part_distances")

TINY = GaitProtocol("tiny", ("g",), {"A": ("a",), "B": ("b", "b2")})
POOLED = GaitProtocol("pool", ("g",), {"A": ("a",), "B": ("b", "b2")}, pooled=True)


def side(rows, parts=1, dtype=torch.float32):
    """Features of (vector, pid, view, condition) rows."""
    vectors = torch.tensor([np.atleast_1d(row[0]).tolist() for row in rows], dtype=dtype)
    samples = [Sample((), pid, view=view, condition=kind) for _, pid, view, kind in rows]
    return Features(vectors, tuple(samples), parts)


def slow_distance(a, b, parts, distance):
    difference = (a.astype(np.float64) - b.astype(np.float64)).reshape(
        parts if distance == "parts" else 1, -1
    )
    return np.mean([np.sqrt(sum(x * x for x in part)) for part in difference])


def slow_counts(probe, gallery, rules, distance, views):
    """The definition, one probe, gallery view and gallery item at a time: (correct, probes,
    unmatched, tied), each (C, V, W)."""
    columns = ["all"] if rules.pooled else views
    counts = np.zeros((4, len(rules.probes), len(views), len(columns)), int)
    answers = [g for g in zip(gallery.vectors.numpy(), gallery.samples, strict=True)]
    answers = [(x, g) for x, g in answers if g.condition in rules.gallery and g.pid != -1]
    for vector, p in zip(probe.vectors.numpy(), probe.samples, strict=True):
        for c, names in enumerate(rules.probes.values()):
            for w, column in enumerate(columns):
                asked = [(x, g) for x, g in answers if rules.pooled or g.view == column]
                if p.condition not in names or not asked:
                    continue
                if rules.pooled:
                    asked = [(x, g) for x, g in asked if (g.pid, g.view) != (p.pid, p.view)]
                rows = [
                    (slow_distance(vector, x, probe.parts, distance), g.pid == p.pid)
                    for x, g in asked
                ]
                right = min((d for d, same in rows if same), default=None)
                wrong = min((d for d, same in rows if not same), default=np.inf)
                cell = counts[:, c, views.index(p.view), w]
                cell[1] += 1
                if right is None:
                    cell[2] += 1
                elif abs(wrong - right) <= 1e-12 * right:
                    cell[3] += 1
                else:
                    cell[0] += right < wrong
    return counts


def drawn(seed, probes=14, gallery=40, parts=3, dim=4, whole=False, pids=5):
    """Random sides with distractors, junk, other conditions and views that one side lacks."""
    random = np.random.default_rng(seed)

    def vectors(n):
        draw = random.integers(-1, 2, (n, parts * dim)) if whole else random.standard_normal
        values = draw if whole else draw((n, parts * dim))
        return torch.from_numpy(values.astype(np.float32))

    def samples(n, conditions, views, first):
        return tuple(
            Sample((), int(pid), view=str(view), condition=str(kind))
            for pid, view, kind in zip(
                random.integers(first, pids, n),
                random.choice(views, n),
                random.choice(conditions, n),
                strict=True,
            )
        )

    asked = Features(
        vectors(probes), samples(probes, ["a", "b", "b2", "z"], ["000", "036", "090"], 0), parts
    )
    answers = samples(gallery, ["g", "g", "g", "a"], ["000", "018", "090"], -1)
    return asked, Features(vectors(gallery), answers, parts)


def by_hand():
    # On a line. Gallery: identity 1 at 0 in both views, identity 2 at 10 in view 000, at 4 in 090.
    gallery = [(0, 1, "000", "g"), (10, 2, "000", "g"), (0, 1, "090", "g"), (4, 2, "090", "g")]
    # Probes of A:                          in 000      in 090
    #   view 000: identity 1 at 1           right       right
    #             identity 2 at 3           wrong       right
    #             identity 1 at 3           right       wrong     -> 2/3, 2/3
    #   view 090: identity 1 at 3           right       wrong
    #             identity 2 at 9           right       right     -> 1, 1/2
    # Probes of B:
    #   view 000: identity 1 at 3           right       wrong     -> 1, 0
    #   view 090: identity 2 at 3           wrong       right     -> 0, 1
    probe = [
        (1, 1, "000", "a"),
        (3, 2, "000", "a"),
        (3, 1, "000", "a"),
        (3, 1, "090", "a"),
        (9, 2, "090", "a"),
        (3, 1, "000", "b"),
        (3, 2, "090", "b2"),
    ]
    return side(probe), side(gallery)


@pytest.mark.parametrize("distance", ["parts", "flat"])
def test_a_table_of_two_conditions_and_two_views_worked_by_hand(distance):
    table = gait_table(*by_hand(), TINY, distance=distance)
    assert (table.conditions, table.views) == (("A", "B"), ("000", "090"))
    expected = [[[2 / 3, 2 / 3], [1, 1 / 2]], [[1, 0], [0, 1]]]
    assert table.rank1.dtype == torch.float64
    assert np.allclose(table.rank1, expected)
    assert table.probes.tolist() == [[[3, 3], [2, 2]], [[1, 1], [1, 1]]]
    # A without identical views: 2/3 for probes of 000, 1 for those of 090.
    assert np.allclose(table.per_view("A"), [2 / 3, 1])
    assert table.mean("A") == pytest.approx(5 / 6)
    # With them: (2/3 + 2/3) / 2 and (1 + 1/2) / 2.
    assert table.mean("A", exclude_identical=False) == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert (table.mean("B"), table.mean("B", exclude_identical=False)) == (0, 0.5)


def test_three_views_are_divided_by_two():
    # Cells of the only probe, of view 000: right in 000, right in 018, wrong in 036.
    places = {"000": (0, 9), "018": (0, 9), "036": (9, 0)}
    gallery = [
        (x, pid, v, "g") for v, two in places.items() for pid, x in zip((1, 2), two, strict=True)
    ]
    table = gait_table(side([(1, 1, "000", "a")]), side(gallery), TINY)
    assert table.rank1[0, 0].tolist() == [1, 1, 0]
    assert table.per_view("A")[0] == 1 / 2
    assert table.per_view("A", exclude_identical=False)[0] == pytest.approx(2 / 3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    probes=st.integers(4, 14),
    gallery=st.integers(8, 40),
    parts=st.integers(1, 4),
    dim=st.integers(1, 5),
    whole=st.booleans(),
    distance=st.sampled_from(["parts", "flat"]),
    rules=st.sampled_from([TINY, POOLED]),
)
def test_every_cell_equals_the_double_loop(
    seed, probes, gallery, parts, dim, whole, distance, rules
):
    probe, answers = drawn(seed, probes, gallery, parts, dim, whole)
    views = ["000", "018", "036", "090"]
    expected = slow_counts(probe, answers, rules, distance, views)
    if expected[1].sum() == expected[2].sum():
        with pytest.raises(ValueError, match=r"no probe|no gallery"):
            gait_table(probe, answers, rules, distance=distance)
        return
    table = gait_table(probe, answers, rules, distance=distance)
    rows = [views.index(view) for view in table.views]
    expected = expected[:, :, rows]
    assert expected.sum() == slow_counts(probe, answers, rules, distance, views).sum()
    expected = expected if rules.pooled else expected[:, :, :, rows]
    for found, slow in zip(
        (table.correct, table.probes, table.unmatched, table.tied), expected, strict=True
    ):
        assert found.tolist() == slow.tolist()


@pytest.mark.parametrize("distance", ["parts", "flat"])
@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_meet_without_a_seam(distance, threads, monkeypatch):
    probe, gallery = drawn(1, probes=33, gallery=90, parts=5, dim=7)
    whole = gait_table(probe, gallery, TINY, distance=distance)
    monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(module, "COLUMNS", 7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    pieces = gait_table(probe, gallery, TINY, distance=distance)
    assert pieces.correct.equal(whole.correct) and pieces.unmatched.equal(whole.unmatched)


def test_parts_and_flat_rank_differently():
    # Two parts of one number; probe at (0, 0), right at (3, 0), wrong at (2, 2).
    # parts: right (3 + 0) / 2 = 1.5, wrong (2 + 2) / 2 = 2. flat: right 3, wrong sqrt(8) = 2.83.
    probe = side([([0.0, 0.0], 1, "000", "a")], parts=2)
    gallery = side([([3.0, 0.0], 1, "090", "g"), ([2.0, 2.0], 2, "090", "g")], parts=2)
    assert gait_table(probe, gallery, TINY).mean("A") == 1
    assert gait_table(probe, gallery, TINY, distance="flat").mean("A") == 0
    (_, block), *_ = part_distances(probe, gallery)
    assert np.allclose(block, [[1.5, 2]])
    (_, block), *_ = part_distances(probe, gallery, distance="flat")
    assert np.allclose(block, [[3, 8**0.5]])


def test_with_one_part_both_distances_agree():
    probe, gallery = drawn(4, parts=1, dim=12)
    one, other = (gait_table(probe, gallery, TINY, distance=d) for d in ("parts", "flat"))
    assert one.correct.equal(other.correct)


def test_copies_tie_and_lose_in_any_order_of_the_gallery():
    # Every vector a second time under another identity: whoever would be first is tied.
    random = torch.Generator().manual_seed(0)
    probe, drawn_gallery = drawn(2, probes=20, gallery=301, parts=3, dim=37)
    samples = [
        Sample((), (sample.pid + shift) % 5, view=sample.view, condition="g")
        for shift in (1, 2)
        for sample in drawn_gallery.samples
    ]
    vectors = drawn_gallery.vectors.repeat(2, 1)
    tables = []
    for _ in range(3):
        order = torch.randperm(len(samples), generator=random)
        mixed = Features(vectors[order], tuple(samples[i] for i in order), 3)
        tables.append(gait_table(probe, mixed, TINY))
    assert all(table.correct.equal(tables[0].correct) for table in tables)
    assert all(table.tied.equal(tables[0].tied) for table in tables)
    assert not tables[0].correct.any() and tables[0].tied.any()
    assert "lost by a tie" in tables[0].table()


@pytest.mark.parametrize("distance", ["parts", "flat"])
def test_what_float32_cannot_tell_apart_is_measured_again(distance):
    # Far from the origin and closer to one another than float32 products can see: 1e-9 decides.
    base = torch.linspace(-3, 3, 24, dtype=torch.float64) + 100
    step = torch.zeros(24, dtype=torch.float64)
    step[5] = 1e-4
    for nearer, expected in ((1 - 1e-9, 1.0), (1 + 1e-9, 0.0)):
        vectors = torch.stack([base + step * nearer, base - step, base + 7])
        samples = [Sample((), pid, view="090", condition="g") for pid in (1, 2, 3)]
        gallery = Features(vectors, tuple(samples), 4)
        probe = Features(base[None], (Sample((), 1, view="000", condition="a"),), 4)
        assert gait_table(probe, gallery, TINY, distance=distance).mean("A") == expected


def test_equal_distances_are_a_tie_whatever_the_order_of_their_sum():
    # The same parts in another order: equal in numbers, not in the last digit of a sum.
    random = torch.Generator().manual_seed(0)
    parts = torch.rand(99, generator=random, dtype=torch.float64)
    rows = [parts[torch.randperm(99, generator=random)].tolist() for _ in range(12)]
    probe = side([([0.0] * 99, 1, "000", "a")], 99, torch.float64)
    for right in range(12):
        answers = [(row, 1 if i == right else 2, "090", "g") for i, row in enumerate(rows)]
        table = gait_table(probe, side(answers, 99, torch.float64), TINY)
        assert (table.correct.sum(), table.tied.sum()) == (0, 1)


def test_a_wrong_answer_that_is_closer_decides_and_not_the_tie_beside_it():
    gallery = [(1.0, 1, "090", "g"), (-1.0, 2, "090", "g"), (1 - 1e-9, 3, "090", "g")]
    probe = side([(0.0, 1, "000", "a")], dtype=torch.float64)
    table = gait_table(probe, side(gallery, dtype=torch.float64), TINY)
    assert (table.correct.sum(), table.tied.sum()) == (0, 0)


def test_a_collapsed_model_is_all_ties_and_measured_once_a_vector(monkeypatch):
    measured = []
    exact = PartDistances.exact

    def watched(self, q, columns):
        measured.append(len(np.unique(self.first_copies[columns])))
        return exact(self, q, columns)

    monkeypatch.setattr(PartDistances, "exact", watched)
    probe, gallery = drawn(3, probes=9, gallery=300)
    one = torch.linspace(0.1, 0.9, 12)
    table = gait_table(
        Features(one.repeat(9, 1), probe.samples, 3),
        Features(one.repeat(300, 1), gallery.samples, 3),
        TINY,
    )
    assert not table.correct.any()
    assert table.tied.equal(table.probes - table.unmatched)
    assert set(measured) == {1}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    spread=st.sampled_from([1e-3, 1.0, 50.0]),
    distance=st.sampled_from(["parts", "flat"]),
)
def test_the_stated_bound_of_the_error_holds(seed, offset, spread, distance):
    probe, gallery = drawn(seed, parts=4, dim=9)
    near = probe.vectors[:5] * (1 + 1e-5)  # copies but for a little: where products cancel
    probe = Features(offset + spread * probe.vectors, probe.samples, 4)
    vectors = offset + spread * torch.cat([gallery.vectors[5:], near])
    gallery = Features(vectors, gallery.samples, 4)
    pairs = PartDistances(probe, gallery, distance)
    for start, block, slack in pairs.blocks(with_slack=True):
        for i, row in enumerate(block, start):
            slow = [
                slow_distance(probe.vectors[i].numpy(), g.numpy(), 4, distance)
                for g in gallery.vectors
            ]
            assert np.all(np.abs(row * pairs.unit - slow) <= slack[i - start] * pairs.unit)
            exact = pairs.exact(i, np.arange(len(gallery))) * pairs.unit
            assert np.allclose(exact, slow, rtol=1e-13, atol=0)


@pytest.mark.parametrize("distance", ["parts", "flat"])
def test_blocks_of_distances_equal_the_double_loop(distance, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 40 * 5)
    probe, gallery = drawn(7, probes=13)
    found = list(part_distances(probe, gallery, distance=distance))
    assert [start for start, _ in found] == [0, 5, 10]  # 5 rows of 40 are all that is held
    assert all(block.dtype == np.float32 for _, block in found)
    slow = [
        [slow_distance(a.numpy(), b.numpy(), 3, distance) for b in gallery.vectors]
        for a in probe.vectors
    ]
    assert np.allclose(np.concatenate([block for _, block in found]), slow, atol=1e-5)


def test_a_common_offset_does_not_blur_the_distances():
    probe, gallery = drawn(7)
    plain = np.concatenate([block for _, block in part_distances(probe, gallery)])
    moved = [Features(s.vectors.double() + 1e6, s.samples, 3) for s in (probe, gallery)]
    assert np.allclose(np.concatenate([b for _, b in part_distances(*moved)]), plain, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_features_give_the_ordinary_table(scale):
    probe, gallery = drawn(5)
    ordinary = gait_table(probe, gallery, TINY)
    scaled = [Features(s.vectors.double() * scale, s.samples, 3) for s in (probe, gallery)]
    assert gait_table(*scaled, TINY).correct.equal(ordinary.correct)
    single = [Features(s.vectors * scale, s.samples, 3) for s in (probe, gallery)]
    assert gait_table(*single, TINY).probes.equal(ordinary.probes)


def test_a_common_offset_does_not_blur_the_table():
    probe, gallery = drawn(8)
    moved = [Features(s.vectors.double() + 1e5, s.samples, 3) for s in (probe, gallery)]
    assert gait_table(*moved, TINY).correct.equal(gait_table(probe, gallery, TINY).correct)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_taken_as_they_are(dtype):
    sides = [Features(s.vectors.to(dtype), s.samples, 3) for s in drawn(9)]
    plain = [Features(s.vectors.float(), s.samples, 3) for s in sides]
    assert gait_table(*sides, TINY).correct.equal(gait_table(*plain, TINY).correct)


def test_features_that_need_a_gradient_or_stand_in_columns_are_read():
    probe, gallery = drawn(10)
    turned = Features(gallery.vectors.t().contiguous().t(), gallery.samples, 3)
    asked = Features(probe.vectors.clone().requires_grad_(), probe.samples, 3)
    assert gait_table(asked, turned, TINY).correct.equal(gait_table(probe, gallery, TINY).correct)


def casia(noise=0.05, identities=6, skip=()):
    """A made-up CASIA-B test set in one piece: (features, all conditions and views)."""
    random = torch.Generator().manual_seed(0)
    kinds = [f"nm-0{n}" for n in range(1, 7)] + ["bg-01", "bg-02", "cl-01", "cl-02"]
    samples = [
        Sample((), pid, view=f"{view:03d}", condition=kind)
        for pid in range(1, identities + 1)
        for kind in kinds
        for view in range(0, 181, 18)
        if (pid, kind, view) not in skip
    ]
    centres = torch.randn(identities + 1, 2 * 5, generator=random)
    spread = torch.randn(len(samples), 2 * 5, generator=random)
    vectors = centres[[sample.pid for sample in samples]] + noise * spread
    return Features(vectors, tuple(samples), 2)


def test_casia_b_takes_its_conditions_from_one_set_of_features():
    everything = casia()
    table = gait_table(everything, everything)
    assert table.conditions == ("NM", "BG", "CL")
    assert table.views == tuple(f"{angle:03d}" for angle in range(0, 181, 18))
    assert table.rank1.shape == (3, 11, 11)
    assert table.probes.unique().tolist() == [12]  # 6 identities, two sequences each
    assert table.mean("NM") > 0.99
    # 4 nm sequences x 6 identities x 11 views are no probes; nm-05, nm-06, bg, cl no gallery.
    assert table.notes == (
        "264 probe samples of other conditions left out: nm-01, nm-02, nm-03, nm-04",
        "396 gallery samples of other conditions left out: bg-01, bg-02, cl-01, cl-02, nm-05, "
        "nm-06",
    )


def test_bg_and_cl_are_compared_with_the_normal_gallery_only():
    everything = casia(noise=0.8)
    normal = [i for i, s in enumerate(everything.samples) if s.condition[:2] == "nm"]
    gallery = Features(everything.vectors[normal], tuple(everything.samples[i] for i in normal), 2)
    one, other = gait_table(everything, everything), gait_table(everything, gallery)
    assert one.correct.equal(other.correct)
    assert 0.2 < one.mean("CL") < 0.95


def test_the_cross_view_protocol_pools_the_views_and_is_labelled_so():
    everything = casia(noise=0.8)
    table = gait_table(everything, everything, "casia_b_cross_view")
    assert table.rank1.shape == (3, 11, 1)
    assert table.gallery_views == ("all",)
    rules = GAIT_PROTOCOLS["casia_b_cross_view"]
    slow = slow_counts(everything, everything, rules, "parts", list(table.views))
    assert table.correct.tolist() == slow[0].tolist()
    assert table.table().startswith("casia_b_cross_view: ")
    with pytest.raises(ValueError, match="leaves out identical views while it ranks"):
        table.mean("NM", exclude_identical=False)


def test_ou_mvlp_gives_both_figures_where_probes_have_no_match():
    # Two views, three identities; identity 3 has no gallery sequence of view 015.
    place = {1: 0.0, 2: 10.0, 3: 20.0}
    gallery = [
        (x, pid, view, "01")
        for pid, x in place.items()
        for view in ("000", "015")
        if (pid, view) != (3, "015")
    ]
    probe = [(x + 1, pid, view, "00") for pid, x in place.items() for view in ("000", "015")]
    table = gait_table(side(probe), side(gallery), "ou_mvlp")
    # Probes of 000 against 015: 2 of 3 right, the third cannot be. Probes of 015 against 000: all.
    assert table.rank1[0].tolist() == [[1, pytest.approx(2 / 3)], [1, pytest.approx(2 / 3)]]
    assert table.unmatched[0].tolist() == [[0, 1], [0, 1]]
    assert table.mean() == table.mean("00") == pytest.approx((2 / 3 + 1) / 2)
    assert table.mean(matched_only=True) == 1
    text = table.table()
    assert "00: 1 of 6 comparisons of a probe with a gallery view have no right answer" in text
    assert "00*       100.00  100.00  100.00" in text
    assert "views of the benchmark that are not in the data: 030, 045" in text
    assert len(GAIT_PROTOCOLS["ou_mvlp"].views) == 14


def test_missing_views_are_left_out_of_the_mean_and_said():
    gone = {(pid, kind, 36) for pid in range(1, 7) for kind in ("nm-01", "nm-02", "nm-03", "nm-04")}
    gone |= {(pid, kind, 90) for pid in range(1, 7) for kind in ("bg-01", "bg-02")}
    everything = casia(noise=0.6, skip=gone)
    table = gait_table(everything, everything)
    assert table.rank1[:, :, 2].isnan().all() and not table.probes[:, :, 2].any()
    assert table.rank1[1, 5].isnan().all()
    cells = table.rank1.numpy()
    views = [v for v in range(11) if v != 5]
    per_view = [np.mean([cells[1, v, w] for w in range(11) if w not in (v, 2)]) for v in views]
    assert table.mean("BG") == pytest.approx(np.mean(per_view))
    assert table.per_view("BG")[5].isnan()
    text = table.table()
    assert "no gallery of view 036; not in the means" in text
    assert "BG: no probe of view 090; not in the mean" in text
    assert text.splitlines()[3].split()[6] == "-"


def test_a_condition_without_any_probe_is_no_number():
    probe, gallery = by_hand()
    kept = Features(probe.vectors[:5], probe.samples[:5])
    table = gait_table(kept, gallery, TINY)
    assert np.isnan(table.mean("B"))
    assert "B: no probe of view 000, 090" in table.table()


def test_the_table_is_printed_as_the_papers_do():
    assert gait_table(*by_hand(), TINY).table().splitlines() == [
        "tiny: rank-1 in %, identical views left out; Euclidean distance mean over the parts",
        "             000     090    mean",
        "A          66.67  100.00   83.33",
        "B           0.00    0.00    0.00",
    ]


def test_views_stand_in_the_order_of_their_angles():
    gallery = [(0, 1, view, "g") for view in ("90", "0", "180", "18", "side")]
    table = gait_table(side([(0, 1, "0", "a")]), side(gallery), TINY)
    assert table.views == ("0", "18", "90", "180", "side")


def test_junk_in_the_gallery_is_left_out_and_counted():
    gallery = side([(1, -1, "000", "g"), (2, 1, "000", "g"), (5, 2, "000", "g")])
    table = gait_table(side([(1, 1, "090", "a")]), gallery, TINY)
    assert table.mean("A") == 1
    assert table.notes == ("1 gallery samples with pid -1 left out",)


def test_a_probe_that_is_in_the_gallery_is_pointed_out(caplog):
    own = Sample(("walk/1.png",), 1, view="000", condition="x")
    both = Features(torch.tensor([[0.0], [4.0]]), (own, Sample((), 2, view="000", condition="x")))
    with caplog.at_level(logging.WARNING):
        gait_table(both, both, GaitProtocol("own", ("x",), {"all": ("x",)}))
    assert "1 probes are in the gallery themselves" in caplog.text


def test_a_table_becomes_plain_json_and_a_csv(tmp_path):
    probe, gallery = by_hand()
    table = gait_table(Features(probe.vectors[:5], probe.samples[:5]), gallery, TINY)
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["rank1"][0] == [[pytest.approx(2 / 3)] * 2, [1, 0.5]]
    assert plain["rank1"][1] == [[None, None], [None, None]]
    assert plain["mean"] == {"A": pytest.approx(5 / 6), "B": None}
    table.save_csv(tmp_path / "made" / "table.csv")
    with (tmp_path / "made" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[3] == {
        "condition": "A",
        "probe_view": "090",
        "gallery_view": "090",
        "rank1": "0.5",
        "probes": "2",
        "unmatched": "0",
        "correct": "1",
        "tied": "0",
    }
    assert rows[4]["rank1"] == ""


GOOD = ((1.0, 1, "000", "a"), (1.0, 1, "090", "g"))


@pytest.mark.parametrize(
    "probe, gallery, words",
    [
        (side([(1.0, 1, "", "a")]), side([GOOD[1]]), "probe pid 1, camera 0 has no view"),
        (side([GOOD[0]]), side([(1.0, 1, "", "g")]), "gallery pid 1, camera 0 has no view"),
        (side([(1.0, -1, "000", "a")]), side([GOOD[1]]), "probe .* has pid -1"),
        (side([(1.0, 1, "000", "x")]), side([GOOD[1]]), "no probe sample of condition a, b, b2"),
        (side([GOOD[0]]), side([(1.0, 1, "090", "nm-01")]), "no gallery .* found: 'nm-01'"),
        (side([GOOD[0]]), side([(1.0, -1, "090", "g")]), "no gallery .* found: pid -1"),
        (side([GOOD[0]]), side([(1.0, 2, "090", "g")]), "no probe has a right answer"),
        (side([GOOD[0]]), side([([1.0, 2.0], 1, "090", "g")]), "1 dimensions, .* 2"),
        (
            side([([1.0, 2.0], 1, "000", "a")], parts=2),
            side([([1.0, 2.0], 1, "090", "g")]),
            "probe features have 2 parts, gallery features 1",
        ),
        (
            side([([1.0, 2.0, 3.0], 1, "000", "a")], parts=2),
            side([([1.0, 2.0, 3.0], 1, "090", "g")], parts=2),
            "3 dimensions, which 2 parts do not divide",
        ),
        (side([GOOD[0]], parts=0), side([GOOD[1]]), "0 parts do not divide"),
        (
            side([GOOD[0]], dtype=torch.int64),
            side([GOOD[1]]),
            "probe features must be floating point, got torch.int64",
        ),
    ],
)
def test_sides_that_make_no_table_are_refused_with_words(probe, gallery, words):
    with pytest.raises(ValueError, match=words):
        gait_table(probe, gallery, TINY)


def test_a_feature_that_is_not_finite_is_refused_by_name():
    probe, gallery = side([GOOD[0]]), side([GOOD[1]])
    for value in (torch.nan, torch.inf):
        bad = Features(torch.tensor([[value]]), (Sample(("spoilt.png",), 1, 0, "090", "g"),))
        both = Features(torch.cat([gallery.vectors, bad.vectors]), gallery.samples + bad.samples)
        with pytest.raises(ValueError, match=r"gallery feature 1 \(spoilt.png\) is not finite"):
            gait_table(probe, both, TINY)


def test_unknown_names_are_answered_with_the_nearest():
    probe, gallery = by_hand()
    with pytest.raises(ValueError, match=r"unknown gait protocol 'casia-b'.*mean 'casia_b'"):
        gait_table(probe, gallery, "casia-b")
    with pytest.raises(ValueError, match=r"unknown distance 'part'.*mean 'parts'"):
        gait_table(probe, gallery, TINY, distance="part")
    with pytest.raises(ValueError, match="condition 'a' is not in this table; it has: A, B"):
        gait_table(probe, gallery, TINY).mean("a")
    with pytest.raises(ValueError, match="condition None"):
        gait_table(probe, gallery, TINY).mean()
    assert gait_protocol("ou_mvlp").gallery == ("01",)
    assert all(record.source for record in GAIT_PROTOCOLS.values())
