"""A run's key: stable over sessions and machines, and a function of what can change the result."""

from __future__ import annotations

import pytest

from pipeline import config as configuration
from pipeline.config import Config, ConfigError
from pipeline.identity import (
    identity,
    of_teachers,
    recipe_key,
    recipe_of,
    run_key,
    setting_key,
    splits,
    with_few_labels,
)
from trainers.data import Images


def compose(overrides: list[str]) -> Config:
    """With all labels, and teachers of all classes."""
    return configuration.compose(["bench=digits_all", *overrides])


# Keys of published configurations. If one changes, every finished run of it is trained again:
# raise FINETUNE_VERSION or DISTILL_VERSION for changed numbers, and say so in the commit.
GOLDEN = {
    "CE": "90ae339e83c1",
    "KD": "ed7c4de13b62",
    "L0": "f12c4fddfd86",
    "L1": "a256b609ffd3",
    "L2": "5175041c1ca5",
    "L3": "7a1a664615b4",
    "L4": "4e35436f2038",
}
TEACHERS = ["2ae8f952aa64", "506dbd4a9c75"]


def test_the_ladders_control_and_the_method_of_the_same_letters_are_two() -> None:
    control, method = compose(["cfg=KD"]), compose(["method=kd"])
    assert (control.rung, method.rung) == ("KD", "kd")
    assert run_key("distill", control) != run_key("distill", method)


@pytest.mark.parametrize("cfg", ["CE", "L3"])
def test_a_rung_and_another_method_together_are_an_error(cfg: str) -> None:
    with pytest.raises(ConfigError, match=f"cfg={cfg} is a rung of method=asib, not dkd"):
        compose([f"cfg={cfg}", "method=dkd"])


@pytest.mark.parametrize("override", ["teacher.0.seed=9", "budget.adapt_epochs=8"])
def test_training_without_a_teacher_is_the_same_whatever_teachers_there_are(override: str) -> None:
    found = run_key("distill", compose(["method=ce", override]))
    assert found == run_key("distill", compose(["method=ce"]))


@pytest.mark.parametrize("cfg", sorted(GOLDEN))
def test_golden_keys(cfg: str) -> None:
    assert run_key("distill", compose([f"cfg={cfg}"])) == GOLDEN[cfg]


def test_golden_teacher_keys() -> None:
    config = compose([])
    keys = [run_key("finetune", config, teacher=k) for k in (0, 1)]
    assert keys == TEACHERS


@pytest.mark.parametrize(
    "override",
    [
        "runtime.device=cpu",
        "runtime.store=elsewhere",
        "runtime.commit_every_s=0",
        "runtime.threads=1",
        "runtime.experiment=x",
        "data.download=true",
    ],
)
def test_what_cannot_change_a_result_is_no_part_of_the_key(override: str) -> None:
    assert run_key("distill", compose([override])) == run_key("distill", compose([]))


@pytest.mark.parametrize(
    ("cfg", "override"),
    [
        ("CE", "method.ib_beta=0.5"),  # no bottleneck
        ("CE", "teacher.0.seed=9"),  # no teacher
        ("CE", "method.tau=2"),
        ("KD", "method.num_stages=2"),  # no A-Step
        ("KD", "budget.adapt_epochs=8"),
        ("L0", "method.ib_beta=0.5"),
        ("L1", "method.cccp_alpha=0.9"),  # one stage
        ("L2", "method.lambda_pres=3"),  # no adaptation
        ("L3", "data.train_limit=1294"),  # all there are
        ("CE", "bank.logits=3"),  # reads no bank
        ("KD", "bank.logits=all"),
    ],
)
def test_what_is_switched_off_is_the_same_experiment(cfg: str, override: str) -> None:
    assert run_key("distill", compose([f"cfg={cfg}", override])) == run_key(
        "distill", compose([f"cfg={cfg}"])
    )


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "method.ib_beta=1e-2",
        "teacher.1.seed=5",
        "teacher.0.recipe.epochs=3",
        "data.views=2",
        "data.train_limit=500",
        "data.val_fraction=0.2",
        "numerics=bfloat16",
        "numerics=float16",
        "numerics=tf32",
        "numerics.compile=true",
        "bank.logits=3",
        "bank.features=int8",
        "numerics.memory_format=contiguous",
        "budget.student_epochs=41",
        "optim.lr=2e-3",
        "mix.start=0.5",
        "select=last",
        "student.model=resnet20",
        "method.a_step_sample=false",
        "method.target_view=clean",
        "method.gate_on=ema",
        "bench.enable_kd_after_syn_acc=0.5",
    ],
)
def test_what_can_change_a_result_changes_the_key(override: str) -> None:
    assert run_key("distill", compose([override])) != run_key("distill", compose([]))


