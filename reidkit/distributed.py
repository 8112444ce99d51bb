"""Facts about the processes that run together, as torchrun tells them."""

import os


def rank() -> int:
    """This process's number, 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes run together, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))
