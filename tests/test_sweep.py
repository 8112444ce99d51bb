"""A sweep: what it varies, how it goes on, what its table says. Trainings are faked."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from reidkit import visualise
from reidkit.compose import sweep as sweeping
from reidkit.compose.building import fingerprint, load_benchmarks
from reidkit.compose.sweep import Outcome, Point, Result, Row, Run, Spent, Table
from reidkit.compose.sweep.results import YARDSTICKS
from reidkit.compose.training import train
from reidkit.config import ConfigError, load_config
from reidkit.engine import Console
from reidkit.visualise import sweep_chart

SMOKE = Path(__file__).parent.parent / "configs" / "smoke" / "resnet_ranked_list.yaml"
MARGIN, ALPHA = "losses.1.margin", "losses.1.alpha"


FINGERPRINTS: dict[str, str] = {}


@pytest.fixture(autouse=True, scope="module")
def world(tmp_path_factory):
    """A folder for the benchmarks, so that the tiny world is rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REIDKIT_DATA", str(tmp_path_factory.mktemp("datasets")))
        yield


class Fake:
    """Writes what a training would, with scores that follow from the config and the seed."""

    def __init__(self, *, fail=(), stop_after=None, **_):
        self.stopped = False
        self.trained = []
        self.fail = dict(fail)
        self.stop_after = stop_after

    def train(self, run):
        if self.stopped:
            return Outcome(stopped=True)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.yaml").write_text(run.config.to_yaml())
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            self.stopped = True  # in the middle of a training
            (run.folder / "state.pt").touch()
            return Outcome("stopped at epoch 1", stopped=True)
        self.trained.append(run.title)
        if run.title in self.fail:
            return Outcome(self.fail[run.title])
        finish(run, score_of(run.config))
        return Outcome()

    def stop(self):
        self.stopped = True


def score_of(config):
    margin = config.losses[1]["margin"]
    return 0.8 - (margin - 0.3) ** 2 + 0.01 * config.seed


def rows_of(run, score):
    return {"pixels": 0.1, "untrained": 0.05 + 0.01 * run.config.seed, "trained": score}


def scores_of(value):
    return {"rank-1": value, "mAP": value / 2, "rank-5": 1.0, "rank-10": 1.0}


def fingerprint_of(config):
    key = config.data.model_dump_json()
    if key not in FINGERPRINTS:
        FINGERPRINTS[key] = fingerprint(load_benchmarks(config)[0])
    return FINGERPRINTS[key]


def rewrite(path, **entries):
    """Put entries into a JSON file, those of `info` into what stands there."""
    content = json.loads(path.read_text())
    info = {**content.get("info", {}), **entries.pop("info", {})}
    path.write_text(json.dumps({**content, **entries, **({"info": info} if info else {})}))


def finish(run, score, *, batches=None, seconds=2.0):
    batches = 2 * run.config.optim.epochs if batches is None else batches
    rows = {name: scores_of(value) for name, value in rows_of(run, score).items()}
    report = {"synthetic": {name: {"scores": scores} for name, scores in rows.items()}}
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "scores.json").write_text(json.dumps(report))
    (run.folder / "data.json").write_text(json.dumps({"fingerprint": fingerprint_of(run.config)}))
    info = {"seconds": seconds, "weights": 1234, "scores": {"synthetic": rows["trained"]}}
    (run.folder / "model.json").write_text(json.dumps({"info": info}))
    lines = [{"kind": "train", "iteration": i + 1} for i in range(batches)]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def grid_of(tmp_path, *assignments, seeds="2", variants=None):
    values = sweeping.read_assignments(assignments)
    points = sweeping.make_points(values, variants or {}, otherwise="base")
    configs = sweeping.configure(SMOKE, points)
    chosen = sweeping.read_seeds(seeds)
    runs = sweeping.make_runs(configs, chosen, tmp_path / "out")
    return points, runs, sweeping.varying(values, variants or {}), chosen


def swept(tmp_path, *assignments, trainer=None, console=None, metrics=(), jobs=1, **options):
    points, runs, keys, seeds = grid_of(tmp_path, *assignments, **options)
    work = sweeping.Sweep(
        out=tmp_path / "out",
        trainer=trainer or Fake(),
        keys=keys,
        seeds=seeds,
        metrics=metrics,
        jobs=jobs,
        expected=len(runs),
        console=console or Console(quiet=True),
    )
    work.perform(points, runs)
    return work


# What varies


