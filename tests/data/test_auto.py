import pytest
import torch
from torchvision.transforms import v2

from reidkit.data.auto import POLICIES, auto_augment

DIRECTED = {"rotate", "shear", "color", "contrast", "sharpness"}


def pictures(frames=2, seed=0):
    """Smooth pictures, so that a rounding of one angle moves few pixels."""
    random = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (frames, 3, 5, 4), dtype=torch.uint8, generator=random)
    return v2.functional.resize(small, [40, 20])


def chances_of_torchvision(seed):
    """What torchvision's own class draws with this seed, in the order that ours takes it."""
    random = torch.Generator().manual_seed(seed)
    policy = int(torch.randint(len(POLICIES), (), generator=random))
    chances = [(policy + 0.5) / len(POLICIES)]
    for operation in POLICIES[policy]:
        happens = float(torch.rand((), generator=random))
        sign = 0.0
        if happens < operation.probability and operation.name in DIRECTED:
            sign = 0.2 if torch.rand((), generator=random) <= 0.5 else 0.8
        chances += [happens, sign]
    return chances


def test_it_equals_torchvisions_auto_augment_given_its_draws():
    reference = v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)
    clip = pictures()
    policies = set()
    for seed in range(150):
        chances = chances_of_torchvision(seed)
        policies.add(int(chances[0] * len(POLICIES)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = reference(clip)
        changed = auto_augment(clip, chances)
        assert changed.dtype == torch.uint8
        different = (changed.int() - expected.int()).abs() > 1
        assert different.float().mean() < 0.05, POLICIES[int(chances[0] * len(POLICIES))]
    assert policies == set(range(len(POLICIES)))


def test_all_frames_get_the_same_operations():
    still = pictures(1).expand(3, -1, -1, -1).contiguous()
    for policy in range(len(POLICIES)):
        changed = auto_augment(still, [(policy + 0.5) / len(POLICIES), 0.0, 0.2, 0.0, 0.9])
        assert torch.equal(changed, changed[:1].expand_as(changed))


def test_it_neither_reads_nor_moves_the_global_random_state():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = auto_augment(pictures(), [0.7, 0.1, 0.2, 0.1, 0.9])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(first, auto_augment(pictures(), [0.7, 0.1, 0.2, 0.1, 0.9]))


@pytest.mark.parametrize("chance", [0.0, 0.999999])
def test_the_ends_of_the_interval_are_policies_too(chance):
    assert auto_augment(pictures(), [chance, 0.99, 0.5, 0.99, 0.5]).shape == (2, 3, 40, 20)
