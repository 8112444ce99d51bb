"""Learning rates as functions of progress in [0, 1): nothing to save, nothing to restore.

A schedule gives the factor on the base rate. Lengths are fractions of the whole training, so a run
of 5 epochs and one of 120 share a config. Plateau alone listens to scores, and so is the only one
with a state.
"""

import math
from collections.abc import Sequence

from reidkit.registry import Registry


class Schedule:
    """Factor on the base learning rate at a progress in [0, 1); with a warm-up if asked."""

    def __init__(self, *, warmup: float = 0.0, warmup_factor: float = 0.01) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup = {warmup} is a fraction of the training, expected in [0, 1)")
        self.warmup = warmup
        self.warmup_factor = warmup_factor

    def __call__(self, progress: float) -> float:
        """The factor; linear from `warmup_factor` while progress < warmup, then `main`."""
        if progress < self.warmup:
            done = progress / self.warmup
            return (self.warmup_factor * (1 - done) + done) * self.main(self.warmup)
        return self.main(progress)

    def main(self, progress: float) -> float:
        """The factor without warm-up."""
        raise NotImplementedError

    def observe(self, score: float) -> None:
        """Hear of a new score (larger is better); only plateau minds."""

    def state_dict(self) -> dict[str, float]:
        """What must survive a resume: nothing, but for plateau."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take back what `state_dict` gave."""


SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register("constant")
class Constant(Schedule):
    """The base rate throughout, after the warm-up."""

    def __init__(self, warmup: float = 0.0, warmup_factor: float = 0.01) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)

    def main(self, progress: float) -> float:
        """1 throughout."""
        return 1.0


@SCHEDULES.register("warmup_multistep")
class WarmupMultistep(Schedule):
    """Times `gamma` at each milestone: the bag-of-tricks schedule (Luo et al., CVPRW 2019, §3.1) by
    its defaults."""

    def __init__(
        self,
        milestones: Sequence[float] = (40 / 120, 70 / 120),
        gamma: float = 0.1,
        warmup: float = 10 / 120,
        warmup_factor: float = 0.01,
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        if any(not 0 < milestone < 1 for milestone in milestones):
            raise ValueError(
                f"milestones {list(milestones)} are fractions of the training, expected in (0, 1)"
            )
        self.milestones = sorted(milestones)
        self.gamma = gamma

    def main(self, progress: float) -> float:
        """gamma ** (milestones passed)."""
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


@SCHEDULES.register("warmup_cosine")
class WarmupCosine(Schedule):
    """Half a cosine from 1 to `final`, over what the warm-up leaves."""

    def __init__(
        self, warmup: float = 0.08, warmup_factor: float = 0.01, final: float = 0.0
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        self.final = final

    def main(self, progress: float) -> float:
        """final + (1 - final) (1 + cos pi t) / 2, with t running from the end of the warm-up."""
        t = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t)) / 2


@SCHEDULES.register("cosine")
class Cosine(WarmupCosine):
    """Half a cosine from 1 to `final`."""

    def __init__(self, final: float = 0.0) -> None:
        super().__init__(warmup=0.0, final=final)


@SCHEDULES.register("one_cycle")
class OneCycle(Schedule):
    """Up along a cosine from 1 / divisor to 1 at `peak`, then down to 1 / (divisor *
    final_divisor).

    Smith and Topin, Super-Convergence, arXiv:1708.07120; the numbers are those of torch's
    OneCycleLR.
    """

    def __init__(
        self, peak: float = 0.3, divisor: float = 25.0, final_divisor: float = 1e4
    ) -> None:
        super().__init__()
        if not 0 < peak < 1:
            raise ValueError(f"peak = {peak} is a fraction of the training, expected in (0, 1)")
        self.peak = peak
        self.start = 1 / divisor
        self.end = 1 / (divisor * final_divisor)

    def main(self, progress: float) -> float:
        """Two half cosines that meet at the peak."""
        if progress < self.peak:
            low, t = self.start, 1 - progress / self.peak
        else:
            low, t = self.end, (progress - self.peak) / (1 - self.peak)
        return low + (1 - low) * (1 + math.cos(math.pi * t)) / 2


@SCHEDULES.register("poly")
class Poly(Schedule):
    """(1 - progress) ** power, after the warm-up."""

    def __init__(
        self, power: float = 0.9, warmup: float = 0.0, warmup_factor: float = 0.01
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        self.power = power

    def main(self, progress: float) -> float:
        """(1 - progress) ** power."""
        return (1 - progress) ** self.power


@SCHEDULES.register("exponential")
class Exponential(Schedule):
    """From 1 to `final` by a constant factor a step."""

    def __init__(
        self, final: float = 0.01, warmup: float = 0.0, warmup_factor: float = 0.01
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        if final <= 0:
            raise ValueError(f"final = {final}: an exponential never reaches it; expected above 0")
        self.final = final

    def main(self, progress: float) -> float:
        """final ** progress."""
        return self.final**progress


@SCHEDULES.register("step")
class Step(Schedule):
    """Times `gamma` every `every` of the training."""

    def __init__(
        self,
        every: float = 1 / 3,
        gamma: float = 0.1,
        warmup: float = 0.0,
        warmup_factor: float = 0.01,
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        if not 0 < every <= 1:
            raise ValueError(f"every = {every} is a fraction of the training, expected in (0, 1]")
        self.every = every
        self.gamma = gamma

    def main(self, progress: float) -> float:
        """gamma ** (whole intervals passed)."""
        # 40/120 divided by 1/3 may come out as 0.9999...; a step must not arrive an iteration late
        # for that.
        return self.gamma ** math.floor(progress / self.every + 1e-9)


@SCHEDULES.register("plateau")
class Plateau(Schedule):
    """Times `gamma` when the score has not risen by `threshold` for more than `patience`
    evaluations."""

    def __init__(
        self,
        patience: int = 3,
        gamma: float = 0.1,
        threshold: float = 1e-4,
        warmup: float = 0.0,
        warmup_factor: float = 0.01,
    ) -> None:
        super().__init__(warmup=warmup, warmup_factor=warmup_factor)
        self.patience = patience
        self.gamma = gamma
        self.threshold = threshold
        self.factor = 1.0
        self.best = -math.inf
        self.waited = 0

    def main(self, progress: float) -> float:
        """The factor that the scores so far have led to."""
        return self.factor

    def observe(self, score: float) -> None:
        """Count an evaluation; lower the rate when patience is at its end."""
        if score > self.best + self.threshold:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * self.gamma, 0

    def state_dict(self) -> dict[str, float]:
        """Factor, best score and evaluations waited."""
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict`."""
        self.factor, self.best, self.waited = state["factor"], state["best"], int(state["waited"])
