"""Many students with one command: what is expanded, checked and handed to the launcher."""

import re
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

from pipeline.config import ConfigError, compose, overrides
from pipeline.config.groups import CONF
from pipeline.config.sweep import expand
from pipeline.config.yaml_file import read_yaml
from pipeline.identity import run_key
from pipeline.launch import local as local_jobs
from pipeline.launch import monitor, multirun
from pipeline.launch.base import DONE, FAILED, HALTED, RUNNING, WAITING, Status, Task
from pipeline.launch.ending import Ending
from pipeline.launch.local import Local
from pipeline.launch.monitor import follow
from pipeline.launch.options import LocalConfig, SlurmConfig, take_options
from pipeline.launch.submission import Submitter, script
from pipeline.stages.view_bank import bank_key
from pipeline.storage.run_store import Store
from tests.pipeline import records
from trainers.errors import Interrupted

SMALL = "data.train_limit=100"


def test_combinations_are_those_of_hydra_in_the_order_of_nested_loops() -> None:
    found = expand(["cfg=L0,L1", "seed=range(0,2)", "optim.lr=choice(0.1,1e-2)", SMALL])
    assert len(found) == 8
    assert found[0] == ("cfg=L0", "seed=0", "optim.lr=0.1", SMALL)
    assert found[1] == ("cfg=L0", "seed=0", "optim.lr=0.01", SMALL)
    assert found[-1] == ("cfg=L1", "seed=1", "optim.lr=0.01", SMALL)


@pytest.mark.parametrize("text", ["data.mean=[1,2]", "runtime.store=/a b=c", "method.a='x,y'"])
def test_lists_and_quoted_texts_are_one_value(text: str) -> None:
    assert expand([text]) == [(text,)]


def test_all_errors_of_all_jobs_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        multirun.read(
            [
                "cfg=L0,L9",
                "seed=0,-1",
                "hydra/launcher=submitit_slurm",
                "hydra.launcher.partitoin=gpu",
                "hydra.launcher.timeout_min=0",
            ]
        )
    text = str(raised.value)
    assert text.startswith("4 errors")
    for part in ("cfg=L9: unknown", "seed=-1", "did you mean partition?", "timeout_min=0"):
        assert text.count(part) == 1, text


def test_an_unknown_launcher_lists_the_launchers() -> None:
    _, _, errors = take_options(["hydra/launcher=slrum"])
    assert "did you mean submitit_slurm?" in errors[0]
    assert "submitit_local, submitit_slurm" in errors[0]


def test_an_option_of_another_launcher_names_that_launcher() -> None:
    _, _, errors = take_options(["hydra.launcher.gres=null"])
    assert errors == [
        "hydra.launcher.gres: no option of hydra/launcher=submitit_local, but of "
        "hydra/launcher=submitit_slurm: give that too"
    ]


def test_launcher_options_have_types() -> None:
    config, rest, errors = take_options(
        [
            "hydra/launcher=submitit_slurm",
            "hydra.launcher.partition=a,b",
            "hydra.launcher.gres=null",
            "hydra.launcher.setup=['module load x']",
            "cfg=L0",
        ]
    )
    assert not errors
    assert rest == ["cfg=L0"]
    assert isinstance(config, SlurmConfig)
    assert (config.partition, config.gres, config.setup) == ("a,b", None, ["module load x"])


def slurm_options(*texts: str) -> SlurmConfig:
    config, _, errors = take_options(
        ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{text}" for text in texts)]
    )
    assert not errors
    assert isinstance(config, SlurmConfig)
    return config


def test_any_option_of_sbatch_can_be_given() -> None:
    config = slurm_options(
        "reservation=maint",
        "exclude=n[1-2],n7",
        "nodelist=null",
        "comment=a b, c",
        "mem_per_gpu=16G",
        "gpus_per_node=a100:1",
        "setup=null",
        "additional_parameters={licenses: 'x:1', exclusive: true}",
        "additional_parameters.mail-type=END",
    )
    found = script(Path("/x/y.sh"), config, None, [])
    for line in (
        "--reservation=maint",
        "'n[1-2],n7'",
        "--comment='a b, c'",
        "--mem-per-gpu=16G",
        "--gpus-per-node=a100:1",
        "--licenses=x:1",
        "--exclusive\n",
        "--mail-type=END",
    ):
        assert line in found, found
    assert "--mem=" not in found  # they exclude each other
    assert "--nodelist" not in found


