"""The verbs of the command line: reuse, errors, failures, analysis, and what the store holds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis import tags
from analysis.runs import load_history, load_runs
from pipeline.__main__ import main
from pipeline.cli.arguments import as_overrides
from tests.end_to_end import command
from trainers import metrics


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture(scope="module")
def finished(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run for the commands of this file."""
    folder = tmp_path_factory.mktemp("own") / "copy"
    command.copy_finished(finished, folder)
    return folder


def test_second_call_is_reused_with_the_numbers(finished: Path) -> None:
    output = command.run("distill", *command.L3, cwd=finished)
    (result,) = command.results(finished).values()
    assert "reused   distill-L3-digits_all-s0" in output
    assert f"test {100 * result['metrics'][metrics.TEST_TOP1]:.2f} %" in output
    assert "epoch" not in output


def test_everything_is_read_back_from_the_tracking_store(finished: Path) -> None:
    runs = load_runs(_uri(finished), "asib").set_index("name")
    student = runs.loc["distill-L3-digits_all-s0"]
    assert student["status"] == "FINISHED"
    assert student[f"tags.{tags.RUNG}"] == "L3"
    assert student["params.method.num_stages"] == "2"
    assert student["params.bench"] == "digits_all"
    assert student[f"metrics.{metrics.TEST_READS}"] == 1
    teachers = runs[runs[f"tags.{tags.STAGE}"] == "finetune"]
    assert len(teachers) == 2
    assert teachers["params.overrides"].str.contains("data.train_limit=200").all()
    assert (
        set(teachers["parent_id"]) == {student["parent_id"]} == {runs.loc["launch-distill"].run_id}
    )
    (result,) = command.results(finished).values()
    wanted = [
        metrics.LOSS_TOTAL,
        metrics.VAL_TOP1,
        metrics.SYNERGY_TOP1,
        metrics.GATE,
        metrics.OBJECTIVE,
    ]
    history = load_history(_uri(finished), [student.run_id], wanted)
    for metric in wanted:
        stored = {
            e["index"]: e["metrics"][metric] for e in result["history"] if metric in e["metrics"]
        }
        assert stored
        read = history[history.metric == metric].set_index("step").value.to_dict()
        assert read == stored


def test_l3_logs_what_a_study_needs(finished: Path) -> None:
    (result,) = command.results(finished).values()
    seen = set().union(*(entry["metrics"] for entry in result["history"])) | set(result["metrics"])
    expected = {
        "train/loss/ce",
        "train/loss/kd",
        "train/loss/rate",
        "train/loss/cccp",
        "train/loss/preserve",
        "train/top1",
        "train/lr",
        "val/top1",
        "val/loss",
        "synergy/top1",
        "synergy/top1_ema",
        "synergy/gate",
        "synergy/gain",
        "synergy/share",
        "synergy/train_top1",
        "synergy/query_leak",
        "kd/weight",
        "kd/share",
        "kd/scale",
        "kd/teacher_disagreement",
        "bottleneck/beta",
        "bottleneck/rate",
        "bottleneck/distortion",
        "bottleneck/sigma_mean",
        "stage/J",
        "teacher0/top1_before",
        "teacher0/top1_after",
        "teacher1/top1_before",
        "cost/images_per_second",
        "cost/epoch_seconds",
        "cost/peak_memory_mb",
        "cost/run_seconds",
        "cost/bank_seconds",
        "test/top1",
        "test/nll",
        "test/reads",
        "test/images",
        "val/images",
    }
    assert expected <= seen
    assert [entry["index"] for entry in result["history"]] == list(range(8))
    having = [
        i for i, entry in enumerate(result["history"]) if metrics.ROOM_STACK in entry["metrics"]
    ]
    assert having == [0]  # once a run


def test_reuse_in_another_experiment_is_replayed_there(finished: Path) -> None:
    command.run("distill", *command.L3, "runtime.experiment=asib/ladder", cwd=finished)
    runs = load_runs(_uri(finished), "asib/ladder").set_index("name")
    copy = runs.loc["distill-L3-digits_all-s0"]
    assert copy[f"tags.{tags.REUSED}"] == "true"
    original = load_runs(_uri(finished), "asib").set_index("name").loc["distill-L3-digits_all-s0"]
    assert copy[f"metrics.{metrics.TEST_TOP1}"] == original[f"metrics.{metrics.TEST_TOP1}"]
    history = [
        load_history(_uri(finished), [r.run_id], [metrics.LOSS_TOTAL]) for r in (copy, original)
    ]
    assert history[0].value.tolist() == history[1].value.tolist()
    assert copy.end_time == original.end_time


