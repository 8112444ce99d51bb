"""What is wrong with a data folder: all of it at once, with the way out."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reidkit.data.benchmarks import Finding, Reading, examples, read_benchmark
from reidkit.data.frames import read_image
from reidkit.types import EvalProtocol, Sample, StoredFrames


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a split holds."""

    identities: int
    samples: int
    images: int
    cameras: int


@dataclass(frozen=True, slots=True)
class Report:
    """What `check_benchmark` found; `decoded` images were opened."""

    name: str
    root: str
    findings: tuple[Finding, ...]
    counts: Mapping[str, Counts]
    decoded: int

    @property
    def ok(self) -> bool:
        """Whether nothing found is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def text(self) -> str:
        """The report for a person: counts, then findings from errors to notes, and a verdict."""
        lines = [f"{self.name} in {self.root}", ""]
        lines += [f"{'split':<9}{'identities':>12}{'samples':>10}{'images':>10}{'cameras':>9}"]
        for split, count in self.counts.items():
            numbers = f"{count.identities:>12,}{count.samples:>10,}{count.images:>10,}"
            lines.append(f"{split:<9}{numbers}{count.cameras:>9,}")
        lines.append("")
        for severity in ("error", "warning", "note"):
            for finding in self.findings:
                if finding.severity == severity:
                    lines.append(f"{severity}: {finding.what}.")
                    lines += [f"    {place}" for place in finding.where]
                    lines += [f"    -> {finding.remedy}"] if finding.remedy else []
        tally = Counter(finding.severity for finding in self.findings)
        opened = f"{self.decoded:,} images opened" if self.decoded else "no image opened"
        lines.append(f"{tally['error']} errors, {tally['warning']} warnings; {opened}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "root": self.root,
            "ok": self.ok,
            "decoded": self.decoded,
            "counts": {split: asdict(count) for split, count in self.counts.items()},
            "findings": [
                {
                    "severity": finding.severity,
                    "what": finding.what,
                    "where": list(finding.where),
                    "remedy": finding.remedy,
                }
                for finding in self.findings
            ],
        }


def check_benchmark(
    name: str,
    root: str | Path,
    *,
    decode: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    args: Mapping[str, Any] | None = None,
) -> Report:
    """Everything wrong with the benchmark `name` under `root`.

    `decode` opens every image in `workers` threads (one a core by default) and calls
    `progress(done, all)` now and then, in this thread. `args` go to the adapter. Raises ValueError
    only for an unknown name or argument: what is wrong with the data is in the report.
    """
    reading = read_benchmark(name, root, args)
    findings = list(reading.findings)
    findings += train_findings(reading.train)
    findings += test_findings(reading.query, reading.gallery, reading.protocol)
    findings += [] if reading.closed_set else leaks(reading)
    splits = {"train": reading.train, "query": reading.query, "gallery": reading.gallery}
    # A packed store is compared with its own list when it is opened; there are no files to decode.
    loose = (
        sample
        for split in splits.values()
        for sample in split
        if not isinstance(sample.frames, StoredFrames)
    )
    files = sorted({file for sample in loose for file in sample.frames})
    if decode:
        findings += unreadable(files, workers or os.cpu_count() or 1, progress)
    counts = {split: count_split(samples) for split, samples in splits.items()}
    return Report(name, str(root), tuple(findings), counts, len(files) if decode else 0)


def count_split(samples: Sequence[Sample]) -> Counts:
    """Identities (distractors together as one), samples, images and cameras."""
    return Counts(
        len({(sample.domain, sample.pid) for sample in samples}),
        len(samples),
        sum(len(sample.frames) for sample in samples),
        len({(sample.domain, sample.camid) for sample in samples}),
    )


def train_findings(train: Sequence[Sample]) -> Iterator[Finding]:
    """Training identities with a single sample: they give no positive pair."""
    tally = Counter((sample.domain, sample.pid) for sample in train if sample.pid >= 0)
    lonely = [sample.name for sample in train if tally[sample.domain, sample.pid] == 1]
    if lonely:
        what = f"{len(lonely):,} training identities have one image"
        remedy = "Add images or leave them out; in P x K batches the one image is repeated."
        yield Finding("warning", what, remedy, examples(lonely))


def test_findings(
    query: Sequence[Sample], gallery: Sequence[Sample], protocol: EvalProtocol
) -> Iterator[Finding]:
    """Queries left without a right answer, and query files that are also in the gallery.

    Queries of unknown identity (pid -1) are those of a benchmark that keeps its answers.
    """
    hidden = sum(sample.pid < 0 for sample in query)
    if hidden:
        yield Finding("note", f"{hidden:,} queries have no identity: they cannot be scored here")
    query = [sample for sample in query if sample.pid >= 0]
    answers: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in gallery:
        answers[sample.domain, sample.pid].append(sample)
    unseen = [
        sample
        for sample in query
        if not any(
            is_answer(sample, other, protocol) for other in answers[sample.domain, sample.pid]
        )
    ]
    if unseen:
        reasons = {"same_camera": "that no other camera saw", "same_view": "without another view"}
        reason = reasons.get(protocol.exclude, "without another image in the gallery")
        people = len({(sample.domain, sample.pid) for sample in unseen})
        everyone = len(unseen) == len(query)
        what = f"{len(unseen):,} of {len(query):,} queries, of {people:,} identities {reason}"
        remedy = "They have no right answer and are not scored: add gallery images, or drop them."
        if everyone:
            remedy = "No query can be scored: check identities and cameras of query and gallery."
        where = examples(sample.name for sample in unseen)
        yield Finding("error" if everyone else "warning", what, remedy, where)
    if protocol.exclude == "nothing":
        there = {file for sample in gallery for file in sample.frames}
        twice = [sample.name for sample in query if there.intersection(sample.frames)]
        if twice:
            what = f"{len(twice):,} queries are in the gallery too, and would find themselves"
            remedy = "Take them out of one of the two, or use one split 'test' for both."
            yield Finding("error", what, remedy, examples(twice))


def is_answer(query: Sample, answer: Sample, protocol: EvalProtocol) -> bool:
    """Whether the protocol keeps this answer of the query's own identity."""
    match protocol.exclude:
        case "same_camera":
            return answer.camid != query.camid
        case "same_view":
            return answer.view != query.view
        case "itself":
            return answer.frames != query.frames
        case _:
            return True


