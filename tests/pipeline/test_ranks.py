"""Several processes that train one run: who writes, how they stop, what ends them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from analysis import tags
from pipeline import ranks
from pipeline.config import ConfigError, compose
from pipeline.identity import run_key
from pipeline.outcome import exit_code_of
from pipeline.ranks import Place, Ranks, first_node, launched, place_of
from pipeline.session import Session, store_of
from pipeline.stages.runner import _train
from pipeline.stages.student import StudentStage
from pipeline.storage.run_store import RunFolder
from pipeline.train import bank_command, distill_command
from tests.ranks import exit_codes, forked, free_port

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = ["cfg=CE", "data.train_limit=60", "optim.batch=30", "budget.student_epochs=3"]
EPOCHS = 3


class Run:
    """A tiny run of one or more ranks, without a tracking store. Something can happen on one rank
    after its first epoch; standard output and errors of rank 1 are in the file `1.log`."""

    def __init__(self, folder: Path) -> None:
        words = [*TINY, f"runtime.store={folder}", "runtime.commit_every_s=0"]
        self.folder, self.config = folder, compose(words)

    @property
    def stored(self) -> RunFolder:
        key = run_key("distill", self.config)
        return store_of(self.config.runtime).run("distill", key)

    def losses(self) -> list[float]:
        """The loss of every epoch of the finished run."""
        result = self.stored.result()
        assert result is not None
        return [entry["metrics"]["train/loss/total"] for entry in result.history]

    def log(self, rank: int) -> str:
        return (self.folder / f"{rank}.log").read_text()

    def start(
        self, world: int, event: Callable[[Any], None] | None = None, at: int = 1
    ) -> list[int]:
        """The processes; `event` gets the state of rank `at` after its first epoch."""
        port = free_port()

        def train(rank: int) -> None:
            place = Place("test", rank, world, rank, "127.0.0.1", port) if world > 1 else None
            together = Ranks.join(place, CPU)
            session = Session(self.config.runtime, store_of(self.config.runtime), None, CPU)  # type: ignore[arg-type]
            session.ranks = together
            signal.signal(signal.SIGTERM, session.request_stop)
            stage = StudentStage(self.config, self.config, session)
            if event is not None and rank == at:
                happening(stage, event)
            lease = SimpleNamespace(check=lambda: None, token="token")
            tracker = SimpleNamespace(committed=lambda history: None)
            only = (lease, tracker) if together.leads else ()
            with together.until_the_end():
                result = _train(stage, session, *only)  # type: ignore[arg-type]
            if together.leads:
                stage.folder.finish(result)

        def work(rank: int) -> int:
            log = os.open(self.folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(log, number)
            sys.stdout = sys.stderr = ranks.out.file = os.fdopen(1, "w", 1)
            logging.basicConfig(force=True)
            return exit_code_of(lambda: train(rank))

        return forked(world, work)

    def codes(
        self, world: int, event: Callable[[Any], None] | None = None, at: int = 1
    ) -> list[int]:
        return exit_codes(self.start(world, event, at))


def happening(stage: StudentStage, event: Callable[[Any], None]) -> None:
    plain = stage.train

    def train(state: Any) -> Iterator[Any]:
        for epoch in plain(state):
            if epoch.index == 0:
                event(state)
            yield epoch

    stage.train = train  # type: ignore[method-assign]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process."""
    found = Run(tmp_path_factory.mktemp("alone"))
    assert found.codes(1) == [0], found.log(0)
    return found.losses()


def test_two_ranks_are_one_run_that_rank_0_writes(run: Run, alone: list[float]) -> None:
    assert run.codes(2) == [0, 0], run.log(0) + run.log(1)
    assert run.losses() == pytest.approx(alone, rel=1e-3)
    assert run.log(0).count("distill-CE-digits-s0") == EPOCHS
    assert run.log(1) == ""


def stop(state: Any) -> None:
    """A signal before the second step of the next epoch."""
    plain, steps = state.stop, [0]

    def stop() -> bool:
        steps[0] += 1
        if steps[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(plain())

    state.stop = stop


@pytest.mark.parametrize(
    ("first", "then", "at"),
    [(2, 1, 1), (1, 2, 0), pytest.param(3, 2, 2, marks=pytest.mark.thorough)],
)
def test_a_signal_to_one_rank_stops_all_and_other_ranks_resume(
    run: Run, alone: list[float], first: int, then: int, at: int
) -> None:
    assert run.codes(first, stop, at) == [75] * first, run.log(0)
    assert "run the same command to resume" in run.log(0)
    commit = run.stored.latest()
    assert commit is not None
    assert (len(commit.history), commit.state["progress"]["step"]) == (1, 1)
    assert run.codes(then) == [0] * then, run.log(0)
    assert "resumed" in run.log(0)
    assert run.losses() == pytest.approx(alone, rel=1e-3)


def test_a_rank_that_is_killed_ends_the_others_and_the_checkpoint_is_kept(run: Run) -> None:
    assert run.codes(2, lambda state: os.kill(os.getpid(), signal.SIGKILL)) == [1, -9]
    assert "another rank of 2 was lost" in run.log(0)
    assert "Traceback" not in run.log(0)
    assert ".cc:" not in run.log(0)  # of torch's source
    assert run.codes(2, lambda state: os.kill(os.getpid(), signal.SIGKILL), at=0) == [-9, 1]
    assert run.codes(1) == [0]


@pytest.mark.thorough
def test_a_rank_that_hangs_ends_the_others_at_the_deadline(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "DEADLINE_S", 10.0)
    processes = run.start(2, lambda state: os.kill(os.getpid(), signal.SIGSTOP))
    assert exit_codes(processes[:1]) == [1]
    assert "gave no sign for 10 s" in run.log(0)
    assert exit_codes(processes[1:], limit_s=0) == [-9]


def fail(state: Any) -> None:
    raise ValueError("no more memory")


@pytest.mark.parametrize("at", [0, 1])
def test_an_error_of_one_rank_is_reported_by_the_other(run: Run, at: int) -> None:
    assert run.codes(2, fail, at) == [1, 1]
    assert "Traceback" in run.log(at)
    if at:
        assert "rank 1: ValueError: no more memory" in run.log(0)


def test_ranks_whose_weights_differ_are_ended(run: Run) -> None:
    def change(state: Any) -> None:
        with torch.no_grad():
            next(state.student.parameters()).flatten()[0] += 1e-3

    assert run.codes(2, change) == [1, 1]
    assert "the ranks differ in state/student: they need the same kind of device" in run.log(0)


# The place of a process -----------------------------------------------------------------------

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "9",
}
STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "gpu[003-005,010]",
}