@pytest.mark.parametrize(
    "text, values",
    [
        ("0.2,0.4", ["0.2", "0.4"]),
        ("0.2", ["0.2"]),
        ("", [""]),
        ("[64,64],[28,28]", ["[64,64]", "[28,28]"]),
        (
            "[{name: triplet, margin: 0.3}],[{name: ranked_list}]",
            ["[{name: triplet, margin: 0.3}]", "[{name: ranked_list}]"],
        ),
        ("'a,b',c", ["'a,b'", "c"]),
        ('["x,]",1], 2', ['["x,]",1]', "2"]),
        ("it's,one", ["it's", "one"]),
        ("a, b", ["a", "b"]),
        ("[1,2", ["[1,2"]),
        ("1],2", ["1]", "2"]),
    ],
)
def test_only_commas_outside_brackets_and_quotes_part_values(text, values):
    assert sweeping.split_values(text) == values


@pytest.mark.parametrize(
    "assignment, fault",
    [
        ("margin", r"expected key=value"),
        ("=1", r"expected key=value"),
        ("seed=1,2", r"seeds are given by --seeds"),
        ("optim.lr=1,,2", r"a value is empty"),
        ("optim.lr=1,2,1", r"a value stands here twice"),
    ],
)
def test_a_wrong_assignment_is_refused(assignment, fault):
    with pytest.raises(ConfigError, match=fault):
        sweeping.read_assignments([assignment])


def test_a_key_that_is_given_twice_and_other_faults_are_told_together():
    with pytest.raises(ConfigError) as error:
        sweeping.read_assignments(["a=1", "a=2", "b"])
    assert len(error.value.faults) == 2 and "a is given twice" in error.value.faults[0]


def test_seeds_are_a_number_or_a_list():
    assert sweeping.read_seeds("3") == (0, 1, 2)
    assert sweeping.read_seeds("3, 7,11") == (3, 7, 11)
    assert sweeping.read_seeds("7,") == (7,)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1,1", "1.5", ",", "3,x"])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(ConfigError, match=r"--seeds"):
        sweeping.read_seeds(text)


def test_a_grid_is_all_combinations_with_readable_names():
    assignments = {MARGIN: ["0.2", "0.4"], "optim.epochs": ["3"], "losses.0.margin": ["1", "2"]}
    points = sweeping.make_points(assignments, {})
    assert [point.name for point in points] == [
        "losses.1.margin=0.2,losses.0.margin=1",
        "losses.1.margin=0.2,losses.0.margin=2",
        "losses.1.margin=0.4,losses.0.margin=1",
        "losses.1.margin=0.4,losses.0.margin=2",
    ]
    assert points[0].settings == {MARGIN: "0.2", "losses.0.margin": "1"}
    assert points[0].overrides == (f"{MARGIN}=0.2", "optim.epochs=3", "losses.0.margin=1")


def test_one_value_each_is_one_point():
    (point,) = sweeping.make_points({"optim.epochs": ["3"]}, {}, otherwise="quickstart")
    assert point.name == "quickstart" and point.settings == {}


def test_keys_are_shortened_as_far_as_they_stay_apart():
    keys = ("losses.0.margin", "losses.1.margin", "optim.lr", "data.size.0", "margin")
    assert sweeping.short_keys(keys) == {
        "losses.0.margin": "losses.0.margin",
        "losses.1.margin": "losses.1.margin",
        "optim.lr": "lr",
        "data.size.0": "size.0",
        "margin": "margin",
    }


def test_values_that_read_alike_get_folders_of_their_own():
    values = ["[{name: a}]", "[{name: 'a'}]", "[name, a]", "..", "../x", "a/b", "x" * 500]
    points = sweeping.make_points({"losses": values}, {})
    names = [point.name for point in points]
    assert len({name.lower() for name in names}) == len(values)
    assert all("/" not in name and len(name) < 130 for name in names)
    again = sweeping.make_points({"losses": values[::-1]}, {})
    assert {point.name for point in again} == set(names), "a name does not depend on the others"


def test_variants_come_before_the_command_line(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text('rll: ["losses=[{name: ranked_list}]", optim.epochs=9]\nbase: []\n')
    variants = sweeping.read_variants(path)
    points = sweeping.make_points({"optim.epochs": ["2", "3"]}, variants)
    assert [p.name for p in points] == [
        "rll,epochs=2", "rll,epochs=3", "base,epochs=2", "base,epochs=3"
    ]  # fmt: skip
    assert points[0].settings == {"variant": "rll", "optim.epochs": "2"}
    config = load_config(SMOKE, points[0].overrides)
    assert config.optim.epochs == 2 and len(config.losses) == 1


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", r"expected names with lists"),
        ("[a, b]", r"expected names with lists"),
        ("a: optim.lr=1", r"a: expected a list of overrides"),
        ("a: [1]", r"a: expected a list of overrides"),
        ("a: [seed=3]", r"seeds are given by --seeds"),
        ("a: [x=1]\na: [x=2]", r"stands here twice"),
    ],
)
def test_a_wrong_file_of_variants_is_refused(tmp_path, text, fault):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        sweeping.read_variants(path)
    with pytest.raises(ConfigError, match=r"no such file"):
        sweeping.read_variants(tmp_path / "none.yaml")