def test_analyze_prints_a_table_and_saves_figures(finished: Path) -> None:
    folder = finished / "report" / "asib" / "ladder"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("of_another_report.png", "notes.txt"):
        (folder / name).touch()
    output = command.run("analyze", cwd=finished)
    assert "L3" in output
    assert "n = 1" in output
    assert {".png", ".pdf", ".html", ".md", ".tex", ".csv"} <= {p.suffix for p in folder.iterdir()}
    assert not (folder / "of_another_report.png").exists()
    assert (folder / "notes.txt").exists()
    command.run("analyze", "bench=digits_all", "since=2001-01-01", cwd=finished)  # another folder
    assert (folder.parent / "ladder-bench-digits_all-since-2001-01-01" / "report.html").exists()
    runs = load_runs(_uri(finished), "asib").set_index("name")
    client = MlflowClient(tracking_uri=_uri(finished))
    logged = {f.path for f in client.list_artifacts(runs.loc["analyze-all"].run_id)}
    assert {"report.txt", "report.md", "table.csv"} <= logged


@pytest.mark.thorough
def test_an_exported_study_is_analysed_without_its_store(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.db.xz"
    exported = command.run("export", f"out={file}", cwd=finished)
    assert "exported: 3 runs of experiment asib, 0.0" in exported
    before = len(load_runs(_uri(finished), "asib"))
    there = command.run("analyze", f"out={tmp_path}/a", cwd=finished)
    copied = command.run("analyze", f"store={file}", f"out={tmp_path}/b", cwd=tmp_path)
    table = (tmp_path / "a" / "table.csv").read_text()
    assert (tmp_path / "b" / "table.csv").read_text() == table
    assert "L3" in table
    assert "n = 1" in there
    assert "n = 1" in copied
    assert not (tmp_path / "mlflow.db").exists()  # nothing was tracked
    assert len(load_runs(_uri(finished), "asib")) == before + 2  # the first one, and its launch


FAILING = """
from pathlib import Path

from trainers.methods import METHODS
from trainers.methods.ce import Ce


class Failing(Ce):
    def student_terms(self, *arguments):
        if Path("fails").exists():
            raise RuntimeError("planted")
        return super().student_terms(*arguments)


METHODS["ce"] = Failing
"""


def test_a_failure_is_failed_with_its_traceback_and_resumes_later(clean: Path) -> None:
    (clean / "failing.py").write_text(FAILING)
    (clean / "fails").touch()
    words, extended = ("method=ce", *command.TINY), {"ASIB_EXTEND": "failing"}
    output = command.run("distill", *words, cwd=clean, code=1, **extended)
    assert "RuntimeError: planted" in output
    run = load_runs(_uri(clean), "asib").set_index("name").loc["distill-ce-digits_all-s0"]
    assert run["status"] == "FAILED"
    assert "RuntimeError: planted" in run[f"tags.{tags.ERROR}"]
    assert metrics.TEST_TOP1 not in run.dropna()
    (clean / "fails").unlink()
    command.run("distill", *words, cwd=clean, **extended)
    run = load_runs(_uri(clean), "asib").set_index("name").loc["distill-ce-digits_all-s0"]
    assert run["status"] == "FINISHED"


@pytest.mark.parametrize(
    "numerics",
    [
        "float32",
        "bfloat16",
        pytest.param("float16", marks=pytest.mark.thorough),
        pytest.param("tf32", marks=pytest.mark.thorough),
    ],
)
def test_non_finite_loss_is_tried_again_only_where_mixed_precision_can_be_the_reason(
    clean: Path, numerics: str
) -> None:
    rest = [o for o in command.TINY if not o.startswith("bench.")]
    given = ("cfg=CE", *rest, "optim.lr=1e30", f"numerics={numerics}")
    output = command.run("distill", *given, cwd=clean, code=1)
    mixed = numerics in ("bfloat16", "float16")
    assert ("resumed from epoch" in output) is mixed
    run = load_runs(_uri(clean), "asib").set_index("name").loc["distill-CE-digits_all-s0"]
    assert run["status"] == "FAILED"
    assert re.search(
        r"NonFinite: .*not finite at epoch 1, in float32: try a lower optim\.lr \(now 1e\+30\)",
        run[f"tags.{tags.ERROR}"],
    )
    assert (isinstance(run.get(f"tags.{tags.FALLBACK}"), str)) is mixed
    assert run[f"tags.{tags.HEALTH}"] == "non_finite"


@pytest.mark.thorough
def test_two_commands_that_need_the_same_teachers_train_them_once(clean: Path) -> None:
    kd = [o for o in command.TINY if not o.startswith("bench.")]
    one = command.Command("distill", "cfg=KD", *kd, cwd=clean)
    two = command.Command("distill", "cfg=KD", "seed=1", *kd, cwd=clean)
    outputs = [c.end() for c in (one, two)]
    assert [code for code, _ in outputs] == [0, 0], outputs
    text = "".join(output for _, output in outputs)
    for teacher in ("s0", "s1"):
        assert text.count(f"finished finetune-resnet20-digits_all-{teacher}") == 1
        assert text.count(f"reused   finetune-resnet20-digits_all-{teacher}") == 1
    runs = load_runs(_uri(clean), "asib")
    assert (runs[f"tags.{tags.STAGE}"] == "finetune").sum() == 2


def test_finetune_one_teacher(clean: Path) -> None:
    output = command.run("finetune", "teacher=1", *command.TINY, cwd=clean)
    assert "finished finetune-resnet20-digits_all-s1" in output
    assert len(command.results(clean, "finetune")) == 1


@pytest.mark.thorough
def test_a_given_teacher_file_is_used_without_training(finished: Path, clean: Path) -> None:
    weights = next((finished / "store/runs/finetune").glob("*/teacher.*.safetensors"))
    own = clean / "my teacher, final.safetensors"
    shutil.copy(weights, own)
    kd = [o for o in command.TINY if not o.startswith("bench.")]
    output = command.run("distill", "cfg=KD", f"teacher.0.ckpt={own}", *kd, cwd=clean)
    assert "finished finetune-resnet20-digits_all-s0-given" in output
    assert "finetune-resnet20-digits_all-s0-given  1/" not in output  # no epoch of it
    given = [r for r in command.results(clean, "finetune").values() if not r["history"]]
    assert len(given) == 1
    original = command.results(finished, "finetune")[weights.parent.name]
    for metric in (metrics.BEST_VAL_TOP1, metrics.TEST_TOP1):
        assert given[0]["metrics"][metric] == original["metrics"][metric]


def test_teacher_file_that_does_not_fit_is_one_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    assert main(["finetune", "bench=digits_all", "teacher=0", "teacher.0.ckpt=bad.pt"]) == 2
    error = capsys.readouterr().err
    assert "bad.pt" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["distill", "method.ib_bta=1"], ["method.ib_bta", "method.ib_beta"]),
        (["distill", "+foo.bar=1"], ["foo.bar: no such option"]),
        (["distill", "cfg=L3; touch x"], ["L3; touch x", "allowed: CE, "]),
        (["distill", "seed=one"], ["seed=one: not a whole number"]),
        (["distill", "method.synergy_only_epochs=8"], ["leaves nothing of an A-Step of 4 epochs"]),
        (["distill", "method.heads=3"], ["not a multiple of method.heads=3"]),
        (["distill", "student.model=resnet9"], ["did you mean resnet8"]),
        (["distill", "method=asb"], ["method=asb: unknown", "asib"]),
        (["distill", "method.kd_target=sinergy"], ["did you mean synergy"]),
        (["distill", "method.enable_kd_after_syn_acc=65"], ["a fraction: 65 % is 0.65"]),
        (["distill", "data.name=fashion"], ["did you mean fashion_mnist"]),
        (["distill", "nonsense"], ["'nonsense' is not of the form key=value"]),
        (["distill", "bench=fashion_mnist", "data.root=/nowhere"], ["/nowhere", "data.download"]),
        (["distil"], ["did you mean distill"]),
        (["distill", "runtime.expiry_s=5"], ["runtime.expiry_s=5: more than two heartbeats"]),
        (["distill", "runtime.store=/proc/x"], ["runtime.store=/proc/x: cannot be written to"]),
        (["distill", "runtime.store=/etc/hosts"], ["runtime.store=/etc/hosts: "]),
        (["distill", "method.teacher_weights=[0,0]"], ["their sum must be above 0"]),
        (["distill", "budget.student_epochs=3"], ["fewer than the method's 4 stages"]),
        (["distill", "method=kd", "cfg=L3"], ["cfg=L3 is a rung of method=asib, not kd"]),
        (["distill", "method.student_levels=[9]"], ["resnet8 has 4 blocks and a head"]),
        (["distill", "cfg=L1", "budget.matched_to=L3"], ["is for a control without teachers"]),
        (["analyze", "bench=digit"], ["bench=digit: unknown", "did you mean digits"]),
        (["finetune", "teacher=7"], ["teacher=7", "allowed: all, 0, 1"]),
        (["distill", "a.b=1", "seed=x", "cfg=L9"], ["3 errors", "a.b", "seed=x", "cfg=L9"]),
        (["analyze", "benhc=digits"], ["benhc", "bench"]),
        (["analyze", "store=no.db.xz"], ["no exported store at no.db.xz"]),
        (["export", "out=study.txt"], ["out=study.txt: export writes a file NAME.db.xz"]),
        (["export", "otu=a.db.xz"], ["otu: no option of export; did you mean out?"]),
        (["distill", "runtime.device=gpu"], ["runtime.device=gpu"]),
    ],
)
def test_an_error_is_one_message_and_exit_2(
    arguments: list[str],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in expected), error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("store/runs/*"))  # nothing ran
    assert not (tmp_path / "x").exists()