def leaks(reading: Reading) -> Iterator[Finding]:
    """Identities in both train and test.

    Pid 0 in a gallery, where no query asks for it, stands for distractors and not for a person.
    """
    asked = {(sample.domain, sample.pid) for sample in reading.query}
    others = {(sample.domain, sample.pid) for sample in reading.gallery if sample.pid != 0}
    trained = {(sample.domain, sample.pid): sample for sample in reversed(reading.train)}
    both = sorted((asked | others) & trained.keys())
    if both:
        what = f"{len(both):,} identities are in both train and test"
        remedy = (
            "Give each identity to one of them: scores on people seen in training mean nothing."
        )
        where = examples(f"pid {pid} ({trained[domain, pid].name})" for domain, pid in both)
        yield Finding("error", what, remedy, where)


def unreadable(
    files: Sequence[str], workers: int, progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    """Files that cannot be opened as pictures."""

    def fault(file: str) -> str:
        try:
            read_image(file)
        except (ValueError, OSError) as error:
            return str(error).partition(";")[0]
        return ""

    faults = []
    with ThreadPoolExecutor(workers) as pool:
        for done, what in enumerate(pool.map(fault, files), start=1):
            if what:
                faults.append(what)
            if progress is not None and (done % 256 == 0 or done == len(files)):
                progress(done, len(files))
    if faults:
        what = f"{len(faults):,} images cannot be read"
        yield Finding("error", what, "Copy these files again, or delete them.", examples(faults))
