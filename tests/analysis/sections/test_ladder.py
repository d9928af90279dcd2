"""What is missing of a ladder, on frames written by hand."""

from dataclasses import replace

from analysis.sections import ladder, methods
from tests.analysis.frames import bench_runs, distill, params, runs


def test_ladder_names_the_seeds_that_are_missing_with_the_given_overrides():
    overrides = "cfg={} bench=toy data.train_limit=200 seed={}"
    rows = [
        distill(r, s, 0.5 + s / 100, **{"params.overrides": overrides.format(r, s)})
        for r in ("CE", "KD", "L0", "L1", "L2", "L3", "L4")
        for s in (0, 1, 2)
        if (r, s) != ("L4", 2)
    ]
    gaps = ladder.section(bench_runs(runs(*rows))).gaps
    assert [gap.what for gap in gaps] == ["L4 has no seed 2"]
    assert gaps[0].command == (
        "python -m pipeline distill bench=toy data.train_limit=200 cfg=L4 seed=2"
    )


def commands(*rows: dict) -> str:
    found = bench_runs(runs(*rows).assign(experiment="other"))
    return "\n".join(g.command for one in (ladder, methods) for g in one.section(found).gaps)


def test_a_gap_is_filled_in_the_experiment_that_has_it_with_the_options_of_its_method():
    overrides = {"params.overrides": "bench=toy method.ib_beta=1e-3 cfg=L2 seed=0"}
    printed = commands(distill("L2", 0, 0.5, **overrides))
    assert "method.ib_beta=1e-3 runtime.experiment=other cfg=L4 seed=0,1,2" in printed
    assert (
        "distill -m bench=toy runtime.experiment=other "
        "method=ce,kd,fitnet,at,crd,dkd,dist,kd_ls seed=0,1,2"
    ) in printed
    overrides = {"params.overrides": "method=kd method.weight=0.5 runtime.experiment=other seed=0"}
    printed = commands(distill("kd", 0, 0.5, **overrides))
    (own,) = [line for line in printed.splitlines() if "method.weight" in line]
    assert "method.weight=0.5 runtime.experiment=other method=kd seed=" in own
    assert "distill -m bench=toy runtime.experiment=other cfg=L4 seed=0,1,2" in printed
    assert printed.count("runtime.experiment") == printed.count("python -m")


def test_what_a_study_varies_is_no_option_of_the_rungs_that_are_missing():
    overrides = "bench=toy budget=short method.ib_beta={} cfg=L2 seed={}"
    rows = [
        distill("L2", s, 0.5, **params(overrides=overrides.format(b, s), method__ib_beta=b))
        for b in ("0.0", "0.01", "0.1")
        for s in (0, 1)
    ]
    by = {gap.what: gap.command for gap in ladder.section(bench_runs(runs(*rows))).gaps}
    assert by["L4 has not finished"] == (  # at the seeds that the others have, three at least
        "python -m pipeline distill -m bench=toy budget=short cfg=L4 seed=0,1,2"
    )
    assert by["L2 has no seed 2"] == (  # of the configuration that is shown
        "python -m pipeline distill bench=toy budget=short method.ib_beta=0.1 cfg=L2 seed=2"
    )


def test_a_gap_of_a_bench_with_specialised_teachers_names_the_bench_alone():
    """An overlap that is the bench's own is in no override."""
    row = distill("KD", 0, 0.5, bench="toy overlap=0", **{"params.overrides": "cfg=KD seed=0"})
    rows = runs(row).assign(experiment="other")
    gaps = ladder.section(replace(bench_runs(rows), bench="toy overlap=0")).gaps
    assert gaps
    assert all(" bench=toy runtime" in gap.command for gap in gaps)
