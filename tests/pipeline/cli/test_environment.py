"""Environment shortcuts become overrides; an option of the command line wins."""

from pathlib import Path

import pytest

from pipeline.cli import environment as module
from pipeline.cli.environment import dry_run, listed_teachers, with_lasting_store, with_shortcuts
from pipeline.config import ConfigError, compose


def test_each_shortcut_is_an_override() -> None:
    environment = {
        "TEACHER_PAIR": "resnet20,resnet56",
        "STUDENT": "resnet8",
        "METHOD": "L2",
        "SEED": "4",
    }
    found = with_shortcuts(["tau=1"], environment)
    assert found == [
        "teacher@teacher.0=resnet20",
        "teacher.1.model=resnet56",
        "student=resnet8",
        "cfg=L2",
        "seed=4",
        "tau=1",
    ]
    config = compose(found[:-1])
    assert [t.model for t in config.teachers()] == ["resnet20", "resnet56"]
    assert (config.student.model, config.cfg, config.seed) == ("resnet8", "L2", 4)


def test_a_rung_a_method_and_a_students_architecture_are_found() -> None:
    assert with_shortcuts([], {"METHOD": "asib"}) == ["method=asib"]
    assert with_shortcuts([], {"METHOD": "KD"}) == ["cfg=KD"]  # the ladder's control
    assert with_shortcuts([], {"METHOD": "kd"}) == ["method=kd"]  # the paper's
    assert with_shortcuts([], {"STUDENT": "resnet20"}) == ["student.model=resnet20"]


@pytest.mark.parametrize(
    ("given", "environment"),
    [
        ("seed=1", {"SEED": "4"}),
        ("cfg=KD", {"METHOD": "L2"}),
        ("method=ce", {"METHOD": "L2"}),
        ("student.model=resnet20", {"STUDENT": "resnet8"}),
        ("student=resnet8", {"STUDENT": "resnet20"}),
        ("teacher@teacher.0=resnet20", {"TEACHER_PAIR": "resnet8,resnet56"}),
    ],
)
def test_an_option_of_the_command_line_wins(given: str, environment: dict[str, str]) -> None:
    assert with_shortcuts([given], environment) == [given]


def test_one_teacher_given_leaves_the_other_to_the_environment() -> None:
    found = with_shortcuts(["teacher.0.model=resnet8"], {"TEACHER_PAIR": "resnet56,resnet56"})
    assert found == ["teacher.1.model=resnet56", "teacher.0.model=resnet8"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"METHOD": "L9"}, r"METHOD=L9: unknown.*allowed: CE"),
        ({"TEACHER_PAIR": "resnet20"}, "TEACHER_PAIR=resnet20: two names"),
        ({"TEACHER_PAIR": "a,b,c"}, "two names"),
        ({"SEED": "abc"}, "SEED=abc: not a whole number"),
        ({"STUDENT": "resnet9"}, "STUDENT: resnet9: unknown; did you mean resnet8"),
        ({"SEED": "x", "TEACHER_PAIR": "a,b", "METHOD": "M"}, "(?s)4 errors.*: a: .*: b: .*=M"),
    ],
)
def test_a_shortcut_with_an_unknown_value_is_an_error(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_shortcuts([], environment)


def test_dry_run_is_yes_or_no() -> None:
    assert [dry_run({"DRY_RUN": v}) for v in ("1", "true", "Yes", "0", "", "no")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert not dry_run({})
    with pytest.raises(ConfigError, match="DRY_RUN=maybe"):
        dry_run({"DRY_RUN": "maybe"})


def test_a_temporary_copy_of_the_project_has_its_store_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    by_mlflow = {"MLFLOW_RUN_ID": "0" * 32, "XDG_DATA_HOME": "/data"}
    copy, given = tmp_path.resolve() / "tmpab12_xyz", ["runtime.store=here"]
    assert with_lasting_store(["seed=1"], by_mlflow, copy) == [
        "runtime.store=/data/asib/store",
        "seed=1",
    ]
    assert with_lasting_store(given, by_mlflow, copy) is given
    for folder in (copy.with_name("project"), copy / "tmpab12_xyz"):
        assert with_lasting_store([], by_mlflow, folder) == []
    assert with_lasting_store([], {}, copy) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ("all", [])),
        (["teacher=1", "seed=2"], ("1", ["seed=2"])),
        (["teacher=0,1"], ("0,1", [])),
        (
            ["teacher=convnext_s_cifar32, resnet152,timm:resnet18", "bench=cifar100"],
            (
                "all",
                [
                    "teacher@teacher.0=convnext_s",
                    "teacher@teacher.1=resnet152",
                    "teacher.2.model=timm:resnet18",
                    "bench.teacher_weights=null",
                    "bench=cifar100",
                ],
            ),
        ),
        (
            ["teacher=convnext_l", "bench=cifar100"],
            (
                "all",
                [
                    "teacher@teacher.0=convnext_l",
                    "teacher.1=null",
                    "bench.teacher_weights=null",
                    "bench=cifar100",
                ],
            ),
        ),
    ],
)
def test_teachers_are_listed_by_number_or_by_name(
    given: list[str], expected: tuple[str, list[str]]
) -> None:
    which, overrides = listed_teachers(given)
    assert (which, overrides) == expected
    compose(overrides)


def test_an_unknown_teacher_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="teacher: convnext_z: unknown; did you mean convnext_"):
        listed_teachers(["teacher=convnext_s,convnext_z"])