def test_what_banks_keep_is_of_students_alone_which_may_be_compared() -> None:
    whole = compose(["cfg=KD"])
    for override in ("bank.logits=3", "bank.features=int8"):
        less = compose(["cfg=KD", override])
        assert run_key("finetune", less) == run_key("finetune", whole)
        settings = [setting_key(identity("distill", config)) for config in (less, whole)]
        assert settings[0] == settings[1]
    fresh = [compose(["cfg=KD", "data.views=0", *more]) for more in ([], ["bank.logits=3"])]
    assert run_key("distill", fresh[0]) == run_key("distill", fresh[1])  # there are no banks


def test_the_teacher_of_self_training_is_the_student_of_ce_at_its_seed() -> None:
    overrides = ["seed=3", "optim.lr=2e-3"]
    weights = ["method.ce_alpha=0", "method.kd_alpha=0.9"]  # of the taught student alone
    found = identity("distill", compose(["cfg=self", *overrides, *weights]))
    assert found["teachers"] == [run_key("distill", compose(["cfg=CE", *overrides]))]
    other = identity("distill", compose(["cfg=self", *overrides, *weights, "teacher.1.seed=5"]))
    assert other == found  # no teacher of the bench is read


def test_self_training_at_other_seeds_is_one_recipe() -> None:
    recipes = {seed: recipe_of(compose(["cfg=self", f"seed={seed}"])) for seed in (0, 1)}
    assert recipes[0] == recipes[1]
    assert recipe_of(compose(["cfg=self", "optim.lr=5e-3"])) != recipes[0]
    assert recipe_of(compose(["cfg=CE", "seed=1"])) == recipe_of(compose(["cfg=CE"]))


def test_recipe_leaves_the_seed_out_and_setting_the_method() -> None:
    found = {
        name: identity("distill", compose(overrides))
        for name, overrides in {
            "one": ["cfg=L2"],
            "seed": ["cfg=L2", "seed=3"],
            "beta": ["cfg=L2", "method.ib_beta=1"],
            "rung": ["cfg=CE"],
            "budget": ["cfg=CE", "budget.student_epochs=9"],
            "tuned": ["cfg=CE", "optim.lr=4e-3", "optim.weight_decay=1e-2"],
            "batch": ["cfg=CE", "optim.batch=32"],
        }.items()
    }
    recipes = {name: recipe_key(value) for name, value in found.items()}
    settings = {name: setting_key(value) for name, value in found.items()}
    assert recipes["one"] == recipes["seed"] != recipes["beta"]
    assert settings["one"] == settings["beta"] == settings["rung"] == settings["tuned"]
    assert settings["one"] not in (settings["budget"], settings["batch"])


def test_own_teacher_is_known_by_its_content(tmp_path) -> None:
    one, two, three = (tmp_path / name for name in ("one.pt", "two.pt", "three.pt"))
    one.write_bytes(b"a")
    two.write_bytes(b"a")
    three.write_bytes(b"b")
    keys = [run_key("distill", compose([f"teacher.0.ckpt={path}"])) for path in (one, two, three)]
    assert keys[0] == keys[1] != keys[2]


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown stage"):
        run_key("destill", compose([]))


def test_teachers_of_more_images_are_those_that_were_trained_on_as_many() -> None:
    more = compose(["cfg=KD", "data.train_limit=200", "data.teacher_limit=800"])
    apart = compose(["cfg=KD", "data.train_limit=800"])
    plain = [run_key("finetune", apart, teacher=k) for k in (0, 1)]
    assert [run_key("finetune", more, teacher=k) for k in (0, 1)] == plain
    assert identity("distill", more)["teachers"] == plain
    few = compose(["cfg=KD", "data.train_limit=200"])
    assert identity("distill", few)["teachers"] != plain
    assert identity("distill", few)["data"] == identity("distill", more)["data"]
    assert setting_key(identity("distill", few)) == setting_key(identity("distill", more))
    keys = {
        run_key("distill", compose(["cfg=CE", "data.train_limit=200", *more_]))
        for more_ in ([], ["data.teacher_limit=800"])
    }
    assert len(keys) == 1


def test_teachers_of_more_images_see_those_of_the_student_and_none_that_select_it() -> None:
    config = compose(["data.train_limit=200", "data.teacher_limit=800"])
    student, teacher = splits(config.data), splits(of_teachers(config).data)
    assert (len(student.train.labels), len(teacher.train.labels)) == (200, 800)

    def images(found: Images) -> set[bytes]:
        return {image.numpy().tobytes() for image in found.pixels}

    assert images(student.train) < images(teacher.train)
    assert images(student.val) <= images(teacher.val)
    assert not images(teacher.val) & images(teacher.train)
    assert student.test.digest == teacher.test.digest


FEW = ("data.train_limit=100", "data.val_limit=100", "optim.steps_per_epoch=9")


