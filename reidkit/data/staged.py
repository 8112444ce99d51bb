"""One loader an epoch, for pictures that grow while training."""

from collections.abc import Iterator, Sequence

from reidkit.data.device import DeviceLoader
from reidkit.types import Batch


class StagedLoader:
    """Loaders that follow one another: (first epoch, loader) pairs in rising order, from epoch 0.

    Small pictures first are cheap epochs in which the coarse is learned (progressive resizing). A
    stage that starts where the next one does never runs. Raises ValueError where the first stage
    does not start at epoch 0 or the order falls.
    """

    def __init__(self, stages: Sequence[tuple[int, DeviceLoader]]) -> None:
        starts = [start for start, _ in stages]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ValueError(f"stages start at epochs {starts}, expected rising numbers from 0")
        self.stages = tuple(stages)
        self.current = self._at(0)

    def _at(self, epoch: int) -> DeviceLoader:
        return [loader for start, loader in self.stages if start <= epoch][-1]

    @property
    def seconds_waiting(self) -> float:
        """Seconds that the consumer waited for data, in all stages together."""
        loaders = {id(loader): loader for _, loader in self.stages}
        return sum(loader.seconds_waiting for loader in loaders.values())

    def set_epoch(self, epoch: int) -> None:
        """Move to the stage of this epoch, and tell its loader; before iterating."""
        self.current = self._at(epoch)
        self.current.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Start the next iteration of the current stage from this batch; after `set_epoch`."""
        self.current.skip(batches)

    def __len__(self) -> int:
        return len(self.current)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.current)
