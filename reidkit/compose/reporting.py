"""Evaluation as a person asks for it: scores, `scores.json`, pictures and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reidkit import data, evaluation, models, report
from reidkit.compose.building import at_root, choose_device, load_benchmarks
from reidkit.compose.inference import QUIET, draw_ranked, extract, run_config
from reidkit.compose.scoring import check_views, gait_distance_of, is_gait, rules_of, score
from reidkit.config import EvaluateConfig
from reidkit.distributed import is_main
from reidkit.engine import Console
from reidkit.evaluation.breakdown import by_camera_pair, by_view
from reidkit.evaluation.gait.part_distances import Distance
from reidkit.evaluation.intervals import bootstrap
from reidkit.evaluation.label_errors import doubt_labels
from reidkit.evaluation.metrics import first_ranks
from reidkit.evaluation.verification import verify
from reidkit.files import write_atomically
from reidkit.types import Benchmark, EvalProtocol, Features, Metric, Sample, Scores

WORST = 24  # queries shown on a page
WIDTH = 10  # nearest gallery items shown for each
CHANGES = 8  # losses and gains shown of a comparison
DOUBTS = 16  # suspected label errors shown
PICTURES = 8  # rows of a ranked PNG
ROC_PAIRS = 2_000_000  # pairs that the ROC is drawn from, so that it costs no second evaluation
FEWEST = 10  # impostors accepted at the left end of the ROC; fewer say little
EQUAL = 1e-9  # average precisions that differ by less are the same


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Features of one benchmark with what they scored: all that a page is made of."""

    run: str
    benchmark: str
    query: Features
    gallery: Features
    protocol: EvalProtocol
    scores: Scores
    metric: Metric = "cosine"


def evaluate_run(
    run: Path,
    *,
    benchmark: str | None = None,
    root: Path | None = None,
    protocol: str | None = None,
    picture: Path | None = None,
    page: Path | None = None,
    compare: Path | None = None,
    rerank: bool = False,
    date: str = "",
    console: Console = QUIET,
) -> dict[str, Scores]:
    """Scores of a trained model on a benchmark, or on those that its run was tested on.

    Writes ranked lists to `picture` and a report to `page` where they are given; of several
    benchmarks the later ones get their name behind the file's. `compare` is another run, whose
    model answers the same queries for the page. `rerank` adds the scores after re-ranking. Under
    torchrun the first process alone scores and writes; the others get no scores.
    """
    model = models.load_model(run).to(choose_device())
    other = models.load_model(compare).to(choose_device()) if compare is not None else None
    scores = {}
    names = short_names(run, compare)
    for position, test in enumerate(find_tests(run, benchmark, root)):
        rule = test.protocol if protocol is None else rules_of(protocol)
        sides = sides_of(model, test, console)
        others = None
        if other is not None and page is not None:
            others = sides_of(other, test, console)
        if not is_main():  # which has taken its part in the extraction
            continue
        found = score_sides(sides, model, test, rule, run=run, name=names[0])
        scores.update(_with_reranked(test.name, found, rerank))

        def own(path: Path, position: int = position, name: str = test.name) -> Path:
            return path if position == 0 else path.with_stem(f"{path.stem}-{name}")

        if picture is not None:
            draw_ranked(own(picture), found.query, found.gallery, rule, PICTURES, found.metric)
        if page is not None:
            before = None
            if others is not None and other is not None and compare is not None:
                before = score_sides(others, other, test, rule, run=compare, name=names[1])
            write_page(own(page), found, before=before, date=date)
    return scores


def evaluate_files(
    query: Path,
    gallery: Path,
    *,
    protocol: str = "market1501",
    picture: Path | None = None,
    page: Path | None = None,
    compare: tuple[Path, Path] | None = None,
    rerank: bool = False,
    metric: Metric = "cosine",
    gait_distance: Distance | None = None,
    date: str = "",
) -> dict[str, Scores]:
    """Scores of feature files, by the query file's name; `compare` are the other model's files.

    `metric` and `gait_distance` as in `scoring.score`.
    """
    names = short_names(query, compare[0] if compare else None)

    def scored(sides: tuple[Path, Path], name: str) -> Evaluated:
        return _score_files(*sides, protocol, name, metric, gait_distance)

    found = scored((query, gallery), names[0])
    if picture is not None:
        draw_ranked(picture, found.query, found.gallery, found.protocol, PICTURES, metric)
    if page is not None:
        before = scored(compare, names[1]) if compare is not None else None
        write_page(page, found, before=before, date=date)
    return _with_reranked(query.stem, found, rerank)


