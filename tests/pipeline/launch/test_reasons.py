"""Slurm's words: which jobs wait, which never start, which there is no room for."""

import pytest

from pipeline.launch import reasons
from pipeline.launch.options import SlurmConfig
from tests.pipeline.launch.fake_slurm import FakeSlurm

NEVER = {
    "PartitionTimeLimit": "timeout_min",
    "PartitionNodeLimit": "partition",
    "PartitionConfig": "cpus_per_task",
    "MaxMemPerLimit": "mem_gb",
    "QOSMaxWallDurationPerJobLimit": "timeout_min",
    "QOSMaxCpuPerJobLimit": "cpus_per_task",
    "QOSMaxCpuPerNode": "cpus_per_task",
    "QOSMaxMemoryPerJob": "mem_gb",
    "QOSMaxMemoryPerNode": "mem_gb",
    "QOSMaxGRESPerJob": "gres",
    "QOSMinGRES": "gres",
    "QOSMinCpuNotSatisfied": "cpus_per_task",
    "QOSMaxNodePerJobLimit": "partition",
    "QOSNotAllowed": "qos",
    "AssocMaxWallDurationPerJobLimit": "timeout_min",
    "AssocMaxCpuPerJobLimit": "cpus_per_task",
    "AssocMaxMemPerJob": "mem_gb",
    "InvalidAccount": "account",
    "InvalidQOS": "qos",
    "AccountNotAllowed": "account",
    "BadConstraints": "constraint",
    "ReservationDeleted": "reservation",
    "(PartitionTimeLimit)": "timeout_min",
    "Partition Time Limit": "timeout_min",
    "partition_time_limit": "timeout_min",
}
WAITS = (
    "",
    "None",
    "Priority",
    "Resources",
    "Dependency",
    "BeginTime",
    "Licenses",
    "Reservation",
    "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
    "ReqNodeNotAvail, May be reserved for other job",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    "PartitionDown",
    "PartitionInactive",
    "JobArrayTaskLimit",
    "QOSMaxJobsPerUserLimit",
    "QOSMaxCpuPerUserLimit",
    "QOSMaxGRESPerUser",
    "QOSMaxSubmitJobPerUserLimit",
    "QOSGrpCpuLimit",
    "QOSGrpWallLimit",
    "QOSGrpGRESMinutes",
    "AssocGrpCPUMinutesLimit",
    "AssocGrpMemLimit",
    "AssocMaxJobsLimit",
    "AssociationJobLimit",
    "JobHeldUser",
    "SchedDefer",
    "NodeDown",
)


@pytest.mark.parametrize("reason", NEVER)
def test_reasons_that_never_pass_name_the_option(reason: str) -> None:
    plain = reason.strip("()")
    assert reasons.never_starts(plain, SlurmConfig())
    assert NEVER[reason] in reasons.options_about(plain)


@pytest.mark.parametrize("reason", WAITS)
def test_other_reasons_pass(reason: str) -> None:
    assert not reasons.never_starts(reason, SlurmConfig())


def test_advice_about_what_a_job_has_for_each_run_tells_how_many_share_it(
    fake: FakeSlurm,
) -> None:
    found = reasons.advice("Memory specification can not be satisfied", SlurmConfig(runs_per_job=4))
    assert found == "hydra.launcher.mem_gb=3.5, hydra.launcher.runs_per_job=4"
    found = reasons.advice("invalid account", SlurmConfig(runs_per_job=4))
    assert found == "hydra.launcher.account=null"


def test_nodes_that_were_asked_for_may_come_back() -> None:
    assert not reasons.never_starts("PartitionNodeLimit", SlurmConfig(nodelist="n1"))


@pytest.mark.parametrize(
    "reason",
    [
        "JobHeldUser",
        "JobHeldAdmin",
        "launch failed requeued held",
        "launch_failed_requeued_held",
        "job requeued in held state",
        "JobHoldMaxRequeue",
    ],
)
def test_held_jobs_are_known(reason: str) -> None:
    assert reasons.is_held(reason)


@pytest.mark.parametrize(
    ("line", "full"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: QOSGrpSubmitJobsLimit", True),
        ("sbatch: error: AssocGrpSubmitJobsLimit", True),
        ("Job violates accounting/QOS policy (job submit limit, user's size ...)", True),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit", False),
        ("sbatch: error: QOSMaxCpuPerJobLimit", False),
        ("sbatch: error: invalid partition specified: nope", False),
    ],
)
def test_limits_of_submission_are_waited_for(line: str, full: bool) -> None:
    assert reasons.is_full(line) is full