# Checks before the first run


def test_all_faults_of_all_points_are_told_at_once(tmp_path):
    points = sweeping.make_points(
        sweeping.read_assignments([f"{MARGIN}=0.2,wide", "losses.7.margin=1", "optim.lr=1,-1"]), {}
    )
    with pytest.raises(ConfigError, match=r"7. is not a position"):
        sweeping.configure(SMOKE, points)
    points = sweeping.make_points(
        sweeping.read_assignments([f"{MARGIN}=0.2,wide", "optim.lr=1,-1", "data.test=[]"]), {}
    )
    with pytest.raises(ConfigError) as error:
        sweeping.configure(SMOKE, points)
    told = "\n".join(error.value.faults)
    assert "margin=0.2,lr=-1 and 1 more: optim.lr = -1" in told
    assert "margin=wide,lr=1: " in told and "'wide'" in told
    assert "margin=0.2,lr=1: data.test is empty" in told


def test_two_points_of_the_same_config_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"margin=0.2 and margin=0.20 are the same config"):
        grid_of(tmp_path, f"{MARGIN}=0.2,0.20")


def test_a_folder_of_another_config_is_not_touched(tmp_path):
    swept(tmp_path, f"{MARGIN}=0.2,0.4")
    with pytest.raises(ConfigError, match=r"another config \(optim.epochs: 1 -> 5\)"):
        grid_of(tmp_path, f"{MARGIN}=0.2,0.4", "optim.epochs=5")


@pytest.mark.parametrize(
    "text, span",
    [
        ("0.1..0.5", (0.1, 0.5, False, False)),
        ("1..8", (1, 8, True, False)),
        ("log:1e-4..1e-2", (1e-4, 1e-2, False, True)),
        ("log:1..1024", (1, 1024, True, True)),
        ("-1.5..+2.", (-1.5, 2, False, False)),
    ],
)
def test_a_range_is_read(text, span):
    (found,) = sweeping.read_space({"k": [text]}, {})[0].values()
    assert (found.low, found.high, found.whole, found.log) == span
    for end in found.ends():
        config = load_config(SMOKE, [f"optim.args.x={end}"])
        assert isinstance(config.optim.args["x"], int if found.whole else float)


@pytest.mark.parametrize("text", ["0.5..0.1", "1..1", "log:0..1", "log:-1..1"])
def test_a_wrong_range_is_refused(text):
    with pytest.raises(ConfigError, match=r"range"):
        sweeping.read_space({"k": [text]}, {})


def test_a_range_in_a_grid_and_a_search_of_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"k=0.1..0.5: a range is for --search"):
        sweeping.refuse_ranges({"k": ["0.1..0.5"], "data.root": ["../x"]})
    with pytest.raises(ConfigError, match=r"nothing to search"):
        sweeping.read_space({"k": ["1"]}, {})


# At work


def test_every_point_gets_one_seed_before_the_next_seed(tmp_path):
    trainer = Fake()
    swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=trainer)
    assert trainer.trained == [
        "margin=0.2 seed 0", "margin=0.4 seed 0", "margin=0.2 seed 1", "margin=0.4 seed 1"
    ]  # fmt: skip


def test_a_stopped_sweep_goes_on_and_a_larger_grid_keeps_what_is_there(tmp_path):
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=Fake(stop_after=1))
    assert len(work.found) == 1 and not work.failed and work.trainer.stopped
    states = [run.state for run in grid_of(tmp_path, f"{MARGIN}=0.2,0.4")[1]]
    assert states == ["finished", "begun", "new", "new"]

    again = Fake()
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=again)
    assert len(again.trained) == 3 and len(work.found) == 4
    whole = work.table().to_dict()
    larger = Fake()
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4,0.6", trainer=larger, seeds="3")
    assert len(larger.trained) == 5 and "margin=0.2 seed 2" in larger.trained
    swept(tmp_path / "whole", f"{MARGIN}=0.2,0.4")
    assert json.loads((tmp_path / "whole/out/sweep.json").read_text()) == whole


