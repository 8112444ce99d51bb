"""The rank of every right answer: counted, never sorted, in blocks of queries."""

import re

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.evaluation.candidates import Candidates, Choice, Columns
from reidkit.evaluation.scoring import Scorer
from reidkit.types import EvalProtocol, Features, Hits, Metric

LARGEST_BLOCK = 256  # a larger block makes the product no faster
BYTES_A_SCORE = 8


@torch.no_grad()
def find_hits(
    query: Features,
    gallery: Features,
    protocol: EvalProtocol,
    *,
    metric: Metric = "cosine",
    memory: str | int = "512MB",
) -> Hits:
    """Ranks of all right answers of all queries, exactly.

    A right answer ranks behind every wrong one at the same distance, whatever the order of the
    gallery. Scores are float64; what rounding there cannot tell apart is the same distance.

    Args:
        query: vectors (Q, D).
        gallery: vectors (G, D); may be the query itself (leave-one-out). Items with pid -1 are junk
            and left out.
        protocol: which gallery items count for a query.
        metric: cosine (vectors are normalised here) or euclidean.
        memory: bound on the scores held at a time, bytes or "512MB"; one row of G is the least. A
            float64 copy of the gallery's vectors comes on top.

    Raises:
        ValueError: an empty side, different dimensions, a feature that is not finite (with its
            sample's name), or a gallery without a right answer for any query.
    """
    candidates = Candidates(query, gallery, protocol)
    rows = block_rows(len(gallery), memory)
    scorer = Scorer(query, gallery, metric)
    ranks: list[Columns] = []
    tied = np.zeros(len(query), dtype=bool)
    excluded = np.zeros(len(query), dtype=np.int64)
    for start, scores in scorer.blocks(rows):
        for q, row in enumerate(scores.cpu().numpy(), start):
            choice = candidates.of(q)
            found, tied[q] = _ranks(row, choice, scorer.tie)
            ranks.append(found)
            excluded[q] = choice.excluded.size
    if not any(found.size for found in ranks):
        raise ValueError(
            f"no query has a right answer in the gallery (left out: {protocol.exclude}); "
            "check that pids and camids of both sides belong together"
        )
    offsets = np.cumsum([0, *(found.size for found in ranks)])
    return Hits(
        ranks=torch.from_numpy(np.concatenate(ranks)),
        offsets=torch.from_numpy(offsets),
        candidates=torch.from_numpy(len(gallery) - excluded),
        tied=torch.from_numpy(tied),
    )


def block_rows(columns: int, memory: str | int) -> int:
    """How many rows of `columns` scores fit into `memory` (bytes, or text as "512MB", "2GB"); at
    least 1.
    """
    units = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B)?\s*", str(memory), re.IGNORECASE)
    size = float(match[1]) * units[(match[2] or "").upper()] if match else 0
    if size <= 0:
        raise ValueError(f"memory = {memory!r}: expected a positive size such as '512MB', or bytes")
    return int(min(max(size // (BYTES_A_SCORE * columns), 1), LARGEST_BLOCK))


def _ranks(row: NDArray[np.float64], choice: Choice, tie: float) -> tuple[Columns, bool]:
    """Ascending 1-based ranks of the right answers (R,), and whether a tie decided about the first
    of them.

    row (G,) holds the scores of one query and is written into.
    """
    right = np.sort(row[choice.right])
    if not right.size:
        return np.empty(0, np.int64), False
    row[choice.right] = -np.inf
    row[choice.excluded] = -np.inf
    # A wrong answer below the lowest right one moves no rank: with a good model that is nearly all
    # of them.
    wrong = row[row >= right[0] - tie]
    # Each wrong answer beats the right ones it reaches, the lowest `reached` of them; a tally from
    # the top then says for every right answer by how many it is beaten.
    reached = np.searchsorted(right, wrong + tie, side="right")
    steps = np.bincount(reached, minlength=len(right) + 1)
    closer = steps[::-1].cumsum()[:-1]  # from the best right answer to the worst
    tied = bool((np.abs(wrong - right[-1]) <= tie).any())
    return closer + np.arange(1, len(closer) + 1), tied
