"""The launcher for Slurm with scripts in place of Slurm's commands: what is submitted and followed,
and what happens while they fail, hang, or answer nonsense."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import ConfigError
from pipeline.launch import controller, monitor, slurm, submission
from pipeline.launch.base import DONE, FAILED, NOT_RUN, RUNNING, WAITING, Status, Task
from pipeline.launch.ending import CANCELLED, LOST, Ending
from pipeline.launch.monitor import check_refused, follow, leaving_jobs
from pipeline.launch.options import SlurmConfig
from pipeline.outcome import JobsLeft
from tests.pipeline.launch.fake_slurm import FakeSlurm
from trainers.errors import Interrupted

TEACHER = Task("teacher", "pipeline", ("finetune",))
STUDENTS = [Task(name, "pipeline", ("distill",), after=("teacher",)) for name in ("a", "b")]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for what takes minutes."""
    monkeypatch.setattr(slurm, "_STUCK_S", 0.0)
    monkeypatch.setattr(slurm, "_ROOM_S", 0.0)
    monkeypatch.setattr(slurm, "_PAUSE_S", 0.01)
    monkeypatch.setattr(submission, "SETTLE_S", 0.0)
    monkeypatch.setattr(slurm, "SETTLE_S", 0.0)


def launcher(folder: Path, **options: object) -> slurm.Slurm:
    """A launcher that looks at every poll."""
    found = slurm.Slurm(SlurmConfig(**options), folder / "jobs")
    found.config.poll_s = 0.0
    return found


def ended(folder: Path, job: str, code: int = 1, reason: str = "", how: str = "") -> None:
    """The file that a job leaves."""
    Ending(code, reason, how).save(Ending.file(folder / "jobs" / "jobs", job))


def states(one: slurm.Slurm) -> list[str]:
    return [status.state for status in one.poll().values()]


# Submitting -----------------------------------------------------------------------------------


def test_students_are_an_array_that_waits_for_the_teacher(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path, partition="gpu", timeout_min=30, cpus_per_task=4)
    one.submit([TEACHER, *STUDENTS])
    assert one.jobs == {"teacher": "17", "a": "18_0", "b": "18_1"}
    scripts = fake.read("scripts")
    for flag in (
        "--dependency=afterok:17",
        "--kill-on-invalid-dep=yes",
        "--partition=gpu",
        "--array=0-1%2",
        "--signal=USR2@120",
        "--requeue",
        "--gres=gpu:1",
        "--time=30",
    ):
        assert f"#SBATCH {flag}\n" in scripts, scripts
    assert re.search(r"^srun .*--cpus-per-task=4 ", scripts, re.M)  # srun does not inherit it


def test_the_same_command_follows_the_jobs_in_the_queue(fake: FakeSlurm, tmp_path: Path) -> None:
    first, again = (launcher(tmp_path) for _ in range(2))  # at once
    first.submit([TEACHER, *STUDENTS])
    fake.queue("18_0 RUNNING", "18_1 PENDING (Priority)", "99 RUNNING", "7+0 RUNNING")
    again.submit(STUDENTS)
    assert again.jobs["a"] == "18_0"
    assert list(again.poll().values()) == [
        Status(RUNNING, "job 18_0 running"),
        Status(WAITING, "job 18_1 pending: Priority"),
    ]
    assert again.cancel() == 2
    assert fake.read("cancelled").split() == ["18_0", "18_1"]