def test_undeclared_parameters_become_overrides() -> None:
    given = ["cfg=L3", "--method.ib_beta", "1e-3", "--seed=1", "--data.root", "/a b/c"]
    assert as_overrides(given) == ["cfg=L3", "method.ib_beta=1e-3", "seed=1", "data.root=/a b/c"]


def test_result_is_plain_json(finished: Path) -> None:
    (folder,) = (finished / "store/runs/distill").iterdir()
    body = json.loads((folder / "result.json").read_text())["body"]
    assert set(body) == {"schema", "key", "time", "metrics", "history", "weights", "tags"}
    assert not list(folder.glob("commit-*"))


@pytest.mark.thorough
def test_ce_matched_gets_the_time_of_its_rung(with_teachers: Path) -> None:
    options = ("cfg=CE_matched", "budget.matched_to=L1", *command.L3[1:])
    output = command.run("distill", *options, cwd=with_teachers)
    for rung in ("L1", "CE", "CE_matched"):
        assert f"finished distill-{rung}-digits_all-s0" in output
    runs = load_runs(_uri(with_teachers), "asib").set_index("name")
    rung, control, matched = (
        runs.loc[f"distill-{c}-digits_all-s0"] for c in ("L1", "CE", "CE_matched")
    )
    seconds = f"metrics.{metrics.RUN_SECONDS}"
    epochs = max(1, round(4 * rung[seconds] / control[seconds]))
    assert matched["params.budget.student_epochs"] == str(epochs)
    assert matched["params.budget.matched_to"] == matched[f"tags.{tags.MATCHED_TO}"] == "L1"
    assert matched[f"tags.{tags.SETTING}"] == control[f"tags.{tags.SETTING}"]
    assert matched[f"tags.{tags.RECIPE}"] != control[f"tags.{tags.RECIPE}"]
    again = command.run("distill", *options, cwd=with_teachers)
    assert again.count("reused") == 3
    table = command.run("analyze", cwd=with_teachers)
    assert "CE_matched" in table
    assert "not the same everywhere" not in table


