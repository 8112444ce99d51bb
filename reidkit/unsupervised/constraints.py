"""What is known before anything is learned: which samples cannot be one identity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_GROUP = -1


@dataclass(frozen=True)
class CannotLink:
    """Which of N samples are two identities for certain.

    groups (N,) int64: two samples of one group are two identities, -1 is in no group (the tracklets
    of one camera, where each shows somebody else). pairs (M, 2) int64: these two are (tracklets
    that overlap in time). Raises ValueError for other shapes and for positions outside [0, N).
    """

    groups: NDArray[np.int64]
    pairs: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.groups.ndim != 1 or self.pairs.ndim != 2 or self.pairs.shape[1] != 2:
            raise ValueError(
                f"groups of shape {self.groups.shape} and pairs of shape {self.pairs.shape}; "
                "expected (N,) and (M, 2)"
            )
        if self.pairs.size and not 0 <= self.pairs.min() <= self.pairs.max() < len(self):
            raise ValueError(
                f"pairs name positions {self.pairs.min()} to {self.pairs.max()}; expected within "
                f"the {len(self)} samples"
            )
        if (self.pairs[:, 0] == self.pairs[:, 1]).any():
            same = int(self.pairs[self.pairs[:, 0] == self.pairs[:, 1]][0, 0])
            raise ValueError(f"pairs name sample {same} with itself, which is one identity")

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def nothing(cls, count: int) -> "CannotLink":
        """No constraint among so many samples."""
        return cls(np.full(count, NO_GROUP, np.int64), np.empty((0, 2), np.int64))

    def broken_by(self, labels: NDArray[np.integer]) -> int:
        """How many linked pairs of a labelling (N,) are forbidden; -1 links nobody."""
        first, second = labels[self.pairs[:, 0]], labels[self.pairs[:, 1]]
        broken = int(((first == second) & (first >= 0)).sum())
        known = (self.groups >= 0) & (labels >= 0)
        _, counts = np.unique(
            np.stack([self.groups[known], labels[known]]), axis=1, return_counts=True
        )
        return broken + int((counts * (counts - 1) // 2).sum())