def test_a_failed_run_is_told_and_the_others_go_on(tmp_path):
    stream = io.StringIO()
    trainer = Fake(fail={"margin=0.2 seed 1": "loss is nan at epoch 1"})
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=trainer, console=Console(stream), jobs=2)
    assert len(work.found) == 3
    text = sweeping.text_of(work.table())
    assert "failed: margin=0.2 seed 1: loss is nan at epoch 1" in text
    assert "1 of 2" in text and "not the same number of runs" in text
    assert "margin=0.2 seed 1 failed: loss is nan" in stream.getvalue()
    assert "left" in stream.getvalue() and "[4/4]" in stream.getvalue()
    plain = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["failed"] for row in plain["rows"]] == [{}, {"1": "loss is nan at epoch 1"}]
    again = Fake()
    assert not swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=again).failed
    assert again.trained == ["margin=0.2 seed 1"], "a failed run is tried anew"


def test_a_run_without_scores_has_failed(tmp_path):
    class Silent(Fake):
        def train(self, run):
            return Outcome()

    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=Silent())
    assert all("ended without scores" in reason for reason in work.failed.values())
    assert work.draw() is None and "margin" in sweeping.text_of(work.table())


def test_a_metric_that_nobody_reports_stops_the_sweep(tmp_path):
    trainer = Fake()
    with pytest.raises(ConfigError, match=r"--metrics R@9: margin=0.2 seed 0 reports: rank-1, mAP"):
        swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=trainer, metrics=("rank-1", "R@9"))
    assert trainer.stopped and len(trainer.trained) < 4


def test_another_benchmark_is_named_and_what_it_cost_is_read(tmp_path):
    _, (run, *_), _, _ = grid_of(
        tmp_path, f"{MARGIN}=0.2,0.4", "optim.epochs=2", "optim.accumulate=2"
    )
    assert run.state == "new"
    finish(run, 0.5, batches=6, seconds=3.5)
    trained = {"synthetic": scores_of(0.5), "other": {"rank-1": 0.25}}
    rewrite(run.folder / "model.json", info={"scores": trained})
    rewrite(run.folder / "scores.json", other={"pixels": {"scores": {"rank-1": 0.125}}})
    with (run.folder / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "itera')  # a kill in the middle
    result = sweeping.read_result(run)
    assert result.scores["rank-1"] == 0.5 and result.scores["other/rank-1"] == 0.25
    assert result.yardsticks["pixels"]["other/rank-1"] == 0.125
    assert set(result.yardsticks) == {"pixels", "untrained"} <= set(YARDSTICKS)
    # Three batches an epoch, two of them a step, the third one another.
    assert result.spent == Spent(seconds=3.5, steps=4, images=6 * 16, weights=1234)


def one_run(tmp_path, score=0.5, *, seeds="1"):
    _, (run, *_), _, _ = grid_of(tmp_path, f"{MARGIN}=0.2,0.4", seeds=seeds)
    finish(run, score)
    return run


def test_a_later_evaluation_does_not_change_what_the_training_scored(tmp_path):
    run = one_run(tmp_path)
    other = {"trained": {"scores": {"rank-1": 0.9}}}
    rewrite(run.folder / "scores.json", holdout=other, synthetic=other)
    result = sweeping.read_result(run)
    assert result.scores["rank-1"] == 0.5 and "holdout/rank-1" not in result.scores


def test_a_run_that_was_killed_before_its_model_has_scores_is_gone_on_with(tmp_path):
    run = one_run(tmp_path)
    (run.folder / "config.yaml").write_text(run.config.to_yaml())
    rewrite(run.folder / "model.json", info={"scores": {}})
    assert run.state == "begun"
    (run.folder / "model.json").unlink()
    assert run.state == "begun"
    trainer = Fake()
    swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=trainer, seeds="1")
    assert "margin=0.2 seed 0" in trainer.trained


def test_a_training_that_fails_before_its_model_has_scores_has_failed(tmp_path):
    class Full(Fake):
        whole = False

        def train(self, run):
            super().train(run)
            if not self.whole:
                rewrite(run.folder / "model.json", info={"scores": {}})
            return Outcome("no space left")

    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=Full(), seeds="1")
    assert not work.found and set(work.failed.values()) == {"no space left"}
    stream, trainer = io.StringIO(), Full()
    trainer.whole = True
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", trainer=trainer, console=Console(stream), seeds="1")
    assert len(work.found) == 2 and not work.failed
    assert "has its scores, but then: no space left" in stream.getvalue()


