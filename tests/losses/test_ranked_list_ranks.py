"""Ranked list loss over processes: together they see the batch that one process would see."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor
from torch.testing import assert_close

from reidkit.losses import RankedListLoss


def embeddings() -> tuple[Tensor, Tensor]:
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows, torch.arange(12) % 4  # every identity is on both ranks


def gradient_of_rank(rank: int, ranks: int, folder: str, gradient: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    try:
        rows, labels = (part.chunk(ranks)[rank] for part in embeddings())
        rows = rows.clone().requires_grad_()
        loss = DistributedLossWrapper(RankedListLoss(gradient=gradient))
        loss(rows, labels).backward()
        torch.save(rows.grad / ranks, f"{folder}/{rank}.pt")  # DDP takes the mean over ranks
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_a_group_of_one_changes_nothing(tmp_path: Path, gradient: str):
    gradient_of_rank(0, 1, str(tmp_path), gradient)
    rows, labels = embeddings()
    RankedListLoss(gradient=gradient)(rows.requires_grad_(), labels).backward()
    assert_close(torch.load(tmp_path / "0.pt"), rows.grad)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["query", "pair"])
def test_two_processes_move_as_one(tmp_path: Path, gradient: str):
    mp.spawn(gradient_of_rank, args=(2, str(tmp_path), gradient), nprocs=2)
    rows, labels = embeddings()
    RankedListLoss(gradient=gradient)(rows.requires_grad_(), labels).backward()
    together = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    assert_close(together, rows.grad)
