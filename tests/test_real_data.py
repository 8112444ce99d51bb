"""Real images and a real trained network; skipped where they are not.

REIDKIT_DATA names the folder that holds Market-1501-v15.09.15, REIDKIT_WEIGHTS the one that holds
osnet_x0_25_msmt17.onnx.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reidkit import evaluate, extract, load_benchmark
from reidkit.types import ModelOutput, Preprocessing

DATA = Path(os.environ.get("REIDKIT_DATA", "datasets"))
ONNX = Path(os.environ.get("REIDKIT_WEIGHTS", "weights")) / "osnet_x0_25_msmt17.onnx"
needs_market = pytest.mark.skipif(
    not (DATA / "Market-1501-v15.09.15").is_dir(), reason="REIDKIT_DATA holds no Market-1501"
)
needs_osnet = pytest.mark.skipif(
    not ONNX.is_file(), reason="REIDKIT_WEIGHTS holds no osnet_x0_25_msmt17.onnx"
)


class OnnxModel(nn.Module):
    """A foreign network behind reidkit's model interface."""

    preprocessing = Preprocessing(size=(256, 128))

    def __init__(self, path):
        super().__init__()
        runtime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]

    def forward(self, frames, mask):
        images = frames[:, 0].numpy()
        fixed = self.input.shape[0]
        size = fixed if isinstance(fixed, int) else len(images)
        rows = [
            self.session.run(None, {self.input.name: images[start : start + size]})[0]
            for start in range(0, len(images), size)
        ]
        feature = torch.from_numpy(np.concatenate(rows))[:, None]
        return ModelOutput(feature, feature, None)


def plain_scores(query, gallery):
    """Market-1501's rules as a plain loop over the queries, in float64."""
    unit = [
        side.vectors.double().numpy() / np.linalg.norm(side.vectors.double(), axis=1, keepdims=True)
        for side in (query, gallery)
    ]
    pids, camids = gallery.pids.numpy(), gallery.camids.numpy()
    precision, first, penalty = [], [], []
    for vector, pid, camid in zip(unit[0], query.pids.numpy(), query.camids.numpy(), strict=True):
        order = np.argsort(-(unit[1] @ vector), kind="stable")
        kept = order[~((pids[order] == pid) & (camids[order] == camid))]
        ranks = np.flatnonzero(pids[kept] == pid) + 1
        if len(ranks):
            precision.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            first.append(ranks[0])
            penalty.append(len(ranks) / ranks[-1])
    first = np.array(first)
    scores = {f"rank-{k}": float(np.mean(first <= k)) for k in (1, 5, 10)}
    return {"mAP": float(np.mean(precision)), "mINP": float(np.mean(penalty)), **scores}


@needs_market
def test_the_real_market1501_has_the_published_counts():
    benchmark = load_benchmark("market1501", DATA, "strict")
    assert (len(benchmark.train), len({s.pid for s in benchmark.train})) == (12_936, 751)
    assert (len(benchmark.query), len({s.pid for s in benchmark.query})) == (3_368, 750)
    assert len(benchmark.gallery) == 15_913
    assert sum(sample.pid == 0 for sample in benchmark.gallery) == 2_798


@needs_market
@needs_osnet
@pytest.mark.slow
def test_a_trained_osnet_scores_on_the_whole_gallery_as_a_plain_loop_says():
    benchmark = load_benchmark("market1501", DATA, "strict")
    model = OnnxModel(ONNX)
    query = extract(model, benchmark.query, batch_size=64)
    gallery = extract(model, benchmark.gallery, batch_size=64)
    scores = evaluate(query, gallery, "market1501")
    expected = plain_scores(query, gallery)
    print(dict(scores))
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert scores["rank-1"] > 0.4, "this network is trained: it finds more than that"