def test_the_place_is_that_of_torchrun_or_of_a_step_of_slurm() -> None:
    assert launched(TORCHRUN) == Place("torchrun", 3, 4, 1, "a", 9)
    assert launched(STEP) == Place("srun", 3, 4, 1, "gpu003", 21702)
    assert launched({**STEP, **TORCHRUN}) == Place("torchrun", 3, 4, 1, "a", 9)
    one = launched({**STEP, "SLURM_STEP_NUM_NODES": "1"})
    assert one is not None
    assert one.host == "127.0.0.1"
    batch_script = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "17"}
    assert launched(batch_script) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("a-1,b[2-3]", "a-1"), ("r[2,4]-ib,n1", "r2-ib")],
)
def test_the_first_node_of_a_list_of_slurms(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_several_ranks_do_not_compile_and_have_the_key_of_one() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.ranks=2: several ranks do not compile"):
        compose([*TINY, "runtime.ranks=2", "numerics.compile=true"])
    keys = {run_key("distill", compose([*TINY, f"runtime.ranks={n}"])) for n in (1, 4)}
    assert len(keys) == 1


@pytest.mark.parametrize("environment", [{}, STEP, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_without_the_option_a_process_is_alone(environment: dict[str, str]) -> None:
    assert place_of(1, "distill", environment) is None


@pytest.mark.parametrize(
    ("wanted", "verb", "environment", "message"),
    [
        (4, "distill", {}, "runtime.ranks=4: one process was started; start 4, as in torchrun --"),
        (2, "distill", TORCHRUN, "runtime.ranks=2: torchrun has started 4 processes (allowed: 4)"),
        (1, "finetune", TORCHRUN, "runtime.ranks=1: torchrun has started 4 processes (allowed: 4)"),
        (2, "main", STEP, "runtime.ranks=2: srun has started 4 processes (allowed: 4)"),
        (4, "bank", {}, "runtime.ranks=4: bank is one process (allowed: 1); ranks are for main"),
        (1, "bank", TORCHRUN, "bank is one process, and torchrun has started 4: start it without"),
    ],
)
def test_another_number_of_processes_is_one_message(
    wanted: int, verb: str, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        place_of(wanted, verb, environment)
    assert message in str(error.value)


def test_a_plan_refuses_ranks_of_a_verb_without_them_and_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRY_RUN", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    words = [*TINY, f"runtime.store={tmp_path}", "runtime.ranks=2"]
    with pytest.raises(ConfigError, match=r"runtime\.ranks=2: bank is one process"):
        bank_command(["teacher=all", *words])
    for rank, times in ("0", 1), ("1", 0):
        for name, value in {"RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        distill_command(words)
        assert capsys.readouterr().out.count("distill-CE-digits-s0") == times


# By torchrun ----------------------------------------------------------------------------------

L2 = [
    *("cfg=L2", "bench=digits_all", "data.train_limit=200", "data.image_size=8", "data.views=2"),
    *("data.crop_pad=1", "optim.batch=50", "budget.student_epochs=4", "budget.adapt_epochs=4"),
    *(
        f"teacher.{k}.{what}"
        for k in (0, 1)
        for what in ("model=resnet8", "recipe.epochs=2", "recipe.optim.batch=50")
    ),
    *("runtime.log_model=false", "runtime.commit_every_s=0"),
]


@pytest.mark.thorough
def test_a_distillation_by_torchrun_is_stopped_and_resumed_by_one_process(
    tmp_path: Path, schema: Path
) -> None:
    shutil.copy(schema, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command = ["-m", "pipeline", "distill", *L2]

    def started(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    ranked, lines = started(*torchrun, *command, "runtime.ranks=2"), list[str]()
    assert ranked.stdout is not None
    for line in ranked.stdout:
        lines.append(line)
        if "distill-L2-digits_all-s0  3/8" in line:
            ranked.send_signal(signal.SIGTERM)
    ranked.wait(60)
    text = "".join(lines)
    assert "interrupted  distill-L2" in text, text
    assert text.count("finished finetune") == 2

    def statuses() -> list[str]:
        (one,) = client.search_experiments(filter_string="name = 'asib'")
        return sorted(
            f"{run.data.tags[tags.STAGE]} {run.info.status}"
            for run in client.search_runs([one.experiment_id])
        )

    client = MlflowClient(tracking_uri=uri)
    teachers = ["finetune FINISHED"] * 2
    assert statuses() == sorted([*teachers, "distill KILLED", "launch KILLED"])
    alone = started(*command)
    out, _ = alone.communicate(timeout=120)
    assert alone.returncode == 0, out
    assert "resumed  distill-L2" in out
    launches = ["launch FINISHED", "launch KILLED"]
    assert statuses() == sorted([*teachers, "distill FINISHED", *launches])
