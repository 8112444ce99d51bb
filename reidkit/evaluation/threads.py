"""Work on all cores: many pieces, a thread a core, each multiplying by itself."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
SMALL = 2**26  # multiplications below which starting threads does not pay


def in_threads(items: Iterable[Item], work: Callable[[Item], None], effort: float) -> None:
    """work(item) for all items, on as many threads as torch may use; the first error is raised.

    Each thread multiplies by itself: one product on one core and what is made of it while it is in
    that core's cache, instead of one product on all cores and a wait. `effort` is the number of
    multiplications; for a small one the caller's thread does it all.
    """
    threads = torch.get_num_threads()
    if threads == 1 or effort < SMALL:
        for item in items:
            work(item)
        return
    source, taking = iter(items), Lock()

    def serve() -> None:
        while True:
            with taking:
                try:
                    item = next(source)
                except StopIteration:
                    return
            work(item)

    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(serve) for _ in range(threads)]:
            done.result()


def even_parts(count: int, rows: int, threads: int) -> list[tuple[int, int]]:
    """Start and stop of parts of at most `rows`, so many that every thread gets as many."""
    number = -(-count // rows)
    number = min(count, -(-number // threads) * threads)
    edges = [count * i // number for i in range(number + 1)]
    return list(pairwise(edges))


@cache
def _blas() -> Any:
    # Looking through the process's libraries takes some milliseconds.
    return ThreadpoolController()
