"""What only the data can tell before the first training: which scores there will be, and whether
finished runs were trained on it."""

import json
from collections.abc import Sequence

from reidkit.compose.building import fingerprint, load_benchmarks
from reidkit.compose.scoring import is_gait
from reidkit.compose.sweep.runs import Run
from reidkit.config import ConfigError, RunConfig
from reidkit.types import Benchmark, Sample


def refuse_unknown(metrics: Sequence[str], config: RunConfig) -> None:
    """Raise ConfigError for metrics that the config's test benchmarks will not report.

    Passes what cannot be known: the conditions of a gait table, and data that cannot be loaded.
    """
    loaded = _load(config) if metrics else None
    if loaded is None or any(is_gait(test.protocol) for test in loaded[1]):
        return
    known = [
        f"{test.name}/{name}" if position else name
        for position, test in enumerate(loaded[1])
        for name in test.protocol.report
    ]
    unknown = [name for name in metrics if name not in known]
    if unknown:
        tests = " and ".join(test.name for test in loaded[1])
        raise ConfigError(
            f"--metrics {','.join(unknown)}", [f"{tests} reports: {', '.join(known)}"]
        )


def refuse_changed_data(runs: Sequence[Run]) -> None:
    """Raise ConfigError where runs of the same training data, by its name, were trained on other
    samples than one another, or than there are now."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.fingerprint is not None:
            groups.setdefault(_section(run.config), []).append(run)
    faults = []
    for first, *others in groups.values():
        odd = next((run for run in others if run.fingerprint != first.fingerprint), None)
        if odd is not None:
            faults.append(
                f"the data changed between {first.folder} ({first.fingerprint}) and {odd.folder} "
                f"({odd.fingerprint}): name another --out, or remove the runs of the old data"
            )
        elif any(run.state == "finished" for run in (first, *others)):
            loaded = _load(first.config)
            now = None if loaded is None else fingerprint(loaded[0])
            if now not in (None, first.fingerprint):
                faults.append(
                    f"the data changed since {first.folder} was trained ({first.fingerprint} -> "
                    f"{now}): undo that, or name another --out"
                )
    if faults:
        raise ConfigError("the sweep", faults)


def _section(config: RunConfig) -> str:
    return json.dumps(config.data.model_dump(mode="json", include={"train", "root"}))


def _load(config: RunConfig) -> tuple[tuple[Sample, ...], list[Benchmark]] | None:
    try:
        return load_benchmarks(config)
    except Exception:  # whatever an adapter raises, the training will tell it
        return None
