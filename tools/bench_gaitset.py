"""A training step of reidkit's GaitSet against a literal one, in one run.

    OMP_NUM_THREADS=2 python tools/bench_gaitset.py
    python tools/bench_gaitset.py --sequences 8 16 --frames 30 --repeats 3       # the paper's batch

A step is forward, batch-all triplet loss over 62 strips, backward and Adam. The literal side says
what the paper says, line by line: contiguous maps, all frames at once, a loop over the pyramid's
scales and its linear maps, a loop over the strips' losses. Both start from the same weights and
must give the same loss in every repeat. Their steps take turns, so that a disturbance hits both.
"""

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses import PartTripletLoss
from reidkit.models import GaitSet

MARGIN = 0.2
SCALES = (1, 2, 4, 8, 16)


class LiteralGaitSet(nn.Module):
    """The network of Chao et al., AAAI 2019, as its figure reads."""

    def __init__(self, low: int = 32, middle: int = 64, high: int = 128, dim: int = 256) -> None:
        super().__init__()
        self.set1 = nn.Conv2d(1, low, 5, padding=2, bias=False)
        self.set2 = nn.Conv2d(low, low, 3, padding=1, bias=False)
        self.set3 = nn.Conv2d(low, middle, 3, padding=1, bias=False)
        self.set4 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.set5 = nn.Conv2d(middle, high, 3, padding=1, bias=False)
        self.set6 = nn.Conv2d(high, high, 3, padding=1, bias=False)
        self.global1 = nn.Conv2d(low, middle, 3, padding=1, bias=False)
        self.global2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.global3 = nn.Conv2d(middle, high, 3, padding=1, bias=False)
        self.global4 = nn.Conv2d(high, high, 3, padding=1, bias=False)
        self.maps = nn.ParameterList(torch.zeros(high, dim) for _ in range(62))

    def forward(self, frames: Tensor) -> Tensor:
        """frames (B, T, 1, H, W) -> (B, 62, dim)."""
        batch, length = frames.shape[:2]

        def over_set(x: Tensor) -> Tensor:
            return x.view(batch, length, *x.shape[1:]).max(1)[0]

        x = F.leaky_relu(self.set1(frames.flatten(0, 1)), 0.01)
        x = F.leaky_relu(self.set2(x), 0.01)
        x = F.max_pool2d(x, 2)
        whole = F.leaky_relu(self.global1(over_set(x)), 0.01)
        whole = F.leaky_relu(self.global2(whole), 0.01)
        whole = F.max_pool2d(whole, 2)
        x = F.leaky_relu(self.set3(x), 0.01)
        x = F.leaky_relu(self.set4(x), 0.01)
        x = F.max_pool2d(x, 2)
        whole = F.leaky_relu(self.global3(whole + over_set(x)), 0.01)
        whole = F.leaky_relu(self.global4(whole), 0.01)
        x = F.leaky_relu(self.set5(x), 0.01)
        x = F.leaky_relu(self.set6(x), 0.01)
        x = over_set(x)
        whole = whole + x
        strips = []
        for end in (x, whole):
            for scale in SCALES:
                cells = end.view(batch, end.shape[1], scale, -1)
                pooled = cells.mean(3) + cells.max(3)[0]
                strips += [pooled[:, :, place] for place in range(scale)]
        vectors = [strip @ weight for strip, weight in zip(strips, self.maps, strict=True)]
        return torch.stack(vectors, 1)


def literal_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Batch-all+ of every strip in turn, over all pairs of a positive and a negative."""
    same = labels[:, None] == labels[None, :]
    losses = []
    for part in range(embeddings.shape[1]):
        x = embeddings[:, part]
        squares = (x * x).sum(1)
        square = squares[:, None] + squares[None, :] - 2 * x @ x.t()
        distance = torch.sqrt(F.relu(square) + 1e-12)
        gaps = distance[:, :, None] - distance[:, None, :]  # (anchor, positive, negative)
        terms = F.relu(MARGIN + gaps[same[:, :, None] & ~same[:, None, :]])
        count = (terms > 0).sum()
        losses.append(terms.sum() / count if count else terms.sum())
    return torch.stack(losses).mean()


def copy_weights(source: GaitSet, target: LiteralGaitSet) -> None:
    """Give the literal network reidkit's weights."""
    theirs = dict(target.named_parameters())
    with torch.no_grad():
        for name, weight in source.named_parameters():
            if name == "maps.weight":
                for place, part in enumerate(weight):
                    theirs[f"maps.{place}"].copy_(part.t())
            else:
                theirs[name].copy_(weight)


def silhouettes(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Smooth blobs on black, a shape for each identity: frames (B, T, 1, 64, 44), labels (B,)."""
    identities, instances = args.sequences
    source = torch.Generator().manual_seed(args.seed)
    shape = torch.rand(identities, 1, 1, 8, 6, generator=source)
    noise = torch.rand(identities, instances, args.frames, 8, 6, generator=source)
    coarse = (shape + 0.5 * noise).flatten(0, 2)[:, None]
    fine = F.interpolate(coarse, (64, 44), mode="bilinear")
    frames = ((fine - 0.7) * 5).clamp(0, 1)
    labels = torch.arange(identities).repeat_interleave(instances)
    return frames.view(-1, args.frames, 1, 64, 44), labels


def main() -> None:
    """Take turns, check that the losses agree, print medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sequences", type=int, nargs=2, default=[8, 4], metavar=("IDENTITIES", "INSTANCES")
    )
    parser.add_argument("--frames", type=int, default=30, help="a sequence")
    parser.add_argument("--repeats", type=int, default=3, help="after one step to warm up")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    ours, theirs = GaitSet(), LiteralGaitSet()
    copy_weights(ours, theirs)
    frames, labels = silhouettes(args)
    criterion = PartTripletLoss(MARGIN)
    steps = {
        "reidkit": stepper(ours, lambda: criterion(ours(frames).embedding, labels)),
        "literal": stepper(theirs, lambda: literal_loss(theirs(frames), labels)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: list[float] = []
    for turn in range(args.repeats + 1):
        values = {}
        for name in sorted(steps, reverse=bool(turn % 2)):
            clock = time.perf_counter()
            values[name] = steps[name]()
            if turn:
                seconds[name].append(time.perf_counter() - clock)
        apart = abs(values["reidkit"] - values["literal"])
        if apart > 1e-4 * max(1.0, abs(values["literal"])):
            raise SystemExit(f"step {turn}: losses differ: {values}")
        losses.append(values["reidkit"])
    show(args, seconds, losses)


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """A function that does one training step and returns the loss before it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step


def show(args: argparse.Namespace, seconds: dict[str, list[float]], losses: list[float]) -> None:
    """One line a side, then the ratio."""
    identities, instances = args.sequences
    print(
        f"{identities} x {instances} sequences of {args.frames} frames, "
        f"{torch.get_num_threads()} threads; losses agree: "
        f"{', '.join(f'{loss:.5f}' for loss in losses)}"
    )
    for name, each in seconds.items():
        frames = identities * instances * args.frames
        rest = ", ".join(f"{one:.3f}" for one in each)
        print(f"{name:<10}{median(each):>8.3f} s  {frames / median(each):>7.0f} frames/s  ({rest})")
    ratio = median(seconds["literal"]) / median(seconds["reidkit"])
    fastest = min(seconds["literal"]) / min(seconds["reidkit"])
    print(f"ratio     {ratio:>8.2f}    of the fastest steps {fastest:.2f}")
    print(f"peak of both {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main()