def _with_reranked(name: str, found: Evaluated, rerank: bool) -> dict[str, Scores]:
    scores = {name: found.scores}
    if rerank:
        if is_gait(found.protocol):
            raise ValueError("a gait table has no re-ranking: leave out --rerank")
        sides, rules = (found.query, found.gallery), found.protocol
        scores[f"{name} re-ranked"] = evaluation.evaluate_reranked(
            *sides, rules, metric=found.metric
        )
    return scores


def find_tests(run: Path, benchmark: str | None, root: Path | None) -> Sequence[Benchmark]:
    """The benchmark of that name, or those that the run was tested on."""
    if benchmark is not None:
        return [data.load_benchmark(benchmark, root or data.default_root())]
    config = run_config(run)
    if config is None:
        raise ValueError(f"{run} has no config.yaml that names a test set: give --benchmark")
    return load_benchmarks(at_root(config, root))[1]


def sides_of(model: nn.Module, test: Benchmark, console: Console) -> tuple[Features, Features]:
    """The features of a benchmark's query and gallery."""
    check_views(test)
    query = extract(model, test.query, console=console)
    same = test.gallery == test.query
    return query, query if same else extract(model, test.gallery, console=console)


def score_sides(
    sides: tuple[Features, Features],
    model: nn.Module,
    test: Benchmark,
    protocol: EvalProtocol,
    *,
    run: Path,
    name: str,
) -> Evaluated:
    """Score both sides of a benchmark by the metric that the run trained for."""
    query, gallery = sides
    config = run_config(run)
    rules = config.evaluate if config is not None else EvaluateConfig()
    metric = rules.metric
    scores = score(
        query,
        gallery,
        protocol,
        name=test.name,
        metric=metric,
        gait_distance=gait_distance_of(model, rules),
    )
    return Evaluated(name, test.name, query, gallery, protocol, scores, metric)


def write_scores(path: Path, found: Mapping[str, Scores], row: str) -> None:
    """Put scores into a `scores.json` (benchmark -> what was scored -> scores).

    Other benchmarks and other rows stay; replaced atomically.

    Raises:
        ValueError: what is there is no such file.
    """
    table: dict[str, Any] = {}
    if path.is_file():
        wrong = f"{path} is no scores.json (benchmark -> what was scored -> scores): move it away"
        try:
            table = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{wrong}; {error}") from error
        if not isinstance(table, dict) or not all(isinstance(r, dict) for r in table.values()):
            raise ValueError(wrong)
    for name, scores in found.items():
        table.setdefault(name, {})[row] = scores.to_dict()
    write_atomically(path, json.dumps(table, indent=2).encode())


def write_page(
    path: Path,
    found: Evaluated,
    *,
    before: Evaluated | None = None,
    date: str = "",
    count: int = WORST,
) -> None:
    """Write the HTML report of an evaluation; see `gather`."""
    facts = gather(found, before=before, date=date, count=count)
    report.write_report(path, facts, data.show)


@torch.no_grad()
def gather(
    found: Evaluated,
    *,
    before: Evaluated | None = None,
    date: str = "",
    count: int = WORST,
) -> report.Report:
    """The facts of a page: `count` worst queries, camera pairs, doubts, and what changed.

    No array of queries by gallery is held, and only the shown queries' neighbours are looked up.
    `before` is another model's evaluation of the same queries and gallery.

    Raises:
        ValueError: `before` has other queries or another gallery.
    """
    if before is not None:
        check_same_question(found, before)
    after = _View.of(found)
    scores = found.scores
    rocs = [roc for one in (found, before) if one is not None and (roc := _roc(one)) is not None]
    return report.Report(
        title=found.run,
        benchmark=found.benchmark,
        date=date,
        protocol=in_words(found.protocol, found.metric),
        notes=remarks(scores),
        queries=len(found.query),
        gallery=len(found.gallery),
        scores=[
            report.ScoreLine(name, value, scores.interval.get(name))
            for name, value in scores.items()
        ],
        cmc=[_cmc(one) for one in (found, before) if one is not None],
        roc=[curve for curve, _ in rocs],
        roc_note=rocs[0][1] if rocs else "",
        worst=after.lists(after.worst()[:count], WIDTH),
        pairs=_pairs(after),
        doubts=_doubts(after),
        comparison=None if before is None else compare_queries(after, _View.of(before)),
    )


