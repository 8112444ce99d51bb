"""Clusters by sparse Jaccard distances: seconds, memory, and equality with N x N.

    python tools/bench_clustering.py --samples 100000 --dim 256 --check 5000

Made-up noisy identities of about 20 samples. For DBSCAN and HDBSCAN, each in a process of its own:
seconds of the Jaccard distances and of the clustering, the peak of the process' memory (features
and libraries included) and how good the labels are. Then `--check` samples against plain numpy on
N x N matrices: the largest difference of the distances, and of how many samples DBSCAN's labels
differ. Compiling is not counted: a process before does it and the disk keeps it.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
from bench_rerank import Floats, Integers, peak, reciprocal
from sklearn.cluster import DBSCAN

from reidkit.evaluation import jaccard_distance, pairwise
from reidkit.types import Features
from reidkit.unsupervised.clustering import cluster, numbered

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
SIZE = 20  # samples of one identity, on average
NOISE = 2.0  # length of what differs within an identity over that of its direction


def made_up(samples: int, dim: int, seed: int) -> Features:
    """Noisy directions (N, D), one an identity."""
    generator = np.random.default_rng(seed)
    identities = max(2, samples // SIZE)
    pids = generator.integers(identities, size=samples)
    directions = generator.standard_normal((identities, dim), np.float32)
    vectors = directions[pids]
    # Some samples of everybody are worse than others.
    noise = NOISE * generator.uniform(0.5, 1.5, size=(samples, 1)).astype(np.float32)
    vectors += noise * generator.standard_normal((samples, dim), np.float32)
    return Features.from_arrays(vectors, pids)


def dense_jaccard(vectors: Floats) -> Floats:
    """Jaccard distances (N, N), as a reader of the paper would write them with numpy.

    Zhong et al., CVPR 2017, arXiv:1701.08398: reciprocal neighbours, their expansion, weights
    averaged over the nearest (local query expansion).
    """
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    count = len(units)
    squares = np.maximum(2 - 2 * units @ units.T, 0)
    np.fill_diagonal(squares, 0)
    original = (squares / squares.max(axis=0)).T
    order = np.argsort(squares - np.eye(count), axis=1, kind="stable")
    del squares
    weights = np.zeros((count, count))
    for i in range(count):
        known = reciprocal(order, i, K1)
        members = known
        for candidate in known:
            theirs = reciprocal(order, candidate, round(K1 / 2))
            if len(np.intersect1d(theirs, known)) > 2 / 3 * len(theirs):
                members = np.append(members, theirs)
        members = np.unique(members)
        share = np.exp(-original[i, members])
        weights[i, members] = share / share.sum()
    weights = np.array([weights[order[i, :K2]].mean(axis=0) for i in range(count)])
    del original, order
    owners = [np.flatnonzero(weights[:, j]) for j in range(count)]
    distances = np.empty((count, count))
    for i in range(count):
        shared = np.zeros(count)
        for j in np.flatnonzero(weights[i]):
            shared[owners[j]] += np.minimum(weights[i, j], weights[owners[j], j])
        distances[i] = 1 - shared / (2 - shared)
    return distances.clip(0)


def measured(method: str, samples: int, dim: int, seed: int) -> dict[str, float]:
    """Run in a process of its own: seconds, megabytes and quality of one clustering."""
    import reidkit.unsupervised.clustering as clustering

    cluster(made_up(600, 16, 0), method=method)  # compiled, and libraries imported
    features = made_up(samples, dim, seed)
    parts: dict[str, float] = {}

    def timed(*args: object, **settings: object) -> object:
        start = time.perf_counter()
        graph = jaccard_distance(*args, **settings)
        parts.update(jaccard=time.perf_counter() - start, pairs=graph.nnz, jaccard_MB=peak())
        return graph

    clustering.jaccard_distance = timed
    start = time.perf_counter()
    labels = cluster(features, method=method, eps=EPS, min_samples=MIN_SAMPLES, k1=K1, k2=K2)
    whole = time.perf_counter() - start
    parts |= {"clustering": whole - parts["jaccard"], "MB": peak()}
    quality = pairwise(labels, features.pids)
    return parts | {
        "clusters": quality.identities,
        "precision": quality.precision,
        "recall": quality.recall,
        "left_out": quality.left_out,
    }


def apart(method: str, samples: int, dim: int, seed: int) -> dict[str, float]:
    """`measured` in a new process."""
    sizes = ["--samples", str(samples), "--dim", str(dim), "--seed", str(seed)]
    command = [sys.executable, __file__, "--method", method, *sizes]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare(samples: int, dim: int, seed: int) -> None:
    """Print how far sparse and dense results of so many samples differ."""
    features = made_up(samples, dim, seed)
    start = time.perf_counter()
    dense = dense_jaccard(features.vectors.numpy())
    seconds = time.perf_counter() - start
    sparse = jaccard_distance(features, k1=K1, k2=K2)
    found = np.ones_like(dense)
    rows = np.repeat(np.arange(samples), np.diff(sparse.indptr))
    found[rows, sparse.indices] = sparse.data
    search = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed")
    expected: Integers = numbered(search.fit_predict(dense))
    labels = cluster(features, eps=EPS, min_samples=MIN_SAMPLES, k1=K1, k2=K2)
    print(
        f"{samples:,} samples against N x N matrices ({seconds:.0f} s): distances differ by at "
        f"most {np.abs(found - dense).max():.1e}, DBSCAN's labels of "
        f"{int((labels != expected).sum())} samples, clusters {labels.max() + 1}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--check", type=int, default=5000, help="0 leaves the comparison out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=["dbscan", "hdbscan"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.samples, arguments.dim) < 1 or arguments.check < 0:
        parser.error("samples and dim are at least 1, check at least 0")
    sizes = arguments.samples, arguments.dim, arguments.seed
    if arguments.method:
        print(json.dumps(measured(arguments.method, *sizes)))
        return
    print(f"{sizes[0]:,} x {sizes[1]}, k1 {K1}, k2 {K2}, eps {EPS}, min_samples {MIN_SAMPLES}")
    apart("dbscan", 600, 16, 0)
    for method in ("dbscan", "hdbscan"):
        found = apart(method, *sizes)
        print(
            f"{method:>8}  Jaccard {found['jaccard']:6.1f} s, {found['pairs']:,.0f} pairs, "
            f"{found['jaccard_MB']:,.0f} MB; clustering {found['clustering']:6.1f} s; peak "
            f"{found['MB']:,.0f} MB; {found['clusters']:,.0f} clusters, precision "
            f"{found['precision']:.3f}, recall {found['recall']:.3f}, left out "
            f"{found['left_out']:.3f}",
            flush=True,
        )
    if arguments.check:
        compare(arguments.check, sizes[1], sizes[2])


if __name__ == "__main__":
    main()
