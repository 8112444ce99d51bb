"""What the README tells people to run, run."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from reidkit import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder as a newcomer has it: the configs, and my_photos with a sub-folder an identity."""
    from reidkit.data.synthetic import write_market

    size = {"train_identities": 8, "test_identities": 2, "cameras": 2, "images": 2}
    write_market(tmp_path / "world", **size, seed=0, size=(64, 32))
    for path in (tmp_path / "world" / "bounding_box_train").glob("*.jpg"):
        folder = tmp_path / "my_photos" / f"person{path.name[:4]}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, command):
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, command


def test_the_commands_for_own_pictures_work_as_written(desk, monkeypatch, capsys):
    quick = " optim.epochs=1 data.size=[64,32] data.batch.identities=4 data.batch.instances=2"
    quick += " evaluate.every=0 evaluate.pictures=2 model.backbone.width=0.125"
    mine = [line for line in SHELL if "my_photos" in line or "folder" in line]
    assert [line.split()[1] for line in mine] == ["data", "train", "evaluate", "extract"]
    for line in mine:
        call(monkeypatch, line + (quick if " train " in line else ""))
    assert (desk / "photos.npz").is_file()
    assert (desk / "runs" / "folder" / "ranked.png").is_file()


def test_the_ranked_list_loop_learns(capsys):
    exec(PYTHON[1], {})
    printed = capsys.readouterr().out
    rank_1 = float(re.search(r"%\s+%?\s*([\d.]+)%", printed.replace("%", "% ", 1))[1])
    assert rank_1 > 50, printed


def test_the_tree_and_the_matches_find_who_is_who(capsys):
    exec(PYTHON[0], {})
    labels, count, match = capsys.readouterr().out.splitlines()
    assert labels == str([person for person in range(5) for _ in range(4)])
    assert count == "5"
    assert match.startswith("TrackletMatch(cam_a=0, a=0, cam_b=1, b=")


def test_the_commands_without_labels_work_as_written(desk, monkeypatch, capsys):
    street = "{train_identities: 8, test_identities: 4, cameras: 2, tracklets: 2, frames: 4}"
    small = f"{{name: synthetic_mars, args: {street}}}"
    quick = f" 'data.train=[{small}]' 'data.test=[{small}]' optim.epochs=2 evaluate.every=0"
    quick += " data.size=[32,16] data.batch.identities=2 data.batch.frames=2 method.first=1"
    quick += " method.epochs=1 method.batches=2 model.backbone.width=0.125 evaluate.pictures=0"
    first = SHELL.index("reidkit train configs/unsupervised/synthetic_smp.yaml")
    lines = [line for line in SHELL[first : first + 3]]
    for line in lines:
        own = " method.k1=4 method.eps=0.9" if "contrast" in line else ""
        call(monkeypatch, line + quick + own)
    assert "rank-1 after" in capsys.readouterr().out
    label, apply = (line for line in SHELL if line.startswith("reidkit label"))
    (world,) = (desk / "datasets").glob("synthetic_mars-*")
    call(monkeypatch, label.replace("synthetic_mars:gallery", str(world / "bbox_test")))
    assert (desk / "labelled" / "tree.html").is_file()
    shutil.copy(desk / "labelled" / "labels.csv", desk / "labels-corrected.csv")
    call(monkeypatch, apply)


def test_the_trained_model_in_three_lines(desk, monkeypatch):
    quick = "optim.epochs=1 data.size=[64,32] data.batch.identities=4 data.batch.instances=2"
    quick += " evaluate.every=0 evaluate.pictures=0 model.backbone.width=0.125"
    call(monkeypatch, f"reidkit train configs/own/folder.yaml --out runs/quickstart {quick}")
    names = {}
    exec(PYTHON[2], names)
    assert len(names["features"]) == len(list((desk / "my_photos").rglob("*.jpg")))


def test_the_arrays_and_the_commands_for_judging_work_as_written(desk, monkeypatch, capsys):
    quick = "optim.epochs=1 data.size=[64,32] data.batch.identities=4 data.batch.instances=2"
    quick += " evaluate.every=0 evaluate.pictures=0 model.backbone.width=0.125"
    call(monkeypatch, f"reidkit train configs/own/folder.yaml --out runs/quickstart {quick}")
    exec(PYTHON[3], {})
    assert "95 %" in capsys.readouterr().out
    start = SHELL.index("reidkit evaluate runs/quickstart --report report.html")
    judging = SHELL[start : start + 5]
    assert [line.split()[1] for line in judging] == [*["evaluate"] * 3, "decide", "list"]
    for line in judging:
        call(monkeypatch, line)
    assert (desk / "report.html").stat().st_size > 10_000


def test_every_config_that_the_readme_names_is_there():
    named = re.findall(r"configs/\w+/\w+\.yaml", README)
    assert named and all((ROOT / path).is_file() for path in named)


def test_from_a_video_to_a_name_works_as_written(desk, monkeypatch, capsys):
    """On a tiny world; the README's own takes minutes."""
    people = "{train_subjects: 3, test_subjects: 2, frames: 5, views: 3}"
    small = f"{{name: synthetic_casia_b, args: {people}}}"
    quick = f" 'data.train=[{small}]' 'data.test=[{small}]' optim.epochs=1 evaluate.every=0"
    quick += " 'data.batch={identities: 3, instances: 2, frames: 3}'"
    quick += " 'model.channels=[4,4,8]' model.dim=8 evaluate.pictures=0"
    first = SHELL.index("reidkit train configs/synthetic/gaitset.yaml")
    last = SHELL.index("reidkit search runs/gaitset walk --gallery people.npz")
    lines = [line for line in SHELL[first : last + 1] if line]
    assert [line.split()[1] for line in lines] == [
        "train", "train", "extract", "data", "data", "search",
    ]  # fmt: skip
    for line in lines:
        if " train " in line:
            line += quick
        if "synthetic_casia_b:gallery" in line:
            (world,) = (desk / "datasets").glob("synthetic_casia_b-*")
            line = line.replace("synthetic_casia_b:gallery", str(world))
        call(monkeypatch, line.replace("--pids 51", "--pids 5"))
    assert "walk track-001: id " in capsys.readouterr().out
