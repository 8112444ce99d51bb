"""Several gloo processes for a test, joined as torchrun joins them."""

import multiprocessing
import os
import pickle
import time
import traceback
from datetime import timedelta
from multiprocessing import connection

import torch
from torch.distributed import TCPStore

from reidkit import distributed

# The fork server imports these once; a process then starts in a blink and with one thread.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch.nn.parallel", "reidkit.engine", "reidkit.losses", "reidkit.models"]
)


def run(function, *args, world, folder, timeout=120.0):
    """What `function(*args)` returns in each of `world` joined processes, in the order of ranks.

    The function is importable (of a module, no closure); arguments and results travel by pickle
    through `folder`. An AssertionError holds the traceback of every process that failed, and of
    those that were stopped for it or for the time, their ranks.
    """
    # Its port is chosen by the system and taken at once, so that no two tests can meet.
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=timeout))
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(world):
        facts = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is here, not in rank 0
            "OMP_NUM_THREADS": "1",
        }
        target = (function, args, facts, folder / f"{rank}.pickle")
        processes.append(_CONTEXT.Process(target=_work, args=target, daemon=True))
    try:
        for process in processes:
            process.start()
        _wait(processes, time.monotonic() + timeout)
    finally:
        stopped = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for rank in stopped:
            processes[rank].kill()
        for process in processes:
            process.join()
    return _results(processes, folder, stopped, timeout)


def _wait(processes, end):
    """Until all have ended, one has failed, or the time is over."""
    running = {process.sentinel: process for process in processes}
    while running and (left := end - time.monotonic()) > 0:
        for sentinel in connection.wait(list(running), left):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode:
                return


def _results(processes, folder, stopped, timeout):
    found, failures = [], []
    for rank, process in enumerate(processes):
        path = folder / f"{rank}.pickle"
        told = pickle.loads(path.read_bytes()) if path.is_file() else None
        path.unlink(missing_ok=True)
        if told is not None and told[0]:
            found.append(told[1])
        elif told is not None:
            failures.append(f"rank {rank}:\n{told[1]}")
        elif rank not in stopped:
            failures.append(f"rank {rank} ended with code {process.exitcode} and said nothing")
    if stopped:
        failures.append(f"stopped by the test, after at most {timeout:g} s: ranks {stopped}")
    if failures or len(found) < len(processes):
        raise AssertionError("\n".join(failures))
    return found


def _work(function, args, facts, path):
    os.environ.update(facts)
    torch.set_num_threads(1)
    with distributed.joined():
        try:
            told = (True, function(*args))
        except BaseException:
            told = (False, traceback.format_exc())
        # Before the group is left: the others then fail too, and would be the first to be heard.
        path.write_bytes(pickle.dumps(told))
    if not told[0]:
        raise SystemExit(1)
