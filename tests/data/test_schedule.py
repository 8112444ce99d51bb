from collections import defaultdict
from itertools import pairwise

from reidkit.data.synthetic.schedule import BREAK, timed
from reidkit.types import Sample


def walk(pid, camid, number, frames=12):
    names = tuple(f"{pid:04d}C{camid + 1}T{number:04d}F{n:03d}.jpg" for n in range(1, frames + 1))
    return Sample(names, pid, camid)


SAMPLES = [walk(pid, cam, number) for pid in range(1, 40) for cam in (0, 1) for number in (1, 2)]


def test_tracklets_of_one_pass_follow_one_another_within_the_break_of_a_tracker():
    spans = defaultdict(list)
    for sample in timed(SAMPLES, seed=0, step=0.12):
        spans[sample.pid, sample.camid].append(sample.span)
    for (_, end), (begin, last) in spans.values():
        assert BREAK[0] <= begin - end + 0.02 and begin - end <= BREAK[1] + 0.02
        assert abs(last - begin - 11 * 0.12) < 0.011


def test_times_are_the_seeds_and_do_not_depend_on_the_order_of_samples():
    one = {sample.frames: sample.span for sample in timed(SAMPLES, seed=0, step=0.12)}
    turned = {sample.frames: sample.span for sample in timed(SAMPLES[::-1], seed=0, step=0.12)}
    other = {sample.frames: sample.span for sample in timed(SAMPLES, seed=1, step=0.12)}
    assert one == turned != other


def test_people_come_one_by_one_and_distractors_each_alone():
    distractors = [walk(0, 0, number) for number in range(1, 30)]
    begins = sorted(sample.span[0] for sample in timed(distractors, seed=0, step=0.1))
    gaps = [later - sooner for sooner, later in pairwise(begins)]
    assert min(gaps) > 0 and 10 < sum(gaps) / len(gaps) < 90
