"""Where torch's random numbers stand, on every process."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reidkit import distributed


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Where the draws of this process stand: on the host, and on the device if it is CUDA."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def set_random_state(device: torch.device, host: Tensor, cuda: Tensor | None) -> None:
    """Go on drawing where `random_state` was asked."""
    torch.set_rng_state(host)
    if cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda, device)


def set_own_state(
    device: torch.device, host: Sequence[Tensor], cuda: Sequence[Tensor | None]
) -> None:
    """Go on where this rank stood, one entry a rank.

    A rank that was not there then starts from a seed that follows from the first rank's state: the
    same whenever one resumes from it, and another one for each rank.
    """
    rank = distributed.rank()
    if rank < len(host):
        set_random_state(device, host[rank], cuda[rank])
        return
    first = torch.Generator()
    first.set_state(host[0])
    seeds = torch.randint(2**62, (rank + 1,), generator=first)
    torch.manual_seed(int(seeds[rank]))