def test_what_is_given_takes_the_place_of_what_it_excludes() -> None:
    assert slurm_options("mem_per_cpu=2G").mem_gb is None
    assert slurm_options("additional_parameters={mem-per-cpu: 2G}").mem_gb is None
    assert slurm_options("cpus_per_gpu=4").cpus_per_task is None
    assert slurm_options("gres=gpu:2").gpus_per_node is None
    assert slurm_options("mem_gb=8").mem_gb == 8


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["mem_gb=2", "mem_per_gpu=2G"], "mem_gb, hydra.launcher.mem_per_gpu: give one of them"),
        (["timeout_min=2"], "signal_delay_s=120: must be below the wall time"),
        (["additional_parameters={array: 0-3}"], "additional_parameters.array: the launcher sets"),
        (["additional_parameters=3"], "additional_parameters=3: not {name: value, ...} or null"),
        (["partition.x=3"], "partition.x: no option"),
        (["additional_parameters.x="], "additional_parameters.x=: empty"),
    ],
)
def test_options_of_slurm_that_cannot_be_are_errors(options: list[str], error: str) -> None:
    texts = [f"hydra.launcher.{text}" for text in options]
    _, _, errors = take_options(["hydra/launcher=submitit_slurm", *texts])
    assert any(error in one for one in errors), errors


# Options of hydra-submitit-launcher 1.2.0, with the defaults of its SlurmQueueConf.
SUBMITIT_LOCAL = {
    "submitit_folder": "logs/%j",
    "timeout_min": "60",
    "cpus_per_task": "null",
    "gpus_per_node": "null",
    "tasks_per_node": "1",
    "mem_gb": "null",
    "nodes": "1",
    "name": "job",
    "stderr_to_stdout": "false",
}
SUBMITIT_SLURM = SUBMITIT_LOCAL | {
    "partition": "null",
    "qos": "null",
    "comment": "null",
    "constraint": "null",
    "exclude": "null",
    "gres": "null",
    "cpus_per_gpu": "null",
    "gpus_per_task": "null",
    "mem_per_gpu": "null",
    "mem_per_cpu": "null",
    "account": "null",
    "signal_delay_s": "120",
    "max_num_timeout": "0",
    "additional_parameters": "{}",
    "array_parallelism": "256",
    "setup": "null",
    "srun_args": "null",
}


@pytest.mark.parametrize(
    ("name", "given", "cls"),
    [
        ("submitit_slurm", SUBMITIT_SLURM, SlurmConfig),
        ("submitit_local", SUBMITIT_LOCAL, LocalConfig),
    ],
)
def test_names_and_options_of_hydra_submitit_launcher_are_understood(
    name: str, given: dict[str, str], cls: type
) -> None:
    texts = [f"hydra.launcher.{key}={value}" for key, value in given.items()]
    config, rest, errors = take_options([f"hydra/launcher={name}", *texts, "cfg=CE"])
    assert (errors, rest) == ([], ["cfg=CE"])
    assert isinstance(config, cls)
    assert (config.timeout_min, config.name, config.stderr_to_stdout) == (60, "job", False)


def test_options_that_only_slurm_excludes_are_none_of_local_jobs() -> None:
    given = ["cpus_per_task=2", "gpus_per_node=1"]
    config, _, errors = take_options([f"hydra.launcher.{text}" for text in given])
    assert not errors
    assert (config.cpus_per_task, config.gpus_per_node) == (2, 1)


