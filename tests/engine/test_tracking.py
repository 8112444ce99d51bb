import importlib.util
import json
import logging
import sys
import types
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reidkit.engine import tracking
from reidkit.engine.tracking import open_trackers

CONFIG = {"optim": {"lr": 0.1, "schedule": {"name": "cosine"}}, "losses": [{"name": "triplet"}]}


def install(monkeypatch, name, **content):
    """Put a made-up module where `import name` finds it."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="made up")
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A user without an account anywhere, on a machine whose environment names nothing."""
    for name in (
        *("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_PROJECT"),
        *("WANDB_BASE_URL", "WANDB_ERROR_REPORTING", "MLFLOW_TRACKING_URI"),
        *("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_EXPERIMENT_NAME"),
        *("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"),
    ):
        monkeypatch.setenv(name, "")  # so that what is set while the test runs is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def wandb(monkeypatch):
    """A made-up wandb that keeps what it was told."""
    told = SimpleNamespace(calls=[], logged=[], finished=0)

    class Run:
        def __init__(self, words):
            self.dir = words["dir"] + "/wandb/offline-run-1/files"
            self.offline = words["mode"] == "offline"
            self.url = "https://example.org/run"

        def log(self, values, step):
            told.logged.append((step, values))

        def finish(self):
            told.finished += 1

    def init(**words):
        told.calls.append(words)
        return Run(words)

    install(monkeypatch, "wandb", init=init, Settings=lambda **words: words)
    return told


@pytest.fixture
def mlflow(monkeypatch):
    """A made-up mlflow whose stores outlive its clients, as a database does."""
    told = SimpleNamespace(stores={}, uris=[], status=[])

    class Missing(Exception):
        pass

    class Client:
        def __init__(self, uri):
            told.uris.append(uri)
            self.store = told.stores.setdefault(uri, {})

        def get_experiment_by_name(self, title):
            return None

        def create_experiment(self, title, artifact_location):
            return "1"

        def create_run(self, experiment, run_name):
            run_id = f"run{len(self.store) + 1}"
            self.store[run_id] = SimpleNamespace(params=[], metrics=[])
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

        def get_run(self, run_id):
            if run_id not in self.store:
                raise Missing(run_id)
            return self.store[run_id]

        def update_run(self, run_id, status):
            told.status.append((run_id, status))

        def log_batch(self, run_id, params=(), metrics=()):
            assert len(params) <= 100
            self.store[run_id].params += params
            self.store[run_id].metrics += metrics

        def get_metric_history(self, run_id, key):
            return [point for point in self.store[run_id].metrics if point.key == key]

        def set_terminated(self, run_id):
            told.status.append((run_id, "FINISHED"))

    def metric(key, value, timestamp, step):
        return SimpleNamespace(key=key, value=value, step=step)

    install(monkeypatch, "mlflow")
    install(monkeypatch, "mlflow.entities", Metric=metric, Param=lambda key, value: (key, value))
    install(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    install(monkeypatch, "mlflow.exceptions", MlflowException=Missing)
    return told


def opened(folder, *track, tensorboard=False, config=CONFIG):
    return open_trackers(folder, tensorboard=tensorboard, track=track, config=config, name="trial")


def curve(folder, name):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(point.step, round(point.value, 4)) for point in events.Scalars(name)]


def test_tensorboard_shows_the_numbers_even_of_a_run_that_was_killed(tmp_path):
    (board,) = opened(tmp_path, tensorboard=True)
    board.scalars({"train/loss": 2.0, "train/lr": 0.1}, 10)
    board.scalars({"train/loss": 1.0, "train/lr": 0.1}, 20)
    assert curve(tmp_path, "train/loss") == [(10, 2.0), (20, 1.0)]  # nothing was closed
    board.close()