@pytest.mark.parametrize("picture", ["curves", "ranked_strips"])
def test_a_picture_that_cannot_be_drawn_leaves_a_finished_run(tmp_path, monkeypatch, picture):
    def breaks(*_, **__):
        raise ValueError("no way")

    monkeypatch.setattr(visualise, picture, breaks)
    config = load_config(SMOKE, ["evaluate.untrained=false", "tensorboard=false"])
    run = Run("base", 0, config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"no way"):
        train(config, run.folder)
    assert run.state == "finished"
    assert set(sweeping.read_result(run).scores) == {"mAP", "mINP", "rank-1", "rank-5", "rank-10"}


@pytest.mark.parametrize("name", ["scores.json", "model.json", "data.json"])
@pytest.mark.parametrize("text", ["", '{"synthetic', "[]", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name, text):
    run = one_run(tmp_path)
    (run.folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"seed-0/{name} is damaged .*: remove ") as error:
        sweeping.refuse_changed_data([run])
        sweeping.read_result(run)
    assert not isinstance(error.value, ConfigError) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, entries",
    [
        ("scores.json", {"synthetic": {"pixels": 3}}),
        ("scores.json", {"synthetic": []}),
        ("model.json", {"info": {"scores": {"synthetic": 0.5}}}),
        ("model.json", {"info": {"scores": [1]}}),
    ],
)
def test_scores_that_are_none_are_a_damaged_file(tmp_path, name, entries):
    run = one_run(tmp_path)
    rewrite(run.folder / name, **entries)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        sweeping.read_result(run)


def test_what_an_older_run_does_not_tell_stays_empty(tmp_path):
    run = one_run(tmp_path)
    info = {"scores": {"synthetic": scores_of(0.5)}}
    (run.folder / "model.json").write_text(json.dumps({"info": info}))
    work = swept(tmp_path, f"{MARGIN}=0.2,0.4", seeds="1")
    old, new = sorted(work.table().rows, key=lambda row: row.point.name)
    assert old.spent("weights") is None and new.spent("weights") == 1234
    assert old.spent("seconds") is None and old.spent("steps") == 2
    assert "margin=0.2,0.2,1,0.5" in (tmp_path / "out" / "sweep.csv").read_text()
    assert " -" in sweeping.text_of(work.table())


# What only the data can tell


def test_finished_runs_of_other_data_are_refused(tmp_path):
    swept(tmp_path, f"{MARGIN}=0.2,0.4")
    runs = grid_of(tmp_path, f"{MARGIN}=0.2,0.4")[1]
    sweeping.refuse_changed_data(runs)
    rewrite(runs[1].folder / "data.json", fingerprint="0123")
    with pytest.raises(ConfigError, match=r"the data changed between .*seed-0.*name another --out"):
        sweeping.refuse_changed_data(runs)
    for run in runs:
        rewrite(run.folder / "data.json", fingerprint="0123")
    with pytest.raises(ConfigError, match=r"changed since .*\(0123 -> \w+\).*name another --out"):
        sweeping.refuse_changed_data(runs)


def test_data_is_compared_among_runs_of_the_same_data_only_and_where_it_is_there(
    tmp_path, monkeypatch
):
    base = (
        "{name: synthetic, args: {train_identities: 8, test_identities: 6, cameras: 2, images: %d}}"
    )
    sizes = "data.train=" + ",".join(f"[{base % images}]" for images in (2, 3))
    swept(tmp_path, sizes, seeds="1")
    runs = grid_of(tmp_path, sizes, seeds="1")[1]
    assert len({run.fingerprint for run in runs}) == 2
    sweeping.refuse_changed_data(runs)
    rewrite(runs[0].folder / "data.json", fingerprint="0123")

    def lost(config):
        raise FileNotFoundError("no such folder")

    monkeypatch.setattr(sweeping.checks, "load_benchmarks", lost)
    sweeping.refuse_changed_data(runs)


def test_a_metric_is_checked_before_the_first_run(tmp_path):
    config = load_config(SMOKE, [])
    sweeping.refuse_unknown((), config)
    sweeping.refuse_unknown(("rank-1", "mINP"), config)
    with pytest.raises(ConfigError, match=r"--metrics R@9,x: synthetic reports: mAP, mINP, rank-1"):
        sweeping.refuse_unknown(("R@9", "mAP", "x"), config)
    (test,) = config.data.test
    data = config.data.model_copy(update={"test": (test, test)})
    twice = config.model_copy(update={"data": data})
    sweeping.refuse_unknown(("rank-1", "synthetic-2/rank-1"), twice)
    with pytest.raises(ConfigError, match=r"synthetic and synthetic-2 reports: .*synthetic-2/mAP"):
        sweeping.refuse_unknown(("other/rank-1",), twice)


