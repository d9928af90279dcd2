"""Gaps that differ in the rung alone are one command."""

from analysis import tags
from analysis.missing import merged
from analysis.report_model import MissingRun
from tests.analysis.frames import bench_runs, distill, runs

RUN = "python -m pipeline distill"


def gap(rung: str, what: str, options: str) -> MissingRun:
    return MissingRun(f"{rung} {what}", f"{RUN} {options}")


def test_rungs_of_one_kind_are_one_command():
    assert merged(
        [
            gap("CE", "has not finished", "-m bench=toy cfg=CE seed=0,1"),
            gap("KD", "has not finished", "-m bench=toy cfg=KD seed=0,1"),
            gap("L0", "has no seed 1", "bench=toy cfg=L0 seed=1"),
            gap("L1", "has no seed 1", "bench=toy cfg=L1 seed=1"),
            gap("CE", "has not finished", "-m bench=toy cfg=CE seed=0,1"),
        ]
    ) == (
        MissingRun("CE and KD have not finished", f"{RUN} -m bench=toy cfg=CE,KD seed=0,1"),
        MissingRun("L0 and L1 have no seed 1", f"{RUN} -m bench=toy cfg=L0,L1 seed=1"),
    )


def test_commands_have_the_launcher_of_the_latest_run():
    launcher = {
        f"tags.{tags.LAUNCHER}": "hydra/launcher=submitit_slurm hydra.launcher.partition=gpu"
    }
    of = bench_runs(runs(distill("CE", 0, 0.5), distill("KD", 0, 0.6, **launcher)))
    assert of.multirun(cfg="L0").endswith(
        "bench=toy hydra/launcher=submitit_slurm hydra.launcher.partition=gpu cfg=L0 seed=0,1,2"
    )
    of = bench_runs(runs(distill("CE", 0, 0.5, **launcher), distill("KD", 0, 0.6)))
    assert "launcher" not in of.multirun(cfg="L0")


def test_other_options_and_other_verbs_are_other_commands():
    gaps = [
        gap("L1", "has no seed 1", "bench=toy method.ib_beta=0.1 cfg=L1 seed=1"),
        gap("L2", "has no seed 1", "bench=toy cfg=L2 seed=1"),
        gap("kd", "has no seed 1", "bench=toy method=kd seed=1"),
        MissingRun("no study has run", "python -m sweeps joint"),
    ]
    assert merged(gaps) == tuple(gaps)


def test_a_merged_command_is_quoted_for_a_shell():
    gaps = [gap(r, "has no seed 1", f"'bench=my bench' cfg={r} seed=1") for r in ("L1", "L2")]
    (found,) = merged(gaps)
    assert found.command == f"{RUN} -m 'bench=my bench' cfg=L1,L2 seed=1"