def test_dry_run_shows_the_plan_and_runs_nothing(with_teachers: Path) -> None:
    output = command.run("distill", *command.L3, "--dry-run", cwd=with_teachers, SEED="7")
    assert "from the environment: seed=7" in output
    assert "distill-L3-digits_all-s7" in output
    assert "4 finished, 1 to run" in output  # teachers and their view banks
    assert not (with_teachers / "store" / "runs" / "distill").exists()
    assert (
        MlflowClient(tracking_uri=_uri(with_teachers)).search_experiments(
            filter_string="name = 'asib'"
        )
        == []
    )


def test_environment_shortcuts_are_printed_and_logged(finished: Path) -> None:
    output = command.run("distill", *command.L3[1:], cwd=finished, METHOD="L3", SEED="0")
    assert "from the environment: cfg=L3 seed=0" in output
    assert "reused   distill-L3-digits_all-s0" in output


@pytest.mark.thorough
def test_specialised_teachers_are_trained_tagged_and_kept_apart(clean: Path) -> None:
    options = [o for o in command.TINY if not o.startswith("bench.")]
    command.run("distill", "cfg=KD", "overlap=50", *options, cwd=clean)
    runs = load_runs(_uri(clean), "asib").set_index(f"tags.{tags.STAGE}")
    tagged = runs.loc[["finetune", "finetune", "distill"], f"tags.{tags.OVERLAP}"]
    assert set(tagged) == {"50"}
    assert runs.loc["distill", "params.overlap"] == "50"
    teachers = runs.loc["finetune"]
    assert len(set(teachers["params.teacher.0.classes"])) == 2
    assert teachers[f"metrics.{metrics.VAL_TOP1_ALL}"].notna().all()
    table = command.run("analyze", cwd=clean)
    assert "Bench digits_all overlap=50" in table
    assert "resnet20 (200 images, overlap 50)" in table