def in_words(protocol: EvalProtocol, metric: Metric) -> list[str]:
    """What a protocol does, in sentences."""
    left_out = {
        "same_camera": "Left out for each query: its own identity in its own camera, which is "
        "neither right nor wrong.",
        "same_view": "Left out for each query: everything that is seen from the query's own view.",
        "itself": "Left out for each query: the query itself. All others are its gallery.",
        "nothing": "Nothing is left out: every gallery item counts.",
    }
    words = [left_out[protocol.exclude]]
    if protocol.gallery == "without_queries":
        words.append("Gallery items that are a query themselves are left out.")
    if protocol.single_shot:
        words.append(
            "The scores are the expectation over galleries of one random image an identity; the "
            "ranked lists show the whole gallery."
        )
    words.append("Ties count against the model: at one distance the wrong answer comes first.")
    distance = {
        "cosine": "The distance is 1 − cosine, from 0 (same direction) to 2.",
        "euclidean": "The distance is Euclidean.",
    }
    precision = {
        "rectangle": "average precision has rectangles, as in the Python toolboxes.",
        "trapezoid": "average precision has trapezoids, as in the MATLAB code of Market-1501.",
    }
    words.append(f"{distance[metric][:-1]}; {precision[protocol.precision]}")
    return words


def remarks(scores: Scores) -> list[str]:
    """What a reader has to know of the queries that do not count, or count by accident."""
    words = [f"{warning[:1].upper()}{warning[1:]}." for warning in scores.warnings]
    if scores.skipped:
        verb = "query has" if scores.skipped == 1 else "queries have"
        words.append(
            f"{scores.skipped:,} {verb} no right answer in the gallery and are not counted in any "
            f"score; {scores.queries:,} are."
        )
    if scores.tied:
        verb = "query is" if scores.tied == 1 else "queries are"
        words.append(
            f"{scores.tied:,} {verb} decided by a tie: a wrong answer stands at exactly the "
            "distance of the first right one."
        )
    return words


def check_same_question(one: Evaluated, other: Evaluated) -> None:
    """Raise a ValueError unless both have the same queries in one order, and the same gallery."""
    for side, a, b in (
        ("queries", one.query, other.query),
        ("gallery items", one.gallery, other.gallery),
    ):
        wanted = f"expected {one.run} and {other.run} to have the same {side} in the same order"
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} {side}; {wanted}")
        for place, (x, y) in enumerate(zip(a.samples, b.samples, strict=True)):
            named = x.frames and y.frames and Path(x.name).name != Path(y.name).name
            if named or (x.pid, x.camid) != (y.pid, y.camid):
                raise ValueError(f"number {place} of the {side} is {x.name} and {y.name}; {wanted}")


