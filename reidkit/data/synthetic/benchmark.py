"""The synthetic world as a benchmark: rendered once into a folder, then read like Market-1501."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from reidkit.data.adapters.market1501 import read_layout
from reidkit.data.benchmarks import BENCHMARKS, settle
from reidkit.data.synthetic.market import DEFAULTS, write_market
from reidkit.types import Benchmark, CheckLevel

logger = logging.getLogger(__name__)

# Part of the folder's name: raise it when the same arguments give other pictures, so that none are
# mixed up.
WORLD = 1


@BENCHMARKS.register("synthetic")
def load(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train_identities: int = DEFAULTS.train_identities,
    test_identities: int = DEFAULTS.test_identities,
    cameras: int = DEFAULTS.cameras,
    images: int = DEFAULTS.images,
    seed: int = 0,
    size: tuple[int, int] = DEFAULTS.size,
) -> Benchmark:
    """Procedural people before procedural cameras; what `write_market` makes of the arguments."""
    height, width = size
    name = (
        f"synthetic-v{WORLD}-{train_identities}+{test_identities}"
        f"-c{cameras}-i{images}-{height}x{width}-s{seed}"
    )

    def write(out: Path) -> None:
        write_market(
            out,
            train_identities=train_identities,
            test_identities=test_identities,
            cameras=cameras,
            images=images,
            seed=seed,
            size=size,
        )

    return settle(read_layout(rendered(root, name, write), name="synthetic"), check)


def rendered(root: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The folder `name` in `root`, made by `write` where it is not there yet.

    `write` gets a path that does not exist, in a temporary folder, so that an interrupted run
    leaves nothing half-written and two at once do not disturb each other.
    """
    folder = Path(root) / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("rendering %s", folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        write(temporary / name)
        try:
            os.rename(temporary / name, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same files
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