def test_a_metric_that_cannot_be_checked_yet_is_left_to_the_training(tmp_path, monkeypatch):
    config = load_config(SMOKE, [])

    def lost(config):
        raise FileNotFoundError("no such folder")

    def gait(config):
        test = load_benchmarks(config)[1][0]
        rules = replace(test.protocol, report=("gait_table",))
        return (), [replace(test, protocol=rules)]

    for loads in (lost, gait):
        monkeypatch.setattr(sweeping.checks, "load_benchmarks", loads)
        sweeping.refuse_unknown(("NM",), config)


def test_points_with_other_test_sets_are_refused(tmp_path):
    market = "[{name: market1501}]"
    with pytest.raises(ConfigError, match=r"data.test differs; a sweep compares scores on one"):
        grid_of(tmp_path, f"data.test=[{{name: synthetic}}],{market}")
    with pytest.raises(ConfigError, match=r"root=a and root=b: data.test differs"):
        grid_of(tmp_path, "data.root=a,b")


# The table


def result(score, *, steps=10, images=640, pixels=0.1, seconds=1.0):
    yardsticks = {"pixels": {"R@1": pixels}}
    return Result({"R@1": score}, yardsticks, Spent(seconds, steps, images, 100))


def table_of(rows, **more):
    made = [
        Row(Point(name, {"k": name}, (f"k={name}",)), dict(enumerate(found)), *failed)
        for name, found, *failed in rows
    ]
    seeds = range(max(len(row.found) for row in made))
    return Table.of(made, keys=("k",), metrics=("R@1",), seeds=tuple(seeds), **more)


def test_mean_and_deviation_are_numpys_with_n_minus_1():
    scores = [0.61, 0.58, 0.67]
    (row,) = table_of([("a", [result(score, seconds=score) for score in scores])]).rows
    assert row.mean("R@1") == pytest.approx(np.mean(scores))
    assert row.deviation("R@1") == pytest.approx(np.std(scores, ddof=1))
    assert row.spent("seconds") == pytest.approx(np.mean(scores)) and row.spent("steps") == 10


def test_rows_are_sorted_and_those_within_one_standard_error_are_marked():
    def around(mean, spread):
        return [result(mean - spread), result(mean), result(mean + spread)]

    # The standard error of a difference of two such means is spread * sqrt(2 / 3) = 0.0163.
    table = table_of(
        [
            ("far", around(0.50, 0.02)),
            ("near", around(0.585, 0.02)),
            ("best", around(0.60, 0.02)),
            ("off", around(0.583, 0.02)),
            ("none", [], {0: "out of memory"}),
        ]
    )
    assert [row.point.name for row in table.rows] == ["best", "near", "off", "far", "none"]
    assert [table.tied(row) for row in table.rows] == [False, True, False, False, None]
    error = math.sqrt(2 * 0.02**2 / 3)
    assert 0.015 < error < 0.017
    text = sweeping.text_of(table)
    marked = [line for line in text.splitlines() if line.startswith("~  ")]
    assert len(marked) == 1 and "near" in marked[0] and "58.50 +- 2.00" in marked[0]
    assert "~ R@1 differs" in text
    assert "failed: none seed 0: out of memory" in text


def test_a_row_that_lacks_seeds_does_not_lead(tmp_path):
    whole = [result(0.5), result(0.52)]
    table = table_of([("lucky", [result(0.9)]), ("whole", whole), ("less", [result(0.4)] * 2)])
    assert [row.point.name for row in table.rows] == ["whole", "less", "lucky"]
    assert table.best is not None and table.best.point.name == "whole"
    assert any("such rows come last" in note for note in table.notes())
    assert [table.tied(row) for row in table.rows] == [False, False, None]
    marks = [
        row["within one standard error of best"]
        for row in csv.DictReader(io.StringIO(table.to_csv()))
    ]
    assert marks == ["0", "0", ""]
    told = [row["within_one_standard_error_of_best"] for row in table.to_dict()["rows"]]
    assert told == [False, False, None]
    seeds = {"keys": ("k",), "metrics": ("R@1",), "seeds": (0, 1, 2)}
    assert Table.of(table.rows, **seeds).best.point.name == "lucky", "where none is complete"


def test_one_seed_has_no_deviation_and_that_is_said():
    table = table_of([("a", [result(0.5)]), ("b", [result(0.5)])])
    assert not any(map(table.tied, table.rows))
    assert table.rows[0].deviation("R@1") is None
    assert any("one seed" in note for note in table.notes())
    plain = json.loads(json.dumps(table.to_dict()))
    assert plain["rows"][0]["scores"]["R@1"] == {"mean": 0.5, "deviation": None, "runs": [0.5]}