class _View:
    """One evaluation, query by query."""

    def __init__(self, found: Evaluated, query: Features, gallery: Features) -> None:
        self.found, self.query, self.gallery = found, query, gallery
        # The items left out have left already.
        self.protocol = replace(found.protocol, gallery="all")
        self.hits = evaluation.find_hits(query, gallery, self.protocol, metric=found.metric)
        self.precision = evaluation.average_precision(self.hits, found.protocol.precision)
        self.first = first_ranks(self.hits)

    @classmethod
    def of(cls, found: Evaluated) -> "_View":
        """The evaluation with samples that are known again in a part of their set."""
        query, gallery = found.query, found.gallery
        if found.protocol.gallery == "without_queries":
            asked = {sample.frames for sample in query.samples if sample.frames}
            kept = [i for i, s in enumerate(gallery.samples) if s.frames not in asked]
            gallery = _part(gallery, kept)
        if found.protocol.exclude == "itself" and query is gallery:
            # A part of the queries is no longer one set with the gallery: names tell who is who.
            named = tuple(
                sample if sample.frames else replace(sample, frames=(f"item {i}",))
                for i, sample in enumerate(query.samples)
            )
            query = gallery = replace(query, samples=named)
        return cls(found, query, gallery)

    def worst(self) -> list[int]:
        """Queries that count, the lowest average precision first."""
        precision, first = self.precision.numpy(), self.first.numpy()
        order = np.lexsort((-first, precision))
        return [int(q) for q in order if not np.isnan(precision[q])]

    def lists(self, chosen: Sequence[int], width: int) -> list[report.RankedList]:
        """Ranked lists of some queries, with their nearest right answer."""
        if not chosen:
            return []
        some = _part(self.query, chosen)
        metric = self.found.metric
        near = evaluation.nearest(some, self.gallery, self.protocol, width, metric=metric)
        by_pid: dict[int, list[int]] = {sample.pid: [] for sample in some.samples}
        for place, sample in enumerate(self.gallery.samples):
            if sample.pid in by_pid:
                by_pid[sample.pid].append(place)
        rows = []
        for number, (q, found, far) in enumerate(
            zip(chosen, *map(Tensor.tolist, near), strict=True)
        ):
            sample = self.query.samples[q]
            matches = [self._match(sample, i, d) for i, d in zip(found, far, strict=True) if i >= 0]
            right = by_pid[sample.pid]
            own = _part(self.gallery, right)
            one = _part(some, [number])
            first, distance = evaluation.nearest(one, own, self.protocol, 1, metric=metric)
            rows.append(
                report.RankedList(
                    query=sample,
                    matches=matches,
                    average_precision=float(self.precision[q]),
                    first_rank=int(self.first[q]),
                    first=self._match(sample, right[int(first)], float(distance)),
                    right_answers=int(self.hits.offsets[q + 1] - self.hits.offsets[q]),
                    candidates=int(self.hits.candidates[q]),
                )
            )
        return rows

    def _match(self, query: Sample, place: int, distance: float) -> report.Match:
        sample = self.gallery.samples[place]
        return report.Match(sample, distance, sample.pid == query.pid)


def compare_queries(after: _View, before: _View) -> report.Comparison:
    """What became of each query from one model to another, with paired bootstrap intervals."""
    values = {
        "mAP": (before.precision, after.precision),
        "rank-1": tuple(evaluation.recall_at(view.hits, 1) for view in (before, after)),
    }
    differences, movements = [], []
    for name, (old, new) in values.items():
        change = (new - old)[~new.isnan()]
        low, high = bootstrap(change[:, None])[0].tolist()
        differences.append(
            report.Difference(name, float(old.nanmean()), float(new.nanmean()), (low, high))
        )
        better, worse = int((change > EQUAL).sum()), int((change < -EQUAL).sum())
        title = "average precision" if name == "mAP" else name
        movements.append(
            report.Movement(f"Queries by {title}", better, worse, len(change) - better - worse)
        )
    change = (after.precision - before.precision).nan_to_num(0.0)
    order = change.argsort(stable=True)
    losses = [q for q in order.tolist() if change[q] < -EQUAL][:CHANGES]
    gains = [q for q in change.argsort(stable=True, descending=True).tolist() if change[q] > EQUAL]
    shown = losses + gains[:CHANGES]
    pairs = zip(before.lists(shown, WIDTH), after.lists(shown, WIDTH), strict=True)
    changes = [report.Change(old, new) for old, new in pairs]
    return report.Comparison(
        before=before.found.run,
        after=after.found.run,
        differences=differences,
        movements=movements,
        losses=changes[: len(losses)],
        gains=changes[len(losses) :],
    )


def _pairs(view: _View) -> list[report.CameraPair]:
    """Pairs of cameras, or of views where the protocol goes by them; the hardest first."""
    if view.protocol.single_shot:
        return []
    if view.protocol.exclude == "same_view":
        cells = by_view(view.query, view.gallery, view.protocol, metric=view.found.metric).cells
    elif len({sample.camid for sample in (*view.query.samples, *view.gallery.samples)}) == 1:
        return []
    else:
        cells = by_camera_pair(
            view.query, view.gallery, view.protocol, metric=view.found.metric
        ).cells

    def named(group: int | str) -> str:
        return group if isinstance(group, str) else f"camera {group + 1}"

    return [
        report.CameraPair(
            named(cell.query),
            named(cell.gallery),
            cell.queries,
            {"mAP": cell.mean_average_precision, "rank-1": cell.rank_1},
        )
        for cell in sorted(cells, key=lambda cell: (cell.mean_average_precision, cell.rank_1))
    ]