def test_jobs_are_submitted_after_their_dependencies(fake: FakeSlurm, tmp_path: Path) -> None:
    bank = Task("bank", "pipeline", ("bank",), after=("teacher",))
    student = Task("student", "pipeline", ("distill",), after=("bank",))
    one = launcher(tmp_path)
    one.submit([TEACHER, bank, student])
    assert one.jobs == {"teacher": "17", "bank": "18", "student": "19"}
    assert "--dependency=afterok:17" in fake.read("scripts")
    assert "--dependency=afterok:18" in fake.read("scripts")


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("sbatch: error: invalid partition specified: nope", "partition=null"),
        ("sbatch: error: CPU count per node can not be satisfied", "cpus_per_task=1"),
        ("sbatch: error: Memory specification can not be satisfied", "mem_gb=3.5"),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit", "timeout_min=240"),
        ("sbatch: unrecognized option '--foo=1'", "additional_parameters={}"),
        ("sbatch: error: something new", "*"),
    ],
)
def test_a_job_that_slurm_refuses_is_one_message_with_the_option(
    fake: FakeSlurm, tmp_path: Path, line: str, option: str
) -> None:
    policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    fake.write("refusal", f"{line}\nsbatch: error: Batch job submission failed: {policy}\n")
    fake.mode("sbatch", "refuse")
    with pytest.raises(ConfigError) as raised:
        launcher(tmp_path).submit([TEACHER])
    assert f"hydra.launcher.{option}" in str(raised.value)
    assert line in str(raised.value)
    assert not (tmp_path / "jobs" / "submitting.json").exists()


