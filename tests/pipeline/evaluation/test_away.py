"""A tracking server that is away costs an evaluation nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from trainers import models


def test_the_table_is_printed_and_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signals: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    torch.save(models.build("resnet8", 10, 16, in_chans=1).state_dict(), "net.pt")
    assert main(["evaluate", "run=net.pt", "split=test", "method=ce"]) == 0
    shown = capsys.readouterr().out
    assert "top1" in shown or "top-1" in shown
    assert "not logged: the tracking store http://127.0.0.1:9 cannot be reached" in shown
    (kept,) = (tmp_path / "store" / "evaluations").iterdir()
    assert (kept / "report.txt").read_text() in shown or (kept / "evaluation.json").is_file()