def _doubts(view: _View) -> report.Doubts:
    found = doubt_labels(view.query, view.gallery, view.protocol, metric=view.found.metric)
    sides = {"query": view.query.samples, "gallery": view.gallery.samples}
    gallery = view.gallery.samples
    shown = [
        report.Doubted(
            item=sides[doubt.side][doubt.position],
            side=doubt.side,
            suggested=doubt.suggested,
            evidence=[
                report.Match(gallery[i], distance, right=False)
                for i, distance in zip(doubt.evidence, doubt.distances, strict=True)
            ],
            own=None
            if doubt.own is None
            else report.Match(gallery[doubt.own], doubt.own_distance, right=True),
        )
        for doubt in found.doubts[:DOUBTS]
    ]
    return report.Doubts(shown, len(found.doubts), found.examined, _rule(found.usual))


def _rule(usual: float) -> str:
    return (
        "A label is in doubt where the three nearest items that count all show one other identity, "
        f"the nearest within {usual:.3f}, where three of four queries find their own identity, and "
        "the item's own identity is at least 1.5 times as far as all three; one neighbour is "
        f"enough where it is almost the same picture (within {usual / 10:.3f}). All queries are "
        "looked at, and the gallery items that stand near one of them as a wrong answer."
    )


def _cmc(found: Evaluated) -> report.Curve:
    values = [] if found.scores.cmc is None else found.scores.cmc.tolist()
    return report.Curve(found.run, list(range(1, len(values) + 1)), values)


def _roc(found: Evaluated) -> tuple[report.Curve, str] | None:
    """The curve of evenly chosen queries with its numbers in words; None without impostors."""
    asked = min(len(found.query), max(1, ROC_PAIRS // len(found.gallery)))
    query = found.query
    if asked < len(query):
        query = _part(query, [i * len(query) // asked for i in range(asked)])
    try:
        all_pairs = verify(query, found.gallery, found.protocol, metric=found.metric)
    except ValueError:
        return None
    kept = all_pairs.roc.far >= FEWEST / all_pairs.impostors
    far, tar = all_pairs.roc.far[kept].tolist(), all_pairs.roc.tar[kept].tolist()
    words = (
        f"{all_pairs.genuine:,} genuine and {all_pairs.impostors:,} impostor pairs"
        + (f" of {asked:,} evenly chosen queries" if asked < len(found.query) else "")
        + f"; both errors are equal at {100 * all_pairs.eer:.1f}%."
    )
    return report.Curve(found.run, far, tar), words


def _part(features: Features, places: Sequence[int]) -> Features:
    samples = tuple(features.samples[i] for i in places)
    return replace(features, vectors=features.vectors[list(places)], samples=samples)


def short_names(run: Path, other: Path | None) -> tuple[str, str]:
    """What to call two runs, or feature files, on the page: as short as tells them apart."""

    def short(path: Path) -> Path:
        if path.name == models.weights.WEIGHTS_FILE:
            return path.parent
        return path.with_suffix("") if path.suffix == ".npz" else path

    own = short(run.absolute())
    if other is None:
        return own.name, ""
    theirs = short(other.absolute())
    if own.name != theirs.name:
        return own.name, theirs.name
    return f"{own.parent.name}/{own.name}", f"{theirs.parent.name}/{theirs.name}"


def _score_files(
    query: Path,
    gallery: Path,
    protocol: str,
    name: str,
    metric: Metric,
    gait_distance: Distance | None,
) -> Evaluated:
    sides = Features.load(query), Features.load(gallery)
    rule = rules_of(protocol)
    scores = score(*sides, rule, name=protocol, metric=metric, gait_distance=gait_distance)
    return Evaluated(name, f"{gallery.name}, protocol {protocol}", *sides, rule, scores, metric)