def test_steps_that_a_resumed_run_repeats_show_once_in_tensorboard(tmp_path):
    (before,) = opened(tmp_path, tensorboard=True)
    for step in (10, 20, 30, 40):
        before.scalars({"train/loss": float(step)}, step)
    before.close()
    (after,) = opened(tmp_path, tensorboard=True)
    after.rewind(20)
    for step in (30, 40, 50):
        after.scalars({"train/loss": step + 0.5}, step)
    after.close()
    expected = [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5), (50, 50.5)]
    assert curve(tmp_path, "train/loss") == expected


def test_tensorboard_writes_nothing_before_the_first_number(tmp_path):
    (board,) = opened(tmp_path, tensorboard=True)
    board.close()
    assert not (tmp_path / "tensorboard").exists()


def test_wandb_is_offline_for_a_user_without_a_login(tmp_path, wandb, caplog):
    caplog.set_level(logging.INFO)
    (tracker,) = opened(tmp_path, "wandb")
    tracker.scalars({"train/loss": 0.5}, 20)
    tracker.close()
    (call,) = wandb.calls
    assert call["mode"] == "offline"
    assert call["dir"] == str(tmp_path)
    assert call["config"] == CONFIG
    assert call["name"] == "trial"
    assert wandb.logged == [(20, {"train/loss": 0.5})]
    assert wandb.finished == 1
    assert f"wandb sync {tmp_path / 'wandb' / 'offline-run-1'}" in caplog.text


@pytest.mark.parametrize("by", ["mode", "key", "netrc"])
def test_wandb_decides_itself_for_a_user_who_chose_a_mode_or_is_logged_in(
    tmp_path, wandb, monkeypatch, by, caplog
):
    caplog.set_level(logging.INFO)
    if by == "mode":
        monkeypatch.setenv("WANDB_MODE", "shared")
    elif by == "key":
        monkeypatch.setenv("WANDB_API_KEY", "k")
    else:
        (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password k\n")
    opened(tmp_path, "wandb")
    (call,) = wandb.calls
    assert call["mode"] is None
    assert call["resume"] == "allow"
    assert "https://example.org/run" in caplog.text


@pytest.mark.parametrize("content", ["machine other.org login u password k", "what is this", ""])
def test_a_netrc_for_another_host_or_that_cannot_be_read_is_no_login(tmp_path, content):
    (tmp_path / "netrc").write_text(content)
    assert not tracking.logged_in()


def test_a_resumed_run_is_the_same_run_of_wandb(tmp_path, wandb):
    opened(tmp_path / "a", "wandb")
    opened(tmp_path / "a", "wandb")
    opened(tmp_path / "b", "wandb")
    first, second, other = (call["id"] for call in wandb.calls)
    assert first == second != other


def test_mlflow_stores_in_the_run_folder_without_a_server(tmp_path, mlflow, monkeypatch):
    (tracker,) = opened(tmp_path, "mlflow")
    tracker.scalars({"evaluation/R@1": 0.5, "train/loss": 1.0}, 20)
    tracker.close()
    assert mlflow.uris == [f"sqlite:///{tmp_path / 'mlflow.db'}"]
    (run,) = mlflow.stores[mlflow.uris[0]].values()
    assert ("optim.schedule.name", "cosine") in run.params
    assert ("losses", "[{'name': 'triplet'}]") in run.params
    points = [(point.key, point.value, point.step) for point in run.metrics]
    assert points == [("evaluation/R_at_1", 0.5, 20), ("train/loss", 1.0, 20)]
    assert mlflow.status == [("run1", "FINISHED")]


def test_mlflow_goes_to_the_users_server(tmp_path, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org")
    opened(tmp_path, "mlflow")
    assert mlflow.uris == ["http://tracking.example.org"]


def test_a_resumed_run_of_mlflow_stores_each_step_once(tmp_path, mlflow):
    (before,) = opened(tmp_path, "mlflow")
    for step in (10, 20, 30):
        before.scalars({"train/loss": float(step)}, step)
    (after,) = opened(tmp_path, "mlflow")
    after.rewind(10)
    for step in (20, 30, 40):
        after.scalars({"train/loss": float(step)}, step)
    (run,) = mlflow.stores[mlflow.uris[0]].values()
    assert [point.step for point in run.metrics] == [10, 20, 30, 40]
    assert mlflow.status == [("run1", "RUNNING")]


def test_a_resumed_run_that_another_store_does_not_know_is_begun_there(
    tmp_path, mlflow, monkeypatch
):
    opened(tmp_path, "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org")
    opened(tmp_path, "mlflow")
    assert [len(store) for store in mlflow.stores.values()] == [1, 1]


def test_a_long_config_reaches_mlflow_in_pieces(tmp_path, mlflow):
    (tracker,) = opened(tmp_path, "mlflow", config={f"key{i}": i for i in range(250)})
    assert len(mlflow.stores[mlflow.uris[0]][tracker.run_id].params) == 250


def test_both_services_keep_their_ids_beside_each_other(tmp_path, wandb, mlflow):
    opened(tmp_path, "wandb", "mlflow")
    ids = json.loads((tmp_path / "trackers.json").read_text())
    assert ids == {"wandb": wandb.calls[0]["id"], "mlflow": "run1"}


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"wandb"', "\x00"])
def test_a_damaged_list_of_ids_starts_a_new_run(tmp_path, wandb, content):
    (tmp_path / "trackers.json").write_text(content)
    opened(tmp_path, "wandb")
    ids = json.loads((tmp_path / "trackers.json").read_text())
    assert ids == {"wandb": wandb.calls[0]["id"]}


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_what_to_install(tmp_path, monkeypatch, service):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == service else real(name)
    )
    with pytest.raises(ModuleNotFoundError, match=rf"{service}.*pip install 'reidkit\[track\]'"):
        opened(tmp_path, service)


def test_a_folder_named_wandb_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="is not installed"):
        opened(tmp_path, "wandb")


