"""Fixtures that several rooms share."""

import os
import sys

import pytest
import torch
from torch import Tensor

from reidkit import cli

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # one worker a core; more threads would only push each other aside


@pytest.fixture
def clustered():
    """Make (embeddings (N, D) float64, labels (N,)): identities as noisy clusters, with a seed."""

    def make(
        identities: int, instances: int, dim: int, seed: int = 0, noise: float = 0.6
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(identities, dim, generator=generator, dtype=torch.float64)
        spread = torch.randn(identities * instances, dim, generator=generator, dtype=torch.float64)
        labels = torch.arange(identities).repeat_interleave(instances)
        return centres[labels] + noise * spread, labels

    return make


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["reidkit", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
