"""The whole path on real handwritten digits that come with scikit-learn: no files needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHANCE = 0.2  # five classes of about equal size


@pytest.mark.slow
def test_digits_nobody_trained_on_are_retrieved(tmp_path):
    def reidkit(*words):
        environment = {**os.environ, "REIDKIT_DATA": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "reidkit.cli", *words, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run = tmp_path / "run"
    reidkit("train", "configs/digits/ranked_list.yaml", "--out", str(run))
    rows = json.loads((run / "scores.json").read_text())["digits"]
    ours, raw, untrained = (
        rows[name]["scores"]["R@1"] for name in ("trained", "pixels", "untrained")
    )
    print(f"R@1: trained {ours:.4f}, untrained {untrained:.4f}, raw pixels {raw:.4f}")
    assert rows["trained"]["queries"] == 896
    assert 4.5 * CHANCE < ours < 1
    assert 0.98 < raw < 1

    again = reidkit("evaluate", str(run))["digits"]
    assert again["scores"] == rows["trained"]["scores"]
    shown = reidkit("map", str(run), "--limit", "200", "--method", "pca")
    assert Path(shown["out"]) == run / "map.html" and (run / "map.html").is_file()