def test_an_unknown_service_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'neptune', expected wandb or mlflow"):
        opened(tmp_path, "neptune")


def test_a_service_that_does_not_answer_is_told_and_the_others_open(
    tmp_path, wandb, mlflow, monkeypatch, caplog
):
    def init(**words):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    trackers = opened(tmp_path, "wandb", "mlflow", tensorboard=True)
    assert [type(tracker).__name__ for tracker in trackers] == ["TensorBoard", "MLflow"]
    assert "wandb does not answer, the run goes on without it: no route to host" in caplog.text
    assert "long story" not in caplog.text


def test_only_the_first_rank_opens_anything(tmp_path, wandb, monkeypatch):
    monkeypatch.setattr(tracking, "is_main", lambda: False)
    assert opened(tmp_path / "run", "wandb", tensorboard=True) == []
    assert not wandb.calls
    assert not (tmp_path / "run").exists()


def test_a_service_named_twice_opens_once(tmp_path, wandb):
    assert len(opened(tmp_path, "wandb", "wandb")) == 1


def test_the_real_mlflow_keeps_a_resumed_run_in_one_piece(tmp_path):
    tracking_module = pytest.importorskip("mlflow.tracking")
    for start, stop in ((0, 4), (2, 6)):
        (tracker,) = opened(tmp_path, "mlflow")
        if start:
            tracker.rewind(start)
        for step in range(start + 1, stop + 1):
            tracker.scalars({"train/loss": float(step), "evaluation/R@1": float("nan")}, step)
        tracker.close()
    client = tracking_module.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(i, float(i)) for i in range(1, 7)]
    assert client.get_run(tracker.run_id).data.params["optim.lr"] == "0.1"


def test_the_real_wandb_writes_offline_into_the_run_folder(tmp_path):
    pytest.importorskip("wandb.sdk")
    for _ in range(2):
        (tracker,) = opened(tmp_path, "wandb")
        run_id = tracker.run.id
        tracker.scalars({"train/loss": 1.0}, 20)
        tracker.close()
    written = list((tmp_path / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    assert written and all(path.stat().st_size for path in written)
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": run_id}
