"""A network at chance level is reported: a teacher that was given as a file, and a student of any
method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from pipeline.config import compose
from pipeline.identity import run_key
from pipeline.session import store_of
from trainers import models

TINY = [
    "method=kd",
    "bench=digits_all",
    "teacher.1=null",
    "teacher.0.ckpt=r.pt",
    "data.train_limit=200",
]
SHORT = [*TINY, "budget.student_epochs=1", "runtime.log_model=false"]


@pytest.mark.thorough
def test_random_weights_are_no_teacher(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signals: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("DRY_RUN", raising=False)
    torch.manual_seed(0)
    torch.save(models.build("resnet20", 10, 16, in_chans=1).state_dict(), "r.pt")
    assert main(["distill", *SHORT]) == 0
    name = "finetune-resnet20-digits_all-s0-given"
    printed = capsys.readouterr().out
    assert f"warning  {name}  health/validation_at_chance: " in printed
    assert "where val/images (22) is small" in printed
    config = compose(SHORT)
    store = store_of(config.runtime)
    teacher = store.run("finetune", run_key("finetune", config)).result()
    assert teacher is not None
    assert teacher.tags["health"] == "validation_at_chance"
    assert teacher.metrics["val/best_top1"] <= teacher.metrics["val/chance"]
    assert main(["finetune", "teacher=0", *SHORT]) == 0  # reused, and reported again
    assert f"warning  {name}" in capsys.readouterr().out
    assert main(["analyze"]) == 0
    assert "validation_at_chance" in capsys.readouterr().out