def test_names_folders_and_errors_of_jobs(tmp_path: Path) -> None:
    config = slurm_options(
        "name=mine", "stderr_to_stdout=false", "timeout_min=null", f"submitit_folder={tmp_path}/%j"
    )
    assert Submitter(config, Path("/store")).folder == tmp_path
    text = script(tmp_path / "y.sh", config, "0-1%2", [])
    for line in ("--job-name=mine\n", f"--error={tmp_path}/%A_%a.err\n", "srun .* --error="):
        assert re.search(line, text), text
    assert "--time" not in text


@pytest.mark.parametrize("text", ["nodes=2", "tasks_per_node=4"])
def test_a_job_is_one_process(text: str) -> None:
    for launcher in ("submitit_slurm", "submitit_local"):
        _, _, errors = take_options([f"hydra/launcher={launcher}", f"hydra.launcher.{text}"])
        assert any("must be in 1 … 1" in error for error in errors)


def test_local_jobs_without_a_gpu_and_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Local(LocalConfig(gpus_per_node=0, timeout_min=1), tmp_path)
    assert (launcher.gpus, launcher.slots) == ([""], 1)
    signals = []
    monkeypatch.setattr(local_jobs.os, "kill", lambda pid, number: signals.append(number))
    process = SimpleNamespace(pid=17, is_alive=lambda: True)
    launcher.ends["a"] = float("inf")
    launcher._check_time("a", process)
    assert not signals
    launcher.ends["a"] = 0.0
    launcher._check_time("a", process)
    launcher._check_time("a", process)  # not again at once
    assert len(signals) == 1
    found = launcher._after("a", 75)
    assert (found.state, "timeout_min=1" in found.note) == (FAILED, True)


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({"jobs_parallel": 1}, None),
        ({"jobs_parallel": 2}, 3),
        ({"jobs_parallel": 8}, 1),
        ({"jobs_parallel": 2, "cpus_per_task": 5}, 5),
    ],
)
def test_local_jobs_share_the_cores(
    options: dict[str, int], threads: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert Local(LocalConfig(**options), tmp_path).threads == threads


def test_a_local_job_has_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import torch\ndef main(words): print(torch.get_num_threads(), 'threads')"
    (tmp_path / "threads_program").mkdir()
    (tmp_path / "threads_program" / "__init__.py").touch()
    (tmp_path / "threads_program" / "__main__.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    launcher = Local(LocalConfig(jobs_parallel=2, cpus_per_task=3), tmp_path)
    launcher.submit([Task("one", "threads_program", ())])
    while launcher.poll()["one"].state not in (DONE, FAILED):
        time.sleep(0.05)
    assert "3 threads" in launcher.log_of("one").read_text()


def test_the_shipped_defaults_fit_a_node_of_one_core_and_4_gb() -> None:
    config = slurm_options()
    assert (config.cpus_per_task, config.gres) == (1, "auto")
    assert config.mem_gb * 1024 < 3700


def test_the_shipped_file_has_every_option_with_its_default() -> None:
    for name, one in (("slurm", SlurmConfig()), ("local", LocalConfig())):
        assert take_options([f"hydra/launcher={name}"]) == (one, [], [])
        assert take_options([f"hydra/launcher=submitit_{name}"]) == (one, [], [])
        written = read_yaml(CONF / f"hydra/launcher/submitit_{name}.yaml").keys()
        assert written == vars(one).keys() | {"_target_"}


def test_every_option_of_hydra_submitit_launcher_is_one_here() -> None:
    for theirs, ours in ((SlurmQueueConf, SlurmConfig), (LocalQueueConf, LocalConfig)):
        assert {f.name for f in fields(theirs)} - {"_target_"} <= {f.name for f in fields(ours)}


@pytest.mark.parametrize("config", [SlurmConfig(setup=["echo ${HOME}"]), LocalConfig()])
def test_students_are_run_by_a_launcher_of_hydra(
    config: SlurmConfig | LocalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(multirun, "launch", lambda *arguments: found.append(arguments))
    launcher = multirun._of_hydra(config, ["-m", "cfg=CE"])
    bases = [base.__name__ for base in type(launcher).__mro__]
    assert "BaseSubmititLauncher" in bases
    assert type(launcher) in Plugins.instance().discover(Launcher)
    launcher.launch([["cfg=CE"]], 0)
    assert found == [([["cfg=CE"]], config, ["-m", "cfg=CE"])]


def test_a_launcher_of_the_users_own_begins_with_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hydra" / "launcher"
    folder.mkdir(parents=True)
    text = "defaults: [submitit_slurm]\npartition: big\n"
    (folder / "dgx.yaml").write_text(text)
    (folder / "strange.yaml").write_text("_target_: elsewhere.Launcher\n")
    monkeypatch.setenv("ASIB_CONF", str(tmp_path))
    config, _, errors = take_options(["hydra/launcher=dgx", "hydra.launcher.qos=high"])
    assert (config, errors) == (SlurmConfig(partition="big", qos="high"), [])
    _, _, errors = take_options(["hydra/launcher=strange"])
    assert "elsewhere.Launcher: no launcher of ours" in errors[0]


def test_the_same_experiment_is_one_job() -> None:
    request = multirun.read(["cfg=CE", "method.ib_beta=0.1,0.2", SMALL])
    assert len(request.students) == 1
    assert request.same == (
        "one experiment, run once: distill-CE-digits-s0 with method.ib_beta=0.1 and with "
        "method.ib_beta=0.2",
    )
    assert multirun.read(["cfg=CE", "seed=1,1", SMALL]).same == (
        "given twice, run once: distill-CE-digits-s1",
    )
    assert multirun.read(["cfg=CE", "seed=0,1", SMALL]).same == ()


def test_a_plan_has_what_varies_besides_rung_and_seed() -> None:
    students = multirun.read(["cfg=L1", "seed=0,1", "method.ib_beta=1e-5,1e-3", SMALL]).students
    assert set(multirun.settings(students)) == {
        (("method.ib_beta", "1e-05"),),
        (("method.ib_beta", "0.001"),),
    }
    assert multirun.settings(students[:1]) == [()]


def test_functions_of_hydra_are_one_message_where_python_runs_without_assertions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def parse_override(self, text: str) -> None:
            raise AttributeError("'TerminalNodeImpl' object has no attribute 'function'")

    monkeypatch.setattr(overrides, "OverridesParser", SimpleNamespace(create=Broken))
    with pytest.raises(ConfigError, match=r"seed=range\(0,2\).*needs Python without -O"):
        multirun.read(["cfg=CE", "seed=range(0,2)"])


def test_names_differ_where_students_do() -> None:
    request = multirun.read(["cfg=L1", "method.ib_beta=0.1,0.2", SMALL])
    first, second = request.students
    assert first.name == f"distill-L1-digits-s0-{first.key}" != second.name


def tasks(store: Store, *overrides: str) -> dict[str, list[Task]]:
    """The tasks of a multirun, by verb."""
    found: dict[str, list[Task]] = {"finetune": [], "bank": [], "distill": []}
    for task in multirun.tasks_of(multirun.read([*overrides, SMALL]).students, store, ()):
        assert all(name in {t.name for ts in found.values() for t in ts} for name in task.after)
        found[task.arguments[0]].append(task)
    return found


def test_missing_teachers_and_banks_are_one_job_each_before_students(
    tmp_path: Path,
) -> None:
    found = tasks(Store(tmp_path), "cfg=CE,KD", "seed=0,1")
    for verb in ("finetune", "bank"):
        assert [task.arguments[1] for task in found[verb]] == ["teacher=0", "teacher=1"]
    assert [t.after for t in found["bank"]] == [(t.name,) for t in found["finetune"]]
    waits = {task.name: set(task.after) for task in found["distill"]}
    assert waits["distill-CE-digits-s0"] == set()
    assert waits["distill-KD-digits-s1"] == {t.name for t in found["finetune"] + found["bank"]}


def test_what_is_finished_is_no_job(tmp_path: Path) -> None:
    store, config = Store(tmp_path), compose(["cfg=KD", SMALL])
    for number in (0, 1):
        folder = store.run("finetune", run_key("finetune", config, teacher=number))
        folder.finish(records.result())
    store.run("bank", bank_key(config, 0)).write_json(
        "bank", {"parts": [], "val": "0", "seconds": 1.0}
    )
    found = tasks(store, "cfg=KD", "seed=0,1")
    assert not found["finetune"]
    (bank,) = found["bank"]
    assert (bank.arguments[1], bank.after) == ("teacher=1", ())
    assert {task.after for task in found["distill"]} == {(bank.name,)}


def test_fresh_crops_need_no_banks(tmp_path: Path) -> None:
    found = tasks(Store(tmp_path), "cfg=KD", "seed=0,1", "data.views=0")
    assert (len(found["finetune"]), len(found["bank"]), len(found["distill"])) == (2, 0, 2)


# Local ----------------------------------------------------------------------------------------


def local(tmp_path: Path, **states: str) -> Local:
    """A launcher in which no process can start."""
    found = Local(LocalConfig(jobs_parallel=1), tmp_path)
    found.slots = 0
    for name, state in states.items():
        found.tasks[name], found.status[name] = Task(name, "pipeline", ()), Status(state)
    return found


def test_a_task_that_depends_on_a_failed_job_does_not_run(tmp_path: Path) -> None:
    launcher = local(tmp_path, teacher=FAILED)
    launcher.tasks["student"] = Task("student", "pipeline", (), after=("teacher",))
    launcher.status["student"] = Status()
    assert launcher.poll()["student"].state == FAILED


@pytest.mark.parametrize(
    ("code", "state"), [(0, DONE), (75, WAITING), (1, FAILED), (2, FAILED), (-9, FAILED)]
)
def test_status_after_an_exit_code(tmp_path: Path, code: int, state: str) -> None:
    assert local(tmp_path, a=RUNNING)._after("a", code).state == state


def test_a_failed_job_s_line_has_the_reason(tmp_path: Path) -> None:
    launcher = local(tmp_path, a=RUNNING)
    Ending(1, "NonFinite: train/loss/kd is not finite at epoch 3").save(launcher._ending_file("a"))
    reason = "NonFinite: train/loss/kd is not finite at epoch 3: see"
    assert launcher._after("a", 1).note.startswith(reason)
    assert launcher._after("a", 2).note.startswith("exit 2: see")  # the file is of another end


def test_a_killed_worker_is_restarted_a_limited_number_of_times(tmp_path: Path) -> None:
    launcher = local(tmp_path)
    launcher.tasks["w"] = Task("w", "sweeps", (), restarts=1)
    assert [launcher._after("w", -9).state for _ in range(2)] == [WAITING, FAILED]


def test_after_a_request_to_stop_no_task_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = local(tmp_path, a=WAITING)
    launcher.slots = 1
    monkeypatch.setattr(local_jobs, "_SERVER", None)  # no process can start
    with pytest.raises(Interrupted):
        follow(launcher, SimpleNamespace(stop=lambda: True))
    assert launcher.status["a"] == Status(HALTED, "not started")


def test_a_job_that_was_starting_up_is_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, signals = local(tmp_path, a=RUNNING), []

    def cancel() -> None:
        launcher.stopping = True
        signals.append(1)
        if len(signals) == 2:  # now it receives it
            launcher.status["a"] = launcher._after("a", -15)

    monkeypatch.setattr(launcher, "cancel", cancel)
    monkeypatch.setattr(monitor, "SIGNAL_S", 0.0)
    with pytest.raises(Interrupted):
        follow(launcher, SimpleNamespace(stop=lambda: True))
    assert launcher.status["a"].state == HALTED


def test_a_job_of_several_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.ranks=2: distill -m is one process"):
        multirun.read(["cfg=CE", "seed=0,1", "runtime.ranks=2", SMALL])


def test_torchrun_does_not_start_a_multirun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"distill -m is one process, and torchrun has started 2"):
        multirun.read(["cfg=CE", "seed=0,1", SMALL])
