"""How a command ends: exit code, launch run and stage run of each outcome, with a real tracking
store; and what a command finds out of the machine before it begins."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from mlflow import MlflowClient

from analysis import tags
from pipeline import session
from pipeline.__main__ import main
from pipeline.config import ConfigError, compose
from pipeline.identity import run_key
from pipeline.launch import multirun
from pipeline.launch.base import FAILED, Status
from pipeline.session import Session, can_compile, doubtful_precision
from pipeline.stages import student
from pipeline.storage.lease import Lease, try_acquire
from pipeline.storage.run_store import Store
from trainers.errors import Interrupted, UserError
from trainers.numerics import Numerics

TINY = ["cfg=CE", "data.train_limit=100", "budget.student_epochs=1", "runtime.log_model=false"]
KEY = run_key("distill", compose(TINY))


class Place(NamedTuple):
    """A store with the tracking store next to it, as commands of one test see them."""

    folder: Path
    client: MlflowClient

    def distill(self, *words: str) -> int:
        """Exit code of one tiny training command."""
        paths = [f"runtime.store={self.folder}", f"runtime.experiment={self.folder.name}"]
        return main(["distill", *TINY, "runtime.commit_every_s=0", *paths, *words])

    def runs(self, stage: str) -> list[Any]:
        """The runs of one stage, the newest first."""
        experiment = self.client.get_experiment_by_name(self.folder.name)
        assert experiment is not None
        return list(
            self.client.search_runs([experiment.experiment_id], f"tags.{tags.STAGE} = '{stage}'")
        )

    def statuses(self) -> tuple[list[str], list[str]]:
        """Statuses of the launch runs and of the stage runs."""
        launches, stages = self.runs("launch"), self.runs("distill")
        return [run.info.status for run in launches], [run.info.status for run in stages]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def place(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Place:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, MlflowClient(tracking_uri=uri))


def after_one_epoch(monkeypatch: pytest.MonkeyPatch, event: Callable[[], None]) -> None:
    """Training has two epochs, and `event` happens when the first is stored."""
    distill = student.distill

    def train(*arguments: Any) -> Iterator[Any]:
        yield next(distill(*arguments))
        event()

    monkeypatch.setattr(student, "distill", train)


def raising(error: BaseException) -> Callable[[], None]:
    def event() -> None:
        raise error

    return event


def test_a_command_that_is_done_or_reused(place: Place) -> None:
    assert place.distill() == 0
    assert place.statuses() == (["FINISHED"], ["FINISHED"])
    assert place.distill() == 0
    assert place.statuses() == (["FINISHED"], ["FINISHED"])  # nothing to send: no second launch


@pytest.mark.parametrize("error", [Interrupted(), KeyboardInterrupt()])
def test_an_interrupted_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    after_one_epoch(monkeypatch, raising(error))
    assert place.distill("budget.student_epochs=2") == 75
    assert place.statuses() == (["KILLED"], ["KILLED"])
    assert tags.ERROR not in place.runs("distill")[0].data.tags


def test_a_command_that_is_interrupted_while_another_process_trains_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(place):
        monkeypatch.setattr(session.Session, "stop", lambda _: True)
        monkeypatch.setattr(student, "on_device", opening(student.on_device))
        assert place.distill() == 75
    assert place.statuses() == (["KILLED"], [])


@pytest.mark.parametrize("successor", ["RUNNING", "FINISHED"])
def test_a_command_that_lost_its_lease_leaves_the_run_to_its_successor(
    place: Place, monkeypatch: pytest.MonkeyPatch, successor: str
) -> None:
    def taken_over() -> None:
        deadline = time.monotonic() + 60
        while not place.runs("distill"):  # an upload that has lost its lease would not make it
            assert time.monotonic() < deadline, "the first epoch was not sent"
            time.sleep(0.05)
        lease = folder(place) / "lease.000002"  # the next generation
        lease.write_bytes((folder(place) / "lease.000001").read_bytes())
        run_id = place.runs("distill")[0].info.run_id
        if successor == "FINISHED":
            place.client.set_terminated(run_id, successor)

    after_one_epoch(monkeypatch, taken_over)
    assert place.distill("budget.student_epochs=2") == 75
    assert place.statuses() == (["KILLED"], [successor])
    assert tags.ERROR not in place.runs("distill")[0].data.tags


def test_an_error_after_the_lease_was_lost_is_that_of_a_lost_lease(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen may find its files gone: the run is another's, and not FAILED."""

    def thawed() -> None:
        lease = folder(place) / "lease.000002"
        lease.write_bytes((folder(place) / "lease.000001").read_bytes())
        raise FileNotFoundError

    after_one_epoch(monkeypatch, thawed)
    assert place.distill("budget.student_epochs=2") == 75
    launches, stages = place.statuses()
    assert "FAILED" not in [*launches, *stages]


