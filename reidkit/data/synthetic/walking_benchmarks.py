"""The synthetic walks as benchmarks: rendered once into a folder, then read like the real sets."""

from dataclasses import replace
from pathlib import Path

from reidkit.data.adapters import mars as layout
from reidkit.data.adapters.casia_b import GALLERY, PROBES
from reidkit.data.benchmarks import BENCHMARKS, Reading, settle
from reidkit.data.silhouettes.store import SilhouetteStore, store_samples
from reidkit.data.synthetic import casia_b, mars
from reidkit.data.synthetic.benchmark import rendered
from reidkit.data.synthetic.schedule import timed
from reidkit.types import Benchmark, CheckLevel, EvalProtocol, Sample

# Parts of the folders' names: raise one when the same arguments give other pictures.
ROOM = 1
STREET = 1


@BENCHMARKS.register("synthetic_casia_b")
def load_casia_b(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train_subjects: int = casia_b.DEFAULTS.train_subjects,
    test_subjects: int = casia_b.DEFAULTS.test_subjects,
    frames: int = casia_b.DEFAULTS.frames,
    views: int = casia_b.DEFAULTS.views,
    seed: int = 0,
) -> Benchmark:
    """Procedural walks as silhouettes, under the protocol of CASIA-B; see `write_casia_b_store`."""
    name = f"synthetic_casia_b-v{ROOM}-{train_subjects}+{test_subjects}-f{frames}-w{views}-s{seed}"

    def write(out: Path) -> None:
        casia_b.write_casia_b_store(
            out,
            train_subjects=train_subjects,
            test_subjects=test_subjects,
            frames=frames,
            views=views,
            seed=seed,
        )

    store = SilhouetteStore.open(rendered(root, name, write))
    samples = store_samples(store, "synthetic_casia_b")
    train = tuple(sample for sample in samples if sample.pid <= train_subjects)
    test = [sample for sample in samples if sample.pid > train_subjects]
    groups = PROBES["casia_b"]
    probes = {condition for conditions in groups.values() for condition in conditions}
    return settle(
        Reading(
            "synthetic_casia_b",
            train,
            tuple(sample for sample in test if sample.condition in probes),
            tuple(sample for sample in test if sample.condition in GALLERY["casia_b"]),
            EvalProtocol("same_view", report=("gait_table",), groups=groups),
        ),
        check,
    )


@BENCHMARKS.register("synthetic_mars")
def load_mars(
    root: Path,
    check: CheckLevel = "strict",
    *,
    train_identities: int = mars.DEFAULTS.train_identities,
    test_identities: int = mars.DEFAULTS.test_identities,
    cameras: int = mars.DEFAULTS.cameras,
    tracklets: int = mars.DEFAULTS.tracklets,
    frames: int = mars.DEFAULTS.frames,
    seed: int = 0,
    size: tuple[int, int] = mars.DEFAULTS.size,
    protocol: layout.Protocol = "mars",
) -> Benchmark:
    """Procedural tracklets under the protocols of MARS; see `write_mars`.

    They have times (`Sample.span`, in seconds): see `timed`.
    """
    name = (
        f"synthetic_mars-v{STREET}-{train_identities}+{test_identities}-c{cameras}"
        f"-t{tracklets}-f{frames}-{size[0]}x{size[1]}-s{seed}"
    )

    def write(out: Path) -> None:
        mars.write_mars(
            out,
            train_identities=train_identities,
            test_identities=test_identities,
            cameras=cameras,
            tracklets=tracklets,
            frames=frames,
            seed=seed,
            size=size,
        )

    folder = rendered(root, name, write)
    reading = layout.read(folder, protocol=protocol)
    # This world has its own numbers, so their difference from the published ones says nothing.
    counted = layout.compare(layout.read_tracks(folder / "info"))
    # One timetable for both sides: queries may be in the gallery, too.
    test = sorted({*reading.query, *reading.gallery}, key=lambda sample: sample.frames[0])
    times = dict(zip(test, timed(test, seed=seed, step=mars.STEP), strict=True))
    return settle(
        Reading(
            "synthetic_mars",
            renamed(timed(reading.train, seed=seed, step=mars.STEP)),
            renamed(tuple(times[sample] for sample in reading.query)),
            renamed(tuple(times[sample] for sample in reading.gallery)),
            reading.protocol,
            tuple(finding for finding in reading.findings if finding not in counted),
        ),
        check,
    )


def renamed(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples as those of this world."""
    return tuple(replace(sample, domain="synthetic_mars") for sample in samples)
