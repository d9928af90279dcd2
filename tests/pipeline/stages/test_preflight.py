"""What can be known before the first epoch is reported before it, everything in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from pipeline.config import compose
from pipeline.stages import preflight
from sweeps.__main__ import main as sweep
from trainers import models

TINY = [
    "bench=digits_all",
    "data.train_limit=200",
    "budget.student_epochs=4",
    "budget.adapt_epochs=4",
]
BAD_NET = "timm:deit_tiny_distilled_patch16_224"  # two classifiers
ERRORS = (
    "3 errors:",
    "teacher.1.ckpt: lfs.pth cannot be read as weights",
    f"student.model={BAD_NET}: cannot be run on images of 16 pixels",
    "MLFLOW_TRACKING_URI=./mlruns",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None) -> Path:
    """A working folder with a file that is no weights and an address that no store has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    monkeypatch.delenv("DRY_RUN", raising=False)
    Path("lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    return tmp_path


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    "words",
    [
        ["distill", "cfg=KD"],
        ["distill", "-m", "cfg=KD,L3", "seed=0,1"],
        ["main", "cfg=L3"],
        ["sweep", "beta", "cfg=L1", "trials=2"],
    ],
)
def test_a_file_a_network_and_a_store_are_one_message(
    words: list[str],
    dry: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DRY_RUN", "1" if dry else "0")
    program, rest = (sweep, words[1:]) if words[0] == "sweep" else (main, words)
    code = program([*rest, *TINY, "teacher.1.ckpt=lfs.pth", f"student.model={BAD_NET}"])
    printed = capsys.readouterr()
    assert code == 2
    for text in ERRORS:
        assert text in printed.err
    assert "epoch" not in printed.out


@pytest.mark.parametrize("verb", ["finetune", "bank"])
def test_the_teachers_alone(verb: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = f"student.model={BAD_NET}"  # not needed by these verbs
    assert main([verb, "teacher=all", *TINY, "teacher.1.ckpt=lfs.pth", student]) == 2
    message = capsys.readouterr().err
    assert "2 errors:" in message
    assert BAD_NET not in message


def test_errors_of_the_configuration_are_in_the_same_message(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["seed=-1", "teacher.0.ckpt=absent.pt", "teacher.1.ckpt=lfs.pth"]
    assert main(["distill", "cfg=KD", *TINY, *words]) == 2
    message = capsys.readouterr().err
    for text in ("seed=-1", "absent.pt: no such file", "lfs.pth cannot be read", "./mlruns"):
        assert text in message


def test_weights_of_another_network_are_found(tmp_path: Path) -> None:
    net = models.build("resnet56", 10, 16, in_chans=1)
    torch.save(net.state_dict(), tmp_path / "r56.pt")
    given = [f"teacher.0.ckpt={tmp_path / 'r56.pt'}", f"runtime.store={tmp_path}"]
    (fault,) = preflight.faults([compose(["cfg=KD", *TINY, *given])])
    assert "does not fit the network" in fault
    fits = compose(["cfg=KD", *TINY, *given, "teacher.0.model=resnet56"])
    assert preflight.faults([fits]) == []


def test_images_of_a_class_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    preflight.describe([compose(["bench=digits_all", "cfg=CE", "data.train_limit=100"])])
    line = capsys.readouterr().out
    assert line.startswith("data     digits: images (of a class): train 100 (10), val 11 (1 to 2)")


def test_a_class_of_one_image_is_an_error_of_the_placebo_of_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose(["cfg=L2_null_class", *TINY])
    assert preflight.faults([config]) == []
    data = preflight.splits(config.data)
    labels = torch.tensor([7, *[0] * (len(data.train.labels) - 1)])
    alone = data._replace(train=data.train._replace(labels=labels))
    monkeypatch.setattr(preflight, "splits", lambda _: alone)
    (found,) = preflight.faults([config])
    assert found.startswith("method.placebo=class: class 7 has one training image")


def test_a_batch_of_both_kinds_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["data.train_limit=50", "data.unlabelled=900", "optim.steps_per_epoch=7"]
    configs = [
        compose(["bench=digits_all", f"cfg={cfg}", *few]) for cfg in ("KD", "L3", "self", "CE")
    ]
    preflight.describe(configs)
    lines = [line for line in capsys.readouterr().out.splitlines() if "steps" in line]
    both = "50 labelled images, 900 unlabelled, 7 steps an epoch of 50 + 64"
    alone = "50 labelled images, 900 unlabelled (not used: no teacher), 7 steps an epoch of 50"
    assert lines == [f"data     KD, L3, self: {both}", f"data     CE: {alone}"]


def test_an_option_of_banks_that_none_reads_is_described(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs = [
        compose([f"cfg={cfg}", f"bank.logits={kept}"])
        for cfg, kept in (("CE", "all"), ("KD", "3"), ("CE", "3"))
    ]
    preflight.describe(configs)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bank")]
    assert lines == ["bank     CE: reads no view bank: bank.* has no effect"]
