import shlex
from pathlib import Path

import pytest

from reidkit import compose
from reidkit.compose import sweep
from reidkit.config import ConfigError, load_config

CONFIGS = sorted(
    path
    for path in Path(__file__).parent.parent.glob("configs/**/*.yaml")
    if path.parent.name != "sweeps"
)
VARIANTS = sorted(Path(__file__).parent.parent.glob("configs/sweeps/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_in_the_repository_is_valid(path):
    compose.check(load_config(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_says_the_command_that_runs_it(path):
    assert f"# reidkit train configs/{path.parent.name}/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_every_file_of_variants_says_its_command_and_all_of_them_can_be_trained(path):
    root = path.parent.parent.parent
    (command,) = [line for line in path.read_text().splitlines() if "# reidkit sweep" in line]
    words = shlex.split(command, comments=False)[1:]
    config, grid = words[2], words[words.index("--grid") + 1]
    assert root / grid == path
    points = sweep.make_points({}, sweep.read_variants(path))
    assert len(sweep.configure(root / config, points)) == len(points)


def test_faults_of_all_components_are_reported_together():
    path = next(path for path in CONFIGS if path.stem == "quickstart")
    wrong = [
        "model.backbone.name=resnett",
        "model.neck.nmae=1",
        "losses.0.smothing=0.1",
        "optim.name=adamww",
        "optim.schedule.warmup=3",
        "data.train=[market15O1]",
        "evaluate.baselines=[guess]",
    ]
    with pytest.raises(ConfigError) as caught:
        compose.check(load_config(path, wrong))
    text = str(caught.value)
    assert len(caught.value.faults) >= len(wrong)
    for words in (
        "Did you mean 'resnet'",
        "'nmae'",
        "Did you mean 'smoothing'",
        "Did you mean 'adamw'",
        "warmup = 3",
        "Did you mean 'market1501'",
        "unknown baseline 'guess'",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("gaitset", ["data.pixels=rgb"], "the model 'gaitset' takes silhouettes"),
        ("gaitset", ["model.name=reid", "model.backbone={name: osnet}"], "unknown key"),
        ("gaitset", ["data.size=[60, 44]"], "60 x 44"),
        ("gaitset", ["losses=[{name: cross_entropy}]"], "reads logits, but the model 'gaitset'"),
        ("gaitset", ["data.augment.jitter=0.5"], "which silhouettes have not"),
        ("gait_resnet", ["data.size=[62, 44]"], "multiple of 64"),
        ("tracklets", ["data.pixels=silhouettes"], "the model 'reid' takes rgb"),
        ("tracklets", ["data.batch.most_frames=null"], "most_frames belongs to choice: unfixed"),
        ("tracklets", ["data.batch.most_frames=1"], "most_frames 1 is below frames 2"),
    ],
)
def test_parts_that_do_not_fit_one_another_are_told_before_any_data(name, words, told):
    path = next(path for path in CONFIGS if path.parent.name == "smoke" and path.stem == name)
    with pytest.raises(ConfigError, match=told):
        compose.check(load_config(path, words))
