"""Small models run fastest on one thread, the more so beside other tests."""

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """One torch thread for this folder, and what was set before for the others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
