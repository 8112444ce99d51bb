"""The identity tree of many samples: seconds, memory, and agreement with SciPy.

    python tools/bench_tree.py --samples 100000 --dim 256 --check 5000

Made-up noisy identities of about 20 samples, as in bench_clustering.py. In a process of its own:
seconds of the graph of nearest neighbours and of the tree, the peak of the process' memory
(features and libraries included) and how good the labels are, of the tree cut into as many clusters
as there are identities. Then a tree of all pairs of `--check` samples by reidkit and by SciPy, the
same distances given to both: seconds, and how far the heights differ. Compiling is not counted:
a process before, and a small tree before the comparison, do it.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import get_args

import numpy as np
from bench_clustering import made_up
from bench_rerank import peak
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

from reidkit.evaluation import pairwise
from reidkit.unsupervised import identity_tree
from reidkit.unsupervised.identity_tree import IdentityTree
from reidkit.unsupervised.linkage import Linkage, agglomerate

NEIGHBOURS = 30


def measured(linkage: Linkage, samples: int, dim: int, seed: int) -> dict[str, float]:
    """Run in a process of its own: seconds, megabytes and quality of one tree."""
    # Compiled, and libraries imported.
    IdentityTree.build(made_up(600, 16, 0), linkage=linkage, neighbours=NEIGHBOURS)
    features = made_up(samples, dim, seed)
    parts: dict[str, float] = {"before_MB": peak()}
    nearest = identity_tree.nearest_pairs

    def timed(*args: object) -> csr_matrix:
        start = time.perf_counter()
        graph = nearest(*args)
        parts.update(graph=time.perf_counter() - start, pairs=graph.nnz, graph_MB=peak())
        return graph

    identity_tree.nearest_pairs = timed
    start = time.perf_counter()
    tree = IdentityTree.build(features, linkage=linkage, neighbours=min(NEIGHBOURS, samples - 2))
    whole = time.perf_counter() - start
    parts |= {"tree": whole - parts["graph"], "MB": peak()}
    identities = len(features.pids.unique())
    start = time.perf_counter()
    labels = tree.cut(by="silhouette")
    parts |= {"cut": time.perf_counter() - start, "clusters": int(labels.max()) + 1}
    told = pairwise(tree.cut(clusters=identities), features.pids)
    return parts | {
        "identities": identities,
        "precision": told.precision,
        "recall": told.recall,
        "cut_MB": peak(),
    }


def apart(linkage: Linkage, samples: int, dim: int, seed: int) -> dict[str, float]:
    """`measured` in a new process."""
    sizes = ["--samples", str(samples), "--dim", str(dim), "--seed", str(seed)]
    command = [sys.executable, __file__, "--measure", "--linkage", linkage, *sizes]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def compare(linkage: Linkage, samples: int, dim: int, seed: int) -> None:
    """Print how long both take for all pairs of so many samples, and how far they differ."""
    units = made_up(samples, dim, seed).vectors.double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    distances = pdist(units)
    if linkage != "ward":
        distances = distances**2 / 2
    start = time.perf_counter()
    expected = scipy_linkage(distances, linkage)
    scipy_seconds = time.perf_counter() - start
    square = squareform(distances, checks=False)
    farthest = distances.max()
    few = csr_matrix(square[:50, :50])
    agglomerate(few, linkage=linkage, absent=farthest, vectors=units[:50])  # compiled here
    graph = csr_matrix(square)
    start = time.perf_counter()
    merges, heights = agglomerate(graph, linkage=linkage, absent=farthest, vectors=units)
    seconds = time.perf_counter() - start
    different = (merges != np.sort(expected[:, :2].astype(int), axis=1)).any(1).sum()
    far = (np.abs(heights - expected[:, 2]) / expected[:, 2]).max()
    print(
        f"all pairs of {samples:,}: SciPy {scipy_seconds:.2f} s, reidkit {seconds:.2f} s "
        f"({seconds / scipy_seconds:.1f} x); {different} merges differ, heights by up to {far:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--linkage", choices=get_args(Linkage), default="average")
    parser.add_argument("--check", type=int, default=5000, help="0 leaves the comparison out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.samples < 3 or arguments.dim < 1 or arguments.check < 0 or arguments.check == 1:
        parser.error("samples are at least 3, dim at least 1, check 0 or at least 2")
    if arguments.check and arguments.linkage == "buc":
        parser.error("SciPy has no buc: add --check 0")
    sizes = arguments.samples, arguments.dim, arguments.seed
    if arguments.measure:
        print(json.dumps(measured(arguments.linkage, *sizes)))
        return
    print(f"{sizes[0]:,} x {sizes[1]}, {arguments.linkage} linkage, {NEIGHBOURS} neighbours")
    apart(arguments.linkage, 600, 16, 0)
    found = apart(arguments.linkage, *sizes)
    print(
        f"graph {found['graph']:.1f} s, {found['pairs']:,.0f} pairs, {found['graph_MB']:,.0f} MB; "
        f"tree {found['tree']:.1f} s; peak {found['MB']:,.0f} MB, of which "
        f"{found['before_MB']:,.0f} features and libraries\n"
        f"cut at the {found['identities']:,.0f} identities: precision {found['precision']:.3f}, "
        f"recall {found['recall']:.3f}; by silhouette {found['clusters']:,.0f} clusters in "
        f"{found['cut']:.1f} s, peak {found['cut_MB']:,.0f} MB",
        flush=True,
    )
    if arguments.check:
        compare(arguments.linkage, arguments.check, *sizes[1:])


if __name__ == "__main__":
    main()
