"""Killed, damaged and full, a training ends with the bits of one that nobody disturbed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reidkit.engine import save_state

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "fault_test.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills as Linux does")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds, kills", [("kill,save,truncated,flipped,term", 5), ("rank", 1), ("disk", 1)]
)
def test_the_short_form_of_the_fault_test_ends_with_the_same_bits(kinds, kills):
    """The full form is `python tools/fault_test.py`, by hand."""
    command = [sys.executable, str(TOOL), "--kills", str(kills), "--kinds", kinds, "--json"]
    done = subprocess.run(
        [*command, "--jobs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads(done.stdout)
    total = tally["total"]
    print(f"{kinds}: {total}")
    assert total["kills"] == total["identical"] == total["resumes"] == kills
    assert total["unreadable"] == 0


@pytest.fixture
def folders(monkeypatch):
    """The tool's own comparison."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from faults import folders

    return folders


def run_folder(path, weight=1.0):
    path.mkdir()
    save_file({"w": torch.tensor([weight])}, path / "model.safetensors")
    save_state(path / "state.pt", {"state": {"w": torch.tensor([weight])}})
    for name in ("config.yaml", "data.json", "scores.json", "model.json"):
        (path / name).write_text("{}")
    step = {"kind": "train", "epoch": 1, "iteration": 1, "loss": 1.0, "terms": {}, "lr": 0.1}
    (path / "log.jsonl").write_text(json.dumps(step) + "\n")
    return path


def test_the_comparison_notices_one_bit(folders, tmp_path):
    one, same = run_folder(tmp_path / "one"), run_folder(tmp_path / "same")
    assert folders.differences(one, same) == []
    other = run_folder(tmp_path / "other", weight=1.0000001)
    told = folders.differences(one, other)
    assert any("model.safetensors" in line for line in told)
    assert any("state" in line for line in told)


@pytest.mark.parametrize("name", ["state.pt", "model.safetensors", "scores.json", "log.jsonl"])
def test_a_file_cut_in_half_is_called_unreadable(folders, tmp_path, name):
    run = run_folder(tmp_path / "run")
    assert folders.unreadable(run) == []
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: len(data) // 2])
    if name == "scores.json":
        (run / name).write_bytes(b"{")
    assert any(name in line for line in folders.unreadable(run))
