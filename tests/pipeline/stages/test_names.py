"""Names of runs."""

from pathlib import Path

from pipeline.config import compose
from pipeline.stages.names import run_kind, run_name, without_seed


def test_names_have_stage_network_bench_and_seed() -> None:
    config = compose(["cfg=L3", "seed=2"])
    assert run_name("distill", config) == "distill-L3-digits-s2"
    assert run_name("finetune", config, 1) == "finetune-resnet20-digits-s1"
    assert run_name("bank", config, 1) == "bank-resnet20-digits-s1"
    kind = run_kind("bank", config, 1)
    assert kind == "bank-resnet20-digits"
    assert without_seed(kind) == without_seed(f"{kind}-s12") == kind


def test_a_baseline_has_its_own_name_and_so_has_a_given_teacher(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    config = compose(["bench=digits_all", "method=dkd", f"teacher.0.ckpt={tmp_path}/w.pt"])
    assert run_name("distill", config) == "distill-dkd-digits_all-s0"
    assert run_name("finetune", config) == "finetune-resnet20-digits_all-s0-given"
    assert run_name("bank", config) == "bank-resnet20-digits_all-s0"