@pytest.mark.thorough
def test_teachers_of_more_images_than_the_student_sees(clean: Path) -> None:
    options = ("cfg=KD", "data.teacher_limit=400", *command.TINY)
    command.run("distill", *options, cwd=clean)
    runs = load_runs(_uri(clean), "asib").set_index("name")
    limits = runs["params.data.train_limit"].dropna().to_dict()
    assert limits == {
        "finetune-resnet20-digits_all-s0": "400",
        "finetune-resnet20-digits_all-s1": "400",
        "distill-KD-digits_all-s0": "200",
    }
    student = runs.loc["distill-KD-digits_all-s0"]
    assert student["params.data.teacher_limit"] == "400"
    again = command.run("finetune", "teacher=all", *command.TINY, "data.train_limit=400", cwd=clean)
    assert again.count("reused   finetune") == 2


@pytest.mark.thorough
def test_compare_and_explain(finished: Path) -> None:
    student = "distill-L3-digits_all-s0"
    runs = load_runs(_uri(finished), "asib").set_index("name")
    key = runs.loc[student, "tags.run_key"]
    twice = command.run("compare", student, key[:6], cwd=finished)
    assert "A and B are one and the same run." in twice
    assert "A and B are equal: no logged value differs" in command.run(
        "explain", "L3", key, cwd=finished
    )
    others = [name for name in runs.index if str(name).startswith("finetune")][:2]
    assert len(others) == 2
    parted = command.run("explain", "runs=" + ",".join(others), cwd=finished)
    assert "A and B differ from the start, in teacher." in parted
    assert "Weights: different after epoch 1." in parted
    unknown = command.run("compare", "L3", "distill-L3-digits_all-s9", cwd=finished, code=2)
    assert "did you mean distill-L3-digits_all-s0?" in unknown
    assert "in experiment 'asib' (experiment=NAME chooses another)" in unknown
    assert len(load_runs(_uri(finished), "asib")) == len(runs)  # nothing was written
    command.run("export", "out=given/study.db.xz", cwd=finished)
    elsewhere = finished / "given"
    shown = command.run("compare", *others, "store=study.db.xz", cwd=elsewhere)
    assert "Configuration: " in shown
    given = command.run("explain", *others, "store=study.db.xz", cwd=elsewhere)
    assert "A and B differ from the start, in teacher." in given
    assert not (elsewhere / "mlflow.db").exists()
    wrong = command.run("compare", *others, "store=mlflow.db", cwd=finished, code=2)
    assert "store=mlflow.db: not a file NAME.db.xz as export writes it" in wrong
