"""When the tracklets of the synthetic street were taken: people pass each camera one by one."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from reidkit.types import Sample

BETWEEN = 30.0  # seconds from one person to the next before a camera, on average
BREAK = (0.5, 3.0)  # seconds for which the tracker loses somebody between two tracklets
NUMBER = re.compile(r"T(\d+)F\d+\.")


def timed(samples: Sequence[Sample], *, seed: int, step: float) -> tuple[Sample, ...]:
    """The samples with their spans, in seconds; `step` is the time from frame to frame.

    Somebody (a pid) passes a camera once; the tracklets of one pass follow one another, and people
    come at random (exponential gaps), so that some overlap. Distractors come each alone.
    """
    passes: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, sample in enumerate(samples):
        number = _number(sample)
        alone = number if sample.pid < 1 else 0
        passes[sample.camid][sample.pid, alone].append(place)
    spans: dict[int, tuple[float, float]] = {}
    for camid, people in sorted(passes.items()):
        rng = np.random.default_rng((seed, 13, camid))
        clock = 0.0
        for key in [sorted(people)[who] for who in rng.permutation(len(people))]:
            clock += rng.exponential(BETWEEN)
            begin = clock
            for place in sorted(people[key], key=lambda place: _number(samples[place])):
                end = begin + step * (len(samples[place].frames) - 1)
                spans[place] = (round(begin, 2), round(end, 2))
                begin = end + rng.uniform(*BREAK)
    return tuple(replace(sample, span=spans[place]) for place, sample in enumerate(samples))


def _number(sample: Sample) -> int:
    found = NUMBER.search(PurePath(sample.frames[0]).name)
    assert found is not None, "names are MARS' names"
    return int(found[1])