def test_unlabelled_images_are_in_the_key_of_whom_they_teach_alone() -> None:
    def keys(cfg: str, *overrides: str) -> list[str]:
        config = compose([f"cfg={cfg}", *FEW, *overrides])
        return [run_key("finetune", config, teacher=0), run_key("distill", config)]

    (teacher, alone), (same, some) = keys("KD"), keys("KD", "data.unlabelled=30")
    assert teacher == same
    share = "optim.unlabelled_share=0.3"
    every = keys("KD", "data.unlabelled=all")[1]
    other = keys("KD", "data.unlabelled=30", share)[1]
    assert len({alone, some, every, other}) == 4
    assert keys("KD", "data.unlabelled=1194")[1] == every  # all there are
    assert keys("KD", share)[1] == alone
    assert keys("CE", "data.unlabelled=30", share) == keys("CE")  # it has no use for them
    assert keys("self", "data.unlabelled=30")[1] != keys("self")[1]


def test_a_control_with_few_labels_is_of_the_same_setting() -> None:
    found = [
        setting_key(identity("distill", compose([f"cfg={cfg}", *FEW, *more])))
        for cfg in ("CE", "KD", "L3", "self")
        for more in ([], ["data.unlabelled=all"])
    ]
    assert len(set(found)) == 1


def test_the_ceiling_has_all_labels_and_is_of_the_same_setting() -> None:
    few, more = compose(["cfg=CE", *FEW]), ["data.unlabelled=all"]
    ceiling = compose(["cfg=CE_all", *FEW, *more])
    data, rest = splits(ceiling.data), splits(compose(["cfg=CE", *FEW, *more]).data)
    assert data.unlabelled is None
    assert rest.unlabelled is not None
    assert len(data.train.labels) == len(rest.train.labels) + len(rest.unlabelled.pixels)
    assert (data.val.digest, data.test.digest) == (rest.val.digest, rest.test.digest)
    keys = [run_key("distill", one) for one in (few, ceiling)]
    assert keys[0] != keys[1] != run_key("distill", compose(["cfg=CE_all", *FEW]))
    assert keys[0] == run_key("distill", compose(["cfg=CE_all", *FEW]))  # nothing is unlabelled
    settings = [setting_key(identity("distill", with_few_labels(c))) for c in (few, ceiling)]
    assert settings[0] == settings[1]


def test_overlap_is_in_the_keys_of_teachers_and_of_whom_they_teach() -> None:
    def keys(*overrides: str) -> list[str]:
        config = compose(["cfg=KD", *overrides])
        return [run_key("finetune", config, teacher=k) for k in (0, 1)] + [
            run_key("distill", config)
        ]

    whole, half, none = keys(), keys("overlap=50"), keys("overlap=0")
    assert len({*whole, *half, *none}) == 9
    assert whole == keys("overlap=100") == keys("overlap_seed=3")  # no shuffle matters
    assert whole == [*TEACHERS, GOLDEN["KD"]]
    assert half != keys("overlap=50", "overlap_seed=1")
    control = run_key("distill", compose(["cfg=CE", "overlap=50"]))
    assert control == GOLDEN["CE"]  # it has no teachers
    lists = [t.classes for t in compose(["overlap=50"]).teachers()]
    given = [f"teacher.{k}.classes={own}" for k, own in enumerate(lists)]
    assert keys(*given) == half


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["overlap=101"], "overlap=101: must be in 0 … 100"),
        (["overlap=half"], "overlap=half: not a whole number"),
        (["overlp=50"], "did you mean overlap"),
        (["overlap=50", "teacher.1.classes=[1,2]"], "teacher.1.classes: overlap=50 sets it"),
        (["overlap=50", f"teacher.0.ckpt={__file__}"], "teacher.0.ckpt is used as it is"),
        ([f"teacher.0.ckpt={__file__}", "teacher.0.classes=[1,2]"], "is used as it is"),
        (
            [f"teacher.1.ckpt={__file__}", "data.train_limit=20", "data.teacher_limit=30"],
            "data.teacher_limit=30: teacher.1.ckpt is used as it is, not trained on images",
        ),
        (["data.train_limit=20", "data.teacher_limit=19"], "student's, and data.train_limit=20"),
        (["data.teacher_limit=800"], "at least as many images as the student's"),
        (["teacher.0.classes=[3]"], "at least 2 different classes of 0 … 9"),
        (["teacher.0.classes=[3,3]"], "at least 2 different classes of 0 … 9"),
        (["teacher.0.classes=[3,10]"], "at least 2 different classes of 0 … 9"),
        (["overlap=0", "data.classes=3"], "leaves a teacher fewer than 2 of 3 classes"),
    ],
)
def test_classes_and_images_that_teachers_cannot_have_are_errors(
    overrides: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(overrides)
    assert expected in str(raised.value)