def test_jobs_submitted_before_a_refused_one_are_recorded(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 PENDING None")
    fake.write("refusal", "sbatch: error: Invalid feature specification\n")
    fake.mode("sbatch", "refuse")
    with pytest.raises(ConfigError, match="constraint"):
        launcher(tmp_path).submit([TEACHER, *STUDENTS])
    assert launcher(tmp_path).jobs == {"teacher": "17"}


def test_arrays_have_at_most_the_size_that_the_site_allows(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.write("config", "MaxArraySize            = 5\nMaxJobCount = 10000\n")
    one = launcher(tmp_path, array_parallelism=6)
    one.submit([Task(f"s{number}", "pipeline", ()) for number in range(11)])
    assert [one.jobs[f"s{k}"] for k in (0, 4, 5, 10)] == ["17_0", "17_4", "18_0", "19"]
    assert fake.read("scripts").count("--array=0-4%2") == 2  # six at once in all


@pytest.mark.parametrize(("text", "size"), [("", 1000), ("max_array_tasks=3,MaxArraySize = 9", 3)])
def test_the_size_of_arrays_is_slurms_default_or_the_smaller_limit(
    fake: FakeSlurm, tmp_path: Path, text: str, size: int
) -> None:
    fake.write("config", text)
    one = submission.Submitter(SlurmConfig(), tmp_path)
    assert one.largest_array(controller.never) == size


def test_what_the_site_has_no_room_for_is_submitted_later(fake: FakeSlurm, tmp_path: Path) -> None:
    """Smaller arrays as long as they are accepted; the rest when there is room."""
    tasks = [Task(f"s{number}", "pipeline", ()) for number in range(4)]
    fake.mode("sbatch", "room array=0-1%")
    fake.queue("5 RUNNING None")  # another job of this user
    one = launcher(tmp_path)
    one.submit(tasks)
    assert one.jobs == {"s0": "17_0", "s1": "17_1", "s2": "18_0", "s3": "18_1"}
    fake.mode("sbatch", "full")
    fake.queue("17_0 RUNNING", "17_1 RUNNING", "18_0 RUNNING", "18_1 PENDING")
    more = launcher(tmp_path)
    more.submit([*tasks, Task("s4", "pipeline", ())])
    note = "not submitted yet, no room: sbatch: error: AssocMaxSubmitJobLimit"
    assert more.poll()["s4"] == Status(WAITING, note)
    assert more.left() == (
        "4 jobs keep running; 1 are not submitted yet, the same command submits them"
    )
    fake.mode("sbatch", "ok")
    more.poll()
    assert more.jobs["s4"] == "19"


def test_a_site_that_accepts_no_job_at_all_is_an_error(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.mode("sbatch", "full")
    with pytest.raises(ConfigError, match=r"not even one job: .*AssocMaxSubmitJobLimit"):
        launcher(tmp_path).submit([TEACHER])


@pytest.mark.parametrize(
    ("sinfo", "options", "flag"),
    [
        ("main*|gpu:1\n", {}, "--gres=gpu:1"),
        ("main*|(null)\nfast|gpu:4\n", {}, None),
        ("main*|(null)\nfast|gpu:4\n", {"partition": "fast"}, "--gres=gpu:1"),
        ("main*|gpu:1\n", {"gres": None}, None),
        ("main*|gpu:1\n", {"gpus_per_node": "2"}, "--gpus-per-node=2"),
        ("", {}, "--gres=gpu:1"),
    ],
)
def test_a_gpu_is_asked_for_where_the_partition_has_one(
    fake: FakeSlurm, tmp_path: Path, sinfo: str, options: dict[str, str], flag: str | None
) -> None:
    fake.write("partitions", sinfo)
    launcher(tmp_path, **options).submit([TEACHER])
    found = re.findall(r"#SBATCH (--g\S+)", fake.read("scripts"))
    assert found == ([flag] if flag else [])


# Answers that are lost ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["lost", "garbage"])
def test_a_submission_whose_answer_was_lost_is_not_repeated(
    fake: FakeSlurm, tmp_path: Path, mode: str
) -> None:
    fake.mode("sbatch", mode)
    one = launcher(tmp_path)
    one.submit([TEACHER])
    assert one.left() == "1 job keeps running"  # it may
    fake.mode("sbatch", "ok")
    fake.queue("17 RUNNING None")
    one.poll()
    assert one.jobs == {"teacher": "17"}
    assert one.poll()["teacher"].state == RUNNING
    assert fake.read("n") == "18\n"


def test_a_submission_that_never_arrived_is_repeated(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.mode("sbatch", "away")
    one = launcher(tmp_path)
    one.submit([TEACHER])
    assert states(one) == [WAITING]
    fake.mode("sbatch", "ok")
    for _ in range(3):
        one.poll()
    assert one.jobs == {"teacher": "17"}


def test_a_job_whose_command_was_killed_after_sbatch_is_found(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.mode("sbatch", "lost")  # as if this process had been killed before it read the answer
    launcher(tmp_path).submit([TEACHER])
    fake.mode("sbatch", "ok")
    fake.queue("17 PENDING Priority")
    again = launcher(tmp_path)
    again.submit([TEACHER])
    again.poll()
    assert again.jobs == {"teacher": "17"}
    assert again.cancel() == 1


def test_a_damaged_list_of_jobs_is_reported_and_left_out(fake: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "slurm.json").write_text('{"teacher": "1')
    (tmp_path / "jobs" / "submitting.json").write_text("[]")
    one = launcher(tmp_path)
    one.submit([TEACHER])
    assert one.jobs == {"teacher": "17"}


# A controller that is away --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["away", "swallowed", "garbage", "missing", "no right"])
def test_a_look_that_fails_keeps_the_last_status_and_is_reported_once(
    fake: FakeSlurm, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 RUNNING")
    assert states(one) == [RUNNING]
    path = fake.folder / "squeue"
    if mode == "missing":
        path.rename(fake.folder / "aside")
    elif mode == "no right":
        path.chmod(0)
    else:
        fake.mode("squeue", mode)
    fake.queue()
    assert [states(one) for _ in range(3)] == [[RUNNING]] * 3
    assert capsys.readouterr().out.count("Slurm gives no answer") == 1
    if mode == "missing":
        (fake.folder / "aside").rename(path)
    path.chmod(0o755)
    fake.mode("squeue", "ok")
    ended(tmp_path, "17", 0)
    assert states(one) == [DONE]
    assert "Slurm answers again" in capsys.readouterr().out


def test_a_look_that_hangs_does_not_hold_up_a_request_to_stop(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.mode("squeue", "hang")
    began = time.monotonic()
    with pytest.raises(JobsLeft, match="1 job keeps running"):
        follow(one, SimpleNamespace(stop=lambda: time.monotonic() - began > 0.3))
    assert time.monotonic() - began < 3
    one._call.kill()


def test_a_look_that_hangs_is_given_up(fake: FakeSlurm) -> None:
    fake.mode("squeue", "hang")
    with pytest.raises(controller.Away, match=r"no answer in 0\.2 s"):
        controller.ask("squeue", patience_s=0.2)


def test_after_too_long_the_jobs_are_left_alone(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path, away_min=0)
    one.submit([TEACHER])
    fake.mode("squeue", "away")
    with pytest.raises(JobsLeft, match=r"not answered for 0 min .*1 job keeps running"):
        one.poll()


def test_a_controller_that_is_away_at_the_start_is_waited_for(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.mode("squeue", "away")
    one = launcher(tmp_path)
    one.submit([TEACHER])
    assert states(one) == [WAITING]
    assert one.left() == ""
    with pytest.raises(Interrupted, match="no job is left in the queue") as raised:
        follow(one, SimpleNamespace(stop=lambda: True))
    assert not isinstance(raised.value, JobsLeft)
    fake.mode("squeue", "ok")
    one.poll()
    assert one.jobs == {"teacher": "17"}


def test_jobs_of_an_earlier_command_are_left_where_slurm_cannot_be_asked(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    launcher(tmp_path).submit([TEACHER])
    fake.mode("squeue", "away")
    again = launcher(tmp_path)
    again.submit([TEACHER])
    with pytest.raises(JobsLeft):
        follow(again, SimpleNamespace(stop=lambda: True))


@pytest.mark.parametrize("stopped", [Interrupted, KeyboardInterrupt])
def test_a_stop_at_any_moment_after_submission_leaves_the_jobs(
    fake: FakeSlurm, tmp_path: Path, stopped: type[BaseException]
) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    with pytest.raises(JobsLeft, match="--cancel"), leaving_jobs(one):
        raise stopped
    with pytest.raises(stopped), leaving_jobs(launcher(tmp_path / "other")):
        raise stopped  # nothing was submitted


def test_a_cancel_waits_for_the_controller(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 RUNNING")
    fake.mode("scancel", "away 2")
    fake.mode("squeue", "away 2")
    assert one.cancel() == 1
    assert fake.read("cancelled") == "17\n"


def test_a_job_that_ended_before_scancel_is_no_error(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 RUNNING")
    fake.mode("scancel", "gone")
    assert one.cancel() == 1
    fake.mode("scancel", "refuse")
    with pytest.raises(ConfigError, match="permission denied"):
        one.cancel()


def test_filters_of_the_users_environment_do_not_hide_jobs(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "debug")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "4000")  # of an interactive job
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    found = controller.environment()
    assert {name for name in found if name.startswith(("SQUEUE", "SLURM"))} == {"SLURM_CONF"}


# Why jobs wait and how they end ---------------------------------------------------------------


def test_a_job_that_can_never_start_is_an_error_with_what_to_type(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.write("partitions", "main*|2:00:00|2|4000|(null)\n")
    one = launcher(tmp_path, gres=None)
    one.submit([TEACHER, *STUDENTS])
    fake.queue(
        "17 PENDING PartitionTimeLimit", "18_0 PENDING Dependency", "18_1 PENDING Dependency"
    )
    one.poll()
    found = one.poll()
    assert found["teacher"].refused
    for part in ("PartitionTimeLimit", "timeout_min=240", "main* up to 2:00:00"):
        assert part in found["teacher"].note
    assert fake.read("cancelled").split()[0] == "17"
    fake.queue("17 CANCELLED None", "18_0 CANCELLED Dependency", "18_1 CANCELLED Dependency")
    found = one.poll()
    assert {found[name] for name in ("a", "b")} == {Status(FAILED, NOT_RUN)}
    with pytest.raises(ConfigError, match="can never start"):
        check_refused(found)


def test_a_held_job_is_no_error_and_says_what_starts_it(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 PENDING JobHeldUser")
    note = "job 17 pending: JobHeldUser; `scontrol release 17` starts it"
    assert one.poll()["teacher"] == Status(WAITING, note)


def test_a_failed_job_s_line_has_the_reason(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER, *STUDENTS])
    ended(tmp_path, "17", 1, "NonFinite: train/loss/kd is not finite at epoch 3")
    found = one.poll()
    assert found["teacher"].note == (
        "job 17: NonFinite: train/loss/kd is not finite at epoch 3: see "
        + str(one.log_of("teacher"))
    )
    assert {found[name] for name in ("a", "b")} == {Status(FAILED, NOT_RUN)}


def test_the_queue_is_read_again_for_a_second_round_of_jobs(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    ended(tmp_path, "17")
    assert states(one) == [FAILED]
    one.submit([TEACHER])
    fake.queue("18 RUNNING")
    assert one.poll()["teacher"] == Status(RUNNING, "job 18 running")


def test_a_job_that_died_before_it_ran_is_failed_with_the_end_of_its_log(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 FAILED NonZeroExitCode")
    (tmp_path / "jobs" / "jobs" / "17.out").write_text("module: command not found\n")
    assert states(one) == [RUNNING]  # its file may still be on its way
    monkeypatch.setattr(slurm, "_ABSENT_S", 0.0)
    found = one.poll()["teacher"]
    assert (found.state, found.cancelled) == (FAILED, False)
    assert "failed, without a result; its log ends with: module: command not found" in found.note


def test_only_a_cancelled_job_is_cancelled(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path)
    one.submit([TEACHER])
    fake.queue("17 CANCELLED None")
    one.poll()
    assert one.poll()["teacher"].cancelled


@pytest.mark.parametrize(
    ("queue", "log", "file"),
    [
        ("17 TIMEOUT TimeLimit", "", None),
        ("17 PREEMPTED None", "", None),
        ("17 NODE_FAIL None", "", None),
        ("17 TIMEOUT TimeLimit", "", Ending(1, "interrupted, cancelled", CANCELLED)),
        ("", "", Ending(1, "interrupted, and Slurm did not requeue it", LOST)),
        ("", "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", None),
        ("", "error: *** STEP 17.0 ON n1 CANCELLED AT 2026-11 DUE TO PREEMPTION ***", None),
    ],
)
def test_a_job_whose_warning_was_lost_goes_back_into_the_queue(
    fake: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    queue: str,
    log: str,
    file: Ending | None,
) -> None:
    """With those that wait for it, whose jobs Slurm drops; as often as it is allowed."""
    monkeypatch.setattr(slurm, "_ABSENT_S", 0.0)
    one = launcher(tmp_path, max_num_timeout=1)
    one.submit([TEACHER, *STUDENTS])
    fake.queue(queue, "18_0 PENDING Dependency", "18_1 PENDING Dependency")
    (tmp_path / "jobs" / "jobs" / "17.out").write_text(f"{log}\n")
    if file is not None:
        file.save(Ending.file(tmp_path / "jobs" / "jobs", "17"))
    for _ in range(3):
        if one.jobs["teacher"] == "17":
            one.poll()
    assert one.jobs == {"teacher": "19", "a": "20_0", "b": "20_1"}
    assert fake.read("cancelled").split() == ["18_0", "18_1"]
    assert "--dependency=afterok:19" in fake.read("scripts")
    fake.queue("19 TIMEOUT TimeLimit", "20_0 CANCELLED Dependency", "20_1 CANCELLED Dependency")
    for _ in range(3):
        found = one.poll()
    assert "out of time" in found["teacher"].note
    assert "submitted again 1 times" in found["teacher"].note
    assert {one.state for one in found.values()} == {FAILED}


def test_a_cancelled_launch_submits_nothing_more(fake: FakeSlurm, tmp_path: Path) -> None:
    """Another command cancels while this one has jobs that are not submitted yet."""
    fake.queue("5 RUNNING None")
    fake.mode("sbatch", "full")
    one = launcher(tmp_path)
    one.submit([TEACHER])
    launcher(tmp_path).cancel()
    fake.mode("sbatch", "ok")
    assert one.poll()["teacher"].cancelled
    assert one.jobs == {}


def test_out_of_memory_names_the_option(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path, mem_gb=2)
    one.submit([TEACHER])
    fake.queue("17 OUT_OF_MEMORY OutOfMemory")
    one.poll()
    assert "more than hydra.launcher.mem_gb=2" in one.poll()["teacher"].note


def test_without_slurm_the_message_names_the_local_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="hydra/launcher=submitit_local"):
        slurm.Slurm(SlurmConfig(), tmp_path)


def test_a_reason_that_comes_and_goes_is_one_line(
    fake: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr(monitor, "LOOK_S", 0.0)
    one, turns = launcher(tmp_path), iter(["Priority", "Resources", "Priority", "Resources"])
    one.submit([TEACHER])

    def tell() -> None:
        reason = next(turns, None)
        fake.queue(f"17 PENDING {reason}" if reason else "")
        if reason is None:
            ended(tmp_path, "17", 0)

    follow(one, SimpleNamespace(stop=lambda: False), tell=tell)
    assert capsys.readouterr().out.count("pending: Priority") == 1


def test_runs_share_jobs(fake: FakeSlurm, tmp_path: Path) -> None:
    """With the cores and memory of each; what others depend on has a job to itself."""
    tasks = [Task(f"s{k}", "pipeline", ("distill",), after=("teacher",)) for k in range(5)]
    one = launcher(tmp_path, runs_per_job=2, cpus_per_task=3, mem_gb=2, array_parallelism=2)
    one.submit([TEACHER, *tasks])
    shared = {"s0": "18_0.0", "s1": "18_0.1", "s2": "18_1.0", "s3": "18_1.1", "s4": "18_2.0"}
    assert one.jobs == {"teacher": "17"} | shared
    alone, packed = fake.read("scripts").split("#!/bin/bash\n")[1:]
    assert "pipeline.launch.slurm_job" in alone
    assert "#SBATCH --cpus-per-task=3\n" in alone
    assert "pipeline.launch.packed_job" in packed
    for flag in ("--array=0-2%2", "--cpus-per-task=6", "--mem=4096M", "--dependency=afterok:17"):
        assert f"#SBATCH {flag}\n" in packed
    assert "--cpus-per-task=6" in packed.splitlines()[-1]


def test_of_runs_that_share_a_job_each_has_its_own_end(fake: FakeSlurm, tmp_path: Path) -> None:
    one = launcher(tmp_path, runs_per_job=3)
    one.submit([Task(name, "pipeline", ()) for name in ("a", "b", "c")])
    fake.queue("17 RUNNING None")
    ended(tmp_path, "17.0", 0)
    assert states(one) == [RUNNING] * 3  # its job may yet be requeued
    fake.queue("17 FAILED NonZeroExitCode")
    ended(tmp_path, "17.1", 1, "NonFinite: loss")
    (tmp_path / "jobs" / "jobs" / "17.1.out").touch()
    ended(tmp_path, "17.2", 1, "interrupted, cancelled", CANCELLED)
    found = one.poll()
    assert [found[name].state for name in "abc"] == [DONE, FAILED, FAILED]
    assert "NonFinite: loss" in found["b"].note
    assert "17.1.out" in found["b"].note
    assert found["c"].cancelled


def test_runs_of_a_job_that_is_out_of_time_are_submitted_together(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    """But for the one that was finished."""
    one = launcher(tmp_path, runs_per_job=3)
    one.submit([Task(name, "pipeline", ()) for name in ("a", "b", "c")])
    fake.queue("17 TIMEOUT TimeLimit")
    ended(tmp_path, "17.0", 0)
    log = (
        "slurmstepd: error: *** STEP 17.0 ON n1 CANCELLED AT 2026-11-29T00:00:00 DUE TO TIME LIMIT"
    )
    (tmp_path / "jobs" / "jobs" / "17.out").write_text(f"{log} ***\n")
    for _ in range(3):
        if one.jobs["b"] == "17.1":
            one.poll()
    assert one.jobs == {"a": "17.0", "b": "18.0", "c": "18.1"}
    assert one.cancel() == 0
    fake.queue("18 RUNNING None")
    assert one.cancel() == 1
    assert fake.read("cancelled").split() == ["18"]


def test_runs_that_share_jobs_are_found_again_when_the_answer_was_lost(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.mode("sbatch", "lost")
    one = launcher(tmp_path, runs_per_job=2)
    one.submit([Task(name, "pipeline", ()) for name in ("a", "b", "c")])
    fake.mode("sbatch", "ok")
    for _ in range(3):
        one.poll()
    assert one.jobs == {"a": "17_0.0", "b": "17_0.1", "c": "17_1.0"}
    assert fake.read("n") == "18\n"


@pytest.mark.parametrize(
    ("log", "text", "state", "words"),
    [
        ("17.out", "module: command not found", FAILED, "ends with: module: command not found"),
        (
            "17.err",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=17.0.",
            FAILED,
            "give more than hydra.launcher.mem_gb=3.5, hydra.launcher.runs_per_job=2: see",
        ),
        (
            "17.err",
            "*** JOB 17 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***",
            WAITING,
            "submitted",
        ),
    ],
)
def test_the_log_of_a_shared_job_tells_why_its_runs_left_nothing(
    fake: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: str,
    text: str,
    state: str,
    words: str,
) -> None:
    """What Slurm writes is there, and no run may have begun a log of its own."""
    monkeypatch.setattr(slurm, "_ABSENT_S", 0.0)
    one = launcher(tmp_path, runs_per_job=2, stderr_to_stdout=False)
    one.submit([Task(name, "pipeline", ()) for name in ("a", "b")])
    (tmp_path / "jobs" / "jobs" / log).write_text(f"{text}\n")
    one.poll()
    for found in one.poll().values():
        assert found.state == state
        assert words in found.note
        assert state == WAITING or found.note.endswith("/17.out")
    (tmp_path / "jobs" / "jobs" / "17.0.out").touch()
    assert state == WAITING or one.log_of("a").name == "17.0.out"


def test_messages_name_the_job_that_slurm_knows(fake: FakeSlurm, tmp_path: Path) -> None:
    """`scancel 17.1` would end a step, which is that of all runs of the job."""
    one = launcher(tmp_path, runs_per_job=2)
    one.submit([Task(name, "pipeline", ()) for name in ("a", "b")])
    assert {found.note for found in one.poll().values()} == {"job 17 has left the queue"}
    fake.queue("17 RUNNING None")
    assert {found.note for found in one.poll().values()} == {"job 17 running"}
    assert one.left() == "1 job keeps running"


def test_a_shared_job_that_there_is_no_room_for_keeps_its_runs(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    """Fewer jobs are tried, never fewer runs in each."""
    fake.mode("sbatch", "room array=0-1%")
    fake.queue("5 RUNNING None")  # another job of this user
    one = launcher(tmp_path, runs_per_job=3)
    one.submit([Task(f"s{k}", "pipeline", ()) for k in range(15)])
    jobs = [one.jobs[f"s{k}"] for k in range(12)]
    assert jobs == [f"{n}_{j}.{part}" for n in (17, 18) for j in (0, 1) for part in range(3)]
    assert list(one.unsent) == ["s12", "s13", "s14"]
    fake.mode("sbatch", "ok")
    one.poll()
    assert [one.jobs[f"s{k}"] for k in (12, 13, 14)] == ["19.0", "19.1", "19.2"]


def test_arrays_of_shared_jobs_have_at_most_the_size_that_the_site_allows(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.write("config", "MaxArraySize            = 2\n")
    one = launcher(tmp_path, runs_per_job=2, array_parallelism=None)
    one.submit([Task(f"s{k}", "pipeline", ()) for k in range(5)])
    assert [one.jobs[f"s{k}"] for k in range(5)] == ["17_0.0", "17_0.1", "17_1.0", "17_1.1", "18"]


def test_a_submission_is_json_and_not_a_pickle(fake: FakeSlurm, tmp_path: Path) -> None:
    task = Task("a", "pipeline", ("distill", "runtime.experiment=it's"), (("A", "b"),), ("x",))
    path = submission.write(tmp_path, SlurmConfig(), [task], [], 1)
    (read,) = json.loads(path.with_suffix(".json").read_text())["tasks"]
    assert Task.of(read) == task