@pytest.mark.parametrize(("words", "status"), [((), "FINISHED"), (("--cancel",), "KILLED")])
def test_jobs_left_to_a_cluster_keep_their_launch_for_the_next_command(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: str,
) -> None:
    cluster = SimpleNamespace(
        survives=True,
        submit=lambda tasks, stop: None,
        poll=dict,
        cancel=lambda: 2,
        left=lambda: "2 jobs keep running",
    )
    monkeypatch.setattr(multirun, "make", lambda *_: cluster)
    monkeypatch.setattr(session.Session, "stop", lambda _: True)
    assert place.distill("-m", "seed=0,1") == 75
    assert place.statuses() == (["RUNNING"], [])
    assert "jobs keep running" in capsys.readouterr().out
    monkeypatch.setattr(multirun, "follow", lambda *_: {})  # the jobs have ended
    assert place.distill("-m", "seed=0,1", *words) == 0
    assert place.statuses() == ([status], [])  # the same launch


@pytest.mark.parametrize("where", ["submit", "follow"])
def test_a_second_ctrl_c_leaves_the_jobs_of_a_cluster_alone_too(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    cluster = SimpleNamespace(
        survives=True, submit=lambda *_: None, left=lambda: "2 jobs keep running"
    )
    monkeypatch.setattr(multirun, "make", lambda *_: cluster)
    monkeypatch.setattr(
        *((cluster, "submit") if where == "submit" else (multirun, "follow")), stopped
    )
    assert place.distill("-m", "seed=0,1") == 75
    assert place.statuses() == (["RUNNING"], [])


def test_jobs_that_can_never_start_are_an_error_of_the_user(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Status(
        FAILED, "can never start (InvalidQOS): change hydra.launcher.qos=x", False, True
    )
    monkeypatch.setattr(multirun, "follow", lambda *_: {"distill-CE-digits-s0": refused})
    assert place.distill("-m", "seed=0,1") == 2
    assert place.statuses() == (["FAILED"], [])
    assert "hydra.launcher.qos=x" in capsys.readouterr().err


def test_an_interrupted_multirun_ends_like_an_interrupted_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multirun, "follow", lambda *_: raising(Interrupted())())
    assert place.distill("-m", "seed=0,1") == 75
    assert place.statuses() == (["KILLED"], [])


def test_an_error_of_the_user(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(student, "on_device", opening(lambda *_: raising(UserError("no data"))()))
    assert place.distill() == 2
    assert place.statuses() == (["FAILED"], [])
    assert capsys.readouterr().err == "no data\n"
    assert "traceback" not in place.runs("launch")[0].data.tags


def test_an_unexpected_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    after_one_epoch(monkeypatch, raising(ZeroDivisionError("no reason")))
    assert place.distill("budget.student_epochs=2") == 1
    assert place.statuses() == (["FAILED"], ["FAILED"])
    for run in (*place.runs("launch"), *place.runs("distill")):
        assert run.data.tags[tags.ERROR] == "ZeroDivisionError: no reason"
        assert "in event" in run.data.tags["traceback"]


def folder(place: Place) -> Path:
    (found,) = (place.folder / "runs" / "distill").iterdir()
    return found


def held(place: Place) -> Lease:
    """The lease of the tiny run, held by this process as if by another."""
    lease = try_acquire(Store(place.folder / "runs").run("distill", KEY).path)
    assert lease is not None
    return lease


def opening(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that opens the launch run first, as an earlier stage of the command would."""

    def opened(config: Any, session: Any) -> Any:
        session.target.parent_id()
        return function(config, session)

    return opened


CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
OLD = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}


def test_a_machine_without_a_compiler_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert can_compile(Numerics()) is None
    with pytest.raises(ConfigError) as found:
        Session.open(compose(["numerics.compile=true"]), "distill", [])
    (error,) = found.value.errors
    assert error.startswith("numerics.compile=true: this machine has no C++ compiler no-such-comp")
    monkeypatch.setenv("CXX", sys.executable)
    assert can_compile(Numerics(compile=True)) == sys.executable


@pytest.mark.parametrize(
    ("device", "wanted", "found"), [(GPU, "auto", GPU), (GPU, "off", None), (CPU, "auto", None)]
)
def test_runs_on_a_gpu_record_graphs_unless_these_are_off(
    device: torch.device,
    wanted: str,
    found: torch.device | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "Graphs", lambda device: device)
    target: Any = None
    runtime = compose([f"runtime.graph={wanted}"]).runtime
    assert Session(runtime, Store(tmp_path), target, device).graphs() == found


V100, A100 = (7, 0), (8, 0)


def test_mixed_precision_is_doubted_where_the_processor_emulates_it() -> None:
    printed = doubtful_precision("bfloat16", CPU, processor=OLD)
    assert printed is not None
    assert "numerics=float32" in printed
    assert doubtful_precision("float32", CPU, processor=OLD) is None
    for new in ("avx512_bf16", "amx_bf16"):
        assert doubtful_precision("bfloat16", CPU, processor=OLD | {new: True}) is None
    unknown = {"architecture": "aarch64"}
    assert doubtful_precision("bfloat16", CPU, processor=unknown) is None
    assert "for GPUs" in (doubtful_precision("float16", CPU) or "")


def test_gpus_before_ampere_have_float16_only() -> None:
    for precision in ("float32", "bfloat16", "float16", "tf32"):
        assert doubtful_precision(precision, GPU, capability=A100) is None
    assert doubtful_precision("float16", GPU, capability=V100) is None
    printed = doubtful_precision("bfloat16", GPU, capability=V100)
    assert printed is not None
    assert "numerics=float16" in printed


@pytest.mark.parametrize(("device", "capability"), [(CPU, None), (GPU, V100)])
def test_tf32_is_reported_where_it_has_no_effect(
    device: torch.device, capability: tuple[int, int] | None
) -> None:
    printed = doubtful_precision("tf32", device, capability=capability)
    assert printed is not None
    assert "numerics=tf32 has no effect here" in printed


def test_torch_reports_the_capabilities_that_are_read() -> None:
    there = torch.cpu.get_capabilities()
    if there["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= there.keys()


@pytest.mark.parametrize("verb", ["distill", "sync"])
@pytest.mark.parametrize(
    ("variable", "value"), [("MLFLOW_TRACKING_URI", "./mlruns"), ("MLFLOW_EXPERIMENT_ID", "999")]
)
def test_a_tracking_store_that_refuses_is_an_error_before_anything_is_trained(
    place: Place,
    verb: str,
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    words = TINY if verb == "distill" else []
    assert main([verb, *words, f"runtime.store={place.folder}"]) == 2
    assert f"{variable}={value}" in capsys.readouterr().err
    assert not (place.folder / "runs").exists()


def test_a_command_shows_its_numbers_at_the_launch_and_says_where_to_look(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.distill() == 0
    (launch,) = place.runs("launch")
    (run,) = place.runs("distill")
    carried = launch.data.metrics["student/test/top1"]
    assert carried == run.data.metrics["test/top1"]
    assert run.data.tags["mlflow.user"]
    assert run.data.tags["mlflow.source.name"]
    assert "look:     mlflow ui --backend-store-uri sqlite:///" in capsys.readouterr().out


def test_a_student_is_an_mlflow_model_linked_to_its_last_epoch_and_registered_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("runtime.log_model=true", "runtime.register=students", "budget.student_epochs=2")
    for _ in range(2):  # the second time it is reused
        assert place.distill(*words) == 0
    (run,) = place.runs("distill")
    (model,) = place.client.search_logged_models(
        [run.info.experiment_id], order_by=[{"field_name": "metrics.test/top1"}]
    )
    values = {metric.key: metric.value for metric in model.metrics}
    assert values["test/top1"] == run.data.metrics["test/top1"]
    assert values["val/top1"] == run.data.metrics["val/top1"]
    for name in values:
        points = place.client.get_metric_history(run.info.run_id, name)
        assert len(points) == len({point.step for point in points})
    (version,) = place.client.search_model_versions("name = 'students'")
    assert version.run_id == run.info.run_id
    assert place.client.get_model_version_by_alias("students", "current").run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert "students" in model.tags["mlflow.modelVersions"]  # its page says that it is registered


def test_system_metrics_are_of_the_stage_run_while_it_trains(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")

    def a_while() -> None:
        while not any(
            k.startswith("system/") for r in place.runs("distill") for k in r.data.metrics
        ):
            time.sleep(0.1)

    after_one_epoch(monkeypatch, a_while)
    assert place.distill("runtime.log_model=true") == 0
    (run,) = place.runs("distill")
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert not any("gpu" in name for name in run.data.metrics)
    assert run.info.status == "FINISHED"
    place.client.delete_run(run.info.run_id)
