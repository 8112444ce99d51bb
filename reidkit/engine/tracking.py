"""Where a run's numbers are shown: TensorBoard, and by the extra `track` W&B and MLflow."""

import importlib.util
import json
import logging
import netrc
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from reidkit.distributed import is_main
from reidkit.files import write_atomically

logger = logging.getLogger(__name__)

IDS = "trackers.json"  # in the run folder: by which name each service knows the run
AT_ONCE = 100  # parameters that MLflow takes in one call


class Tracker(Protocol):
    """Takes a run's numbers as they come; any of its methods may fail, and `RunLog` then goes on
    without it."""

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Take numbers by name, such as `train/loss`, that hold after `iteration` batches."""

    def rewind(self, iteration: int) -> None:
        """Expect what came after `iteration` once more, from a resumed run; before `scalars`."""

    def close(self) -> None:
        """Bring what is still in memory to where it belongs."""


class TensorBoard:
    """TensorBoard's event files in a folder; where a run resumed, the later file wins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._purge: int | None = None
        self._writer: Any = None

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Add a point to each curve, on the disk when this returns."""
        if self._writer is None:  # now and not before: only by now a resume is known
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)
        # By itself it flushes every two minutes, and a killed run would lose them.
        self._writer.flush()

    def rewind(self, iteration: int) -> None:
        """Hide the points after `iteration` that earlier event files hold."""
        self.close()
        self._purge = iteration + 1

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Wandb:
    """A run of Weights & Biases, with the iteration as its step.

    A resumed run goes on with the same id; W&B itself drops the steps that it has already.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str) -> None:
        asked = "WANDB_MODE" in os.environ or logged_in()
        if not asked:  # else it looks for the server of its error reports
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        known = _read_id(folder, "wandb")
        run_id = known or uuid.uuid4().hex[:8]
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "reidkit"),
            name=name,
            dir=str(folder),
            id=run_id,
            resume="allow" if asked else None,
            mode=None if asked else "offline",
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        _keep_id(folder, "wandb", run_id)
        where = Path(str(self.run.dir)).parent  # the run's `files` lie in it
        sync = f"offline; upload it with: wandb sync {where}"
        logger.info("wandb: %s", sync if self.run.offline else self.run.url)

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Hand the numbers to W&B's own process, which writes or sends them."""
        self.run.log(dict(values), step=iteration)

    def rewind(self, iteration: int) -> None:
        """Nothing to do: W&B's steps only rise."""

    def close(self) -> None:
        """Finish the run; online this waits until everything is sent."""
        self.run.finish()


class MLflow:
    """A run of MLflow: in `mlflow.db` of the run folder, or on the server of MLFLOW_TRACKING_URI.

    A resumed run goes on with the same id and leaves out the points that are stored already.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Its own patience with a server that is gone is minutes, in which the device would wait.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        # It tells of each table that it makes.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.client: Any = MlflowClient(uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        self._reached: dict[str, int] | None = None  # last stored iteration of a curve
        self.run_id = self._known(folder) or ""
        if self.run_id:
            self.client.update_run(self.run_id, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "reidkit")
        experiment = self.client.get_experiment_by_name(title)
        place = None if uri else (folder.resolve() / "mlflow").as_uri()
        made = (
            experiment.experiment_id
            if experiment
            else self.client.create_experiment(title, artifact_location=place)
        )
        self.run_id = self.client.create_run(made, run_name=name).info.run_id
        _keep_id(folder, "mlflow", self.run_id)
        parameters = [Param(_word(key), value) for key, value in _leaves(config)]
        for start in range(0, len(parameters), AT_ONCE):
            self.client.log_batch(self.run_id, params=parameters[start : start + AT_ONCE])

    def _known(self, folder: Path) -> str | None:
        """The id of the run in this folder, where the store that is asked has it."""
        run_id = _read_id(folder, "mlflow")
        if run_id is not None:
            from mlflow.exceptions import MlflowException

            try:
                self.client.get_run(run_id)
            except MlflowException:
                return None  # stored elsewhere, under another MLFLOW_TRACKING_URI
        return run_id

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Store a point of each curve."""
        now = round(time.time() * 1000)
        points = [
            self._metric(key, value, now, iteration)
            for key, value in ((_word(name), value) for name, value in values.items())
            if iteration > self._last(key)
        ]
        if points:
            self.client.log_batch(self.run_id, metrics=points)

    def _last(self, key: str) -> int:
        if self._reached is None:
            return -1
        if key not in self._reached:
            stored = self.client.get_metric_history(self.run_id, key)
            self._reached[key] = max((point.step for point in stored), default=-1)
        return self._reached[key]

    def rewind(self, iteration: int) -> None:
        """Leave out from now on what is stored: MLflow cannot take a point back."""
        self._reached = {}

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run_id)


Service = Literal["wandb", "mlflow"]
SERVICES: Mapping[str, type[Wandb] | type[MLflow]] = {"wandb": Wandb, "mlflow": MLflow}


def open_trackers(
    folder: Path,
    *,
    tensorboard: bool,
    track: Sequence[Service],
    config: Mapping[str, Any],
    name: str,
) -> list[Tracker]:
    """The trackers of a run, which go on with what they hold of it; none but on the first rank.

    Nothing goes over the network unless the user asked for it: W&B works offline without a login
    and without WANDB_MODE, MLflow in the run folder without MLFLOW_TRACKING_URI.

    Args:
        folder: the run's.
        config: plain values that the services show beside the curves.
        name: what they call the run.

    Raises ModuleNotFoundError where a package is missing. A service that cannot be reached is
    told, and the run goes on without it.
    """
    require_packages(track)
    if not is_main():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    opened: list[Tracker] = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    for service in dict.fromkeys(track):
        try:
            opened.append(SERVICES[service](folder, config, name))
        except Exception as error:
            # Whatever a service does must not cost a training.
            logger.warning(
                "%s does not answer, the run goes on without it: %s", service, brief(error)
            )
    return opened


def require_packages(track: Sequence[str]) -> None:
    """Raise ValueError for a service that is not known, ModuleNotFoundError for one whose package
    is not installed."""
    for service in track:
        if service not in SERVICES:
            raise ValueError(
                f"track: unknown service {service!r}, expected {' or '.join(SERVICES)}"
            )
        spec = importlib.util.find_spec(service)
        # A folder `wandb` that an earlier run left looks like a package without files.
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"track: {service} is not installed; pip install 'reidkit[track]'"
            )


def logged_in() -> bool:
    """Whether W&B finds credentials of its server: a key or token named by the environment, or a
    line in the user's netrc, where `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    named = os.environ.get("NETRC")
    places = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in places:
        try:
            if host in netrc.netrc(place).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def brief(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _read_id(folder: Path, service: str) -> str | None:
    try:
        found = json.loads((folder / IDS).read_text())
        return str(found[service])
    except (OSError, ValueError, KeyError, TypeError):  # a new run, or another service until now
        return None


def _keep_id(folder: Path, service: str, run_id: str) -> None:
    known = {name: _read_id(folder, name) for name in SERVICES}
    ids = {name: found for name, found in known.items() if found} | {service: run_id}
    write_atomically(folder / IDS, (json.dumps(ids, indent=2) + "\n").encode())


def _word(name: str) -> str:
    """A name as MLflow allows it: `R@1` becomes `R_at_1`."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def _leaves(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """The values of a tree of mappings by dotted names, as text; a list is one value."""
    if isinstance(tree, Mapping):
        return [
            leaf
            for key, value in tree.items()
            for leaf in _leaves(value, f"{path}.{key}" if path else str(key))
        ]
    return [(path, str(tree)[:500])]