def test_budgets_that_differ_are_told():
    alike = table_of([("a", [result(0.5), result(0.6)]), ("b", [result(0.5), result(0.6)])])
    assert not any("budget" in note for note in alike.notes())
    table = table_of([("a", [result(0.5)]), ("b", [result(0.5, steps=20, images=1280)])])
    (told,) = [note for note in table.notes() if note.startswith("not the same budget: ")]
    assert "10 to 20 steps, 640 to 1,280 images" in told and told in sweeping.text_of(table)


def test_baselines_stand_beneath_once_and_a_difference_is_told():
    table = table_of([("a", [result(0.5), result(0.6)]), ("b", [result(0.5), result(0.6)])])
    lines = sweeping.text_of(table).splitlines()
    (line,) = [line for line in lines if "pixels" in line]
    assert line.split() == ["pixels", "10.00"]
    table = table_of([("a", [result(0.5)]), ("b", [result(0.5, pixels=0.3)])])
    assert any("pixels: not the same in all runs" in note for note in table.notes())
    assert table.to_dict()["baselines"]["pixels"]["R@1"]["mean"] == pytest.approx(0.2)


def test_the_csv_has_a_line_a_point_and_reads_back(tmp_path):
    swept(tmp_path, f"{MARGIN}=0.2,0.4", "data.size=[64,32],[32,32]")
    with (tmp_path / "out" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {row["data.size"] for row in rows} == {"[64,32]", "[32,32]"}
    assert float(rows[0]["rank-1"]) == pytest.approx(0.795)
    assert float(rows[0]["rank-1 deviation"]) == pytest.approx(np.std([0.79, 0.8], ddof=1))
    assert rows[0]["steps"] == "2" and rows[0]["runs"] == "2" and rows[0]["failed"] == "0"
    plain = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert plain["metrics"] == ["rank-1", "mAP", "rank-5"]
    assert "untrained: not the same" in "\n".join(plain["notes"])
    assert plain["baselines"]["pixels"]["rank-1"] == {"mean": 0.1, "same_in_all_runs": True}


# The picture


def shape_of(path):
    return cv2.imread(str(path)).shape


@pytest.mark.parametrize(
    "assignments, variants",
    [
        ([f"{MARGIN}=0.2,0.4,0.6"], {}),
        ([f"{MARGIN}=0.2,0.4", f"{ALPHA}=1.0,1.2"], {}),
        ([], {"rll": [f"{MARGIN}=0.4"], "wide": [f"{MARGIN}=0.6"]}),
        ([f"{MARGIN}=0.4"], {}),
    ],
    ids=["line", "map", "bars", "one"],
)
def test_a_sweep_draws_its_picture(tmp_path, assignments, variants):
    work = swept(tmp_path, *assignments, variants=variants, metrics=("rank-1", "mAP"))
    height, width, _ = shape_of(work.draw())
    assert width > height > 200
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_pictures_of_names_numbers_and_gaps_differ(tmp_path):
    scores = {"R@1": [(0.6, 0.02), (0.5, 0.0), (math.nan, 0.0)]}
    known = {"pixels": {"R@1": 0.2}}
    names = ["a", "b", "c"]
    numbers = {"margin": [0.1, 1.0, 10.0]}
    for number, options in enumerate(({}, {"numbers": numbers}, {"baselines": known})):
        sweep_chart(tmp_path / f"{number}.png", names, scores, **options)
    pictures = [(tmp_path / f"{number}.png").read_bytes() for number in range(3)]
    assert len(set(pictures)) == 3
    sweep_chart(tmp_path / "many.png", [str(i) for i in range(99)], {"mAP": [(0.5, 0.1)] * 99})
    assert shape_of(tmp_path / "many.png")[0] < 2000


@pytest.mark.parametrize("numbers", [{}, {"$x_{$": [1.0, 2.0]}], ids=["bars", "line"])
def test_a_chart_takes_dollars_as_they_are(tmp_path, numbers):
    path = tmp_path / "chart.png"
    odd = r"$\nothing{$"
    scores, known = {odd: [(0.5, 0.1), (0.4, 0.1)]}, {odd: {odd: 0.2}}
    sweep_chart(path, [odd, "b$"], scores, numbers=numbers, baselines=known, title=odd)
    assert shape_of(path)[0] > 100


def test_a_chart_of_nothing_or_of_unequal_lengths_is_refused(tmp_path):
    for names, scores in (([], {}), (["a"], {}), (["a"], {"R@1": [(0.5, 0.1), (0.5, 0.1)]})):
        with pytest.raises(ValueError, match=r"expected one length"):
            sweep_chart(tmp_path / "x.png", names, scores)


# The search


def searched(tmp_path, trials, *, trainer=None, space=None, minutes=None, seeds=(0, 1)):
    pytest.importorskip("optuna", reason="pip install 'reidkit[search]'")
    values = {MARGIN: ["0.1..0.9"], "optim.name": ["adam", "adamw"], **(space or {})}
    found, fixed = sweeping.read_space(values, {})
    (tmp_path / "out").mkdir(exist_ok=True)
    work = sweeping.Sweep(
        out=tmp_path / "out",
        trainer=trainer or Fake(),
        keys=tuple(found),
        seeds=seeds,
        expected=trials * len(seeds),
    )
    sweeping.Search(SMOKE, work, found, fixed, {}).run(trials, minutes)
    return work


def settings_of(work):
    return {row.point.name: dict(row.point.settings) for row in work.table().rows}


def test_a_search_finds_the_better_half_and_says_what_choosing_costs(tmp_path):
    work = searched(tmp_path, 12, seeds=(0,))
    table = work.table()
    assert len(table.rows) == 12 and len(work.trainer.trained) == 12
    best = float(table.rows[0].point.settings[MARGIN])
    assert abs(best - 0.3) < 0.1
    assert any("flatter" in note for note in table.notes())
    assert "trial-0" in (tmp_path / "out" / "sweep.csv").read_text()
    assert work.draw() is not None


def test_a_stopped_search_goes_on_to_the_same_points(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = searched(tmp_path / "whole", 4)
    broken = searched(tmp_path / "broken", 4, trainer=Fake(stop_after=3))
    assert len(broken.found) == 3
    again = searched(tmp_path / "broken", 4)
    assert len(again.trainer.trained) == 5
    assert settings_of(again) == settings_of(whole)
    assert again.table().to_dict()["rows"] == whole.table().to_dict()["rows"]
    assert len(searched(tmp_path / "broken", 5).trainer.trained) == 2, "a larger number goes on"


def test_a_search_lives_with_failures_and_refuses_another_space(tmp_path):
    work = searched(tmp_path, 3, trainer=Fake(fail={"trial-001 seed 1": "loss is nan"}))
    assert work.failed == {("trial-001", 1): "loss is nan"}
    again = searched(tmp_path, 4)
    assert len(again.trainer.trained) == 2 and ("trial-001", 1) in again.failed
    with pytest.raises(ConfigError, match=r"another config, range, seed or metric"):
        searched(tmp_path, 4, space={MARGIN: ["0.1..0.8"]})


def test_a_trial_whose_folder_is_gone_says_so(tmp_path):
    searched(tmp_path, 2)
    shutil.rmtree(tmp_path / "out" / "trial-000" / "seed-1")
    work = searched(tmp_path, 2)
    (reason,) = work.failed.values()
    assert "of an earlier call" in reason and "seed-1 is gone" in reason
    assert "larger --search" in reason and not work.trainer.trained


def test_a_search_refuses_trials_of_other_data(tmp_path):
    searched(tmp_path, 2)
    rewrite(tmp_path / "out" / "trial-000" / "seed-1" / "data.json", fingerprint="0123")
    with pytest.raises(ConfigError, match=r"the data changed"):
        searched(tmp_path, 3)


def test_a_search_begins_no_point_after_its_time(tmp_path):
    assert searched(tmp_path, 4, minutes=0).table().rows == []


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path):
    # Checked at the corners one by one, this pair goes together with the others' first values.
    space = {"optim.update_bn": ["false", "true"], "optim.ema": ["0.9", "null"]}
    work = searched(tmp_path, 12, space=space, seeds=(0,))
    refused = [reason for reason in work.failed.values() if "update_bn" in reason]
    assert len(work.found) + len(refused) == 12 and refused


def test_a_bar_is_named_by_what_varies(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweeping.conduct.visualise, "sweep_chart", lambda *a, **k: drawn.append(a))
    variants = {"ranked list, pair": ["optim.lr=1e-3"], "x" * 50: ["optim.lr=1e-4"]}
    work = swept(tmp_path, "optim.clip=1,2", seeds="1", variants=variants)
    work.draw()
    _, names, _ = drawn[-1]
    long = "x" * 43 + "\N{HORIZONTAL ELLIPSIS}"
    pair = ["ranked list, pair, clip=1", "ranked list, pair, clip=2"]
    assert sorted(names) == sorted([*pair, long, long])
