"""The evaluate verb: measure a finished network on a split.

The evaluation is logged as a child of the run that it evaluates.
"""

from __future__ import annotations

import io
import logging
from typing import Any, NamedTuple

from torch import Tensor, nn

from analysis import tags
from analysis.words import joined
from pipeline.cli.console import out, say
from pipeline.config import Config, ConfigError, compose
from pipeline.evaluation.model import LoadedModel, find, is_file, on_data, stored
from pipeline.evaluation.report import Compared, Evaluation, Facts, artifacts, as_report
from pipeline.evaluation.request import Request, request
from pipeline.identity import splits
from pipeline.outcome import FINISHED, error_tags, last_line, outcome
from pipeline.session import Session, device_name
from pipeline.stages.test_split import open_test
from pipeline.storage.atomic import write_atomic
from pipeline.storage.run_store import if_intact
from pipeline.tracking.acceptance import acceptance
from pipeline.tracking.answer import AWAY
from pipeline.tracking.plain_runs import EVALUATE_STAGE, PlainRun
from pipeline.tracking.replay import arrived, replay
from pipeline.tracking.target import TrackingTarget
from pipeline.tracking.values import flat
from trainers import measures, metrics
from trainers.data import Images, Splits
from trainers.data.views import Normaliser
from trainers.errors import Interrupted
from trainers.numerics import use_tf32
from trainers.view_bank import image_outputs

log = logging.getLogger("pipeline")


def evaluate_command(overrides: list[str]) -> None:
    """`evaluate run=RUN split=val|test|train key=value …`.

    Raises:
        ConfigError: as `request` and `evaluate`.
    """
    wanted, rest = request(overrides)
    config = compose(rest)
    with Session.open(config, "evaluate", rest).launch() as session:
        evaluate(wanted, config, session)


def evaluate(wanted: Request, config: Config, session: Session) -> None:
    """Measure, print and log. Nothing is logged, and no test image read, before everything is
    known to fit.

    Raises:
        ConfigError, BadCheckpoint, DataMissing, DataDamaged: the run or the data cannot be used.
        Interrupted: a stop was requested; the evaluation is KILLED.
    """
    subject, of_run = find(wanted.run, config, session), not is_file(wanted.run)
    if of_run:
        subject = on_data(subject, config.data, wanted.keys)
    use_tf32(subject.numerics.precision == "tf32")
    data, net = splits(subject.data), subject.network(session.device)
    parts = {"train": data.train, "val": data.val}
    if wanted.split in parts and not len(parts[wanted.split].labels):
        raise ConfigError([f"split={wanted.split}: it has no images (data.val_fraction=0)"])
    try:
        parent = _tracked(subject, session) if of_run else _launch(session)
        run = _create(wanted, subject, parent, session, data)
    except Exception as error:  # whatever MLflow raises; what is no outage is raised again
        if (answer := acceptance(session.target)).kind != AWAY:
            raise
        log.debug("not tracked", exc_info=error)
        _measure_alone(wanted, subject, data, net, session)
        say(f"not logged: {answer.sentence}; the same command logs it when it is back")
        return
    client = session.target.client()
    try:
        images, reads = parts.get(wanted.split), None
        if images is None:
            images, reads = _open_test(subject, data, parent, client)
        found = _measure(net, subject, images, session)
        facts = _facts(wanted, subject, data, session, reads)
        _record(found, facts, run)
    except BaseException as error:
        try:
            session.target.ended(run, str(outcome(error).launch), error_tags(error))
        except Exception as away:  # noqa: BLE001 - reported; `sync` ends it
            log.warning("the evaluation's run could not be ended: %s", last_line(away)[:200])
        raise
    out.print(as_report(found, facts), markup=False, highlight=False)
    _end(run, session.target)


def _end(run: PlainRun, target: TrackingTarget) -> None:
    """Send the evaluation, which is in its record."""
    try:
        target.ended(run, FINISHED, {})
    except Exception as error:  # whatever MLflow raises; what is no outage is raised again
        if (answer := acceptance(target)).kind != AWAY:
            raise
        log.debug("not sent", exc_info=error)
        say(f"not logged: {answer.sentence}; `python -m pipeline sync` logs it when it is back")
        return
    say("logged   report.txt, evaluation.json, per_class.csv, confusion.csv, confusion.png")
    say(f"         in run {run.run_id}")


def _measure_alone(
    wanted: Request, subject: LoadedModel, data: Splits, net: nn.Module, session: Session
) -> None:
    """Measure and print while the tracking store is away; the texts are kept in the store."""
    images, reads = {"train": data.train, "val": data.val}.get(wanted.split), None
    if images is None:
        images, reads = open_test(subject.folder, data)
    found = _measure(net, subject, images, session)
    facts = _facts(wanted, subject, data, session, reads)
    out.print(as_report(found, facts), markup=False, highlight=False)
    folder = session.store.root.parent / "evaluations" / f"{subject.key}-{wanted.split}"
    for name, text in artifacts(found, facts).texts.items():
        write_atomic(folder / name, text.encode())
    say(f"kept     {folder}")


# The parent run -------------------------------------------------------------------------------


class Parent(NamedTuple):
    """The run that the evaluation is a child of, and how often it has read the test split."""

    run_id: str
    experiment_id: str
    reads: int = 0
    step: int = 0  # at which `reads` was logged
    evaluated: bool = True  # False: it is the launch run, as a file has no run


def _launch(session: Session) -> Parent:
    target = session.target
    return Parent(target.parent_id(), target.experiment_id(), evaluated=False)


def _tracked(subject: LoadedModel, session: Session) -> Parent:
    """The tracked run of the network; a run of the store that is not tracked yet is sent now."""
    target = session.target
    run_id = subject.run_id or _arrived(subject, session)
    if run_id is None:
        run_id = replay(subject.folder, target, log_model=session.runtime.log_model)
    client = target.client()
    history = client.get_metric_history(run_id, metrics.TEST_READS)
    return Parent(
        run_id,
        client.get_run(run_id).info.experiment_id,
        max((int(metric.value) for metric in history), default=0),
        max((metric.step for metric in history), default=0),
    )


def _arrived(subject: LoadedModel, session: Session) -> str | None:
    """The tracked run of a key in whatever experiment it is, unless one is chosen: a copy in the
    default experiment would be taken for a run of that experiment."""
    target = session.target
    if session.runtime.experiment or target.experiment != tags.DEFAULT_EXPERIMENT:
        return None
    found = arrived(subject.folder, target)
    if not found:
        return None
    first, *others = (_experiment(run_id, target) for run_id in found)
    also = f"; it is in {', '.join(others)} too" if others else ""
    if others or first != target.experiment:
        say(
            f"tracked  in experiment {first}, where the run is{also} "
            "(runtime.experiment=NAME chooses another)"
        )
    return found[0]


def _experiment(run_id: str, target: TrackingTarget) -> str:
    client = target.client()
    return str(client.get_experiment(client.get_run(run_id).info.experiment_id).name)


def _open_test(
    subject: LoadedModel, data: Splits, parent: Parent, client: Any
) -> tuple[Images, int]:
    """The test images; reading them raises the count of the run that is evaluated.

    Readings on another machine are known from the tracking store only, so the larger count holds.
    """
    images, reads = open_test(subject.folder, data)
    reads = max(reads, parent.reads + 1)
    if parent.evaluated:
        client.log_metric(parent.run_id, metrics.TEST_READS, float(reads), step=parent.step)
    if not len(images.labels):
        raise ConfigError(["split=test: it has no images"])
    return images, reads


# Measuring ------------------------------------------------------------------------------------


def _measure(net: nn.Module, subject: LoadedModel, images: Images, session: Session) -> Evaluation:
    images = images.to(session.device)
    logits_MC, labels_M = _logits(net, subject, images, session), images.labels
    normalise = Normaliser(subject.data, subject.numerics, session.device)
    repeats = -(-measures.SPEED_BATCH // len(labels_M))
    pixels = images.pixels[: measures.SPEED_BATCH].repeat(repeats, 1, 1, 1)
    batch = normalise(pixels[: measures.SPEED_BATCH])
    compared = tuple(
        _compare(number, key, logits_MC, images, session)
        for number, key in enumerate(subject.teachers)
    )
    numbers = measures.classification(logits_MC, labels_M) | {
        "images": float(len(labels_M)),
        "parameters": float(measures.parameters(net)),
        "macs": float(measures.macs(net, batch[:1])),
        "images_per_second": measures.images_per_second(net, batch, subject.numerics),
    }
    return Evaluation(
        numbers,
        compared,
        tuple(measures.per_class(logits_MC, labels_M)),
        measures.confusion(logits_MC, labels_M).tolist(),
    )


def _logits(net: nn.Module, subject: LoadedModel, images: Images, session: Session) -> Tensor:
    if session.stop():
        raise Interrupted
    normalise = Normaliser(subject.data, subject.numerics, session.device)
    return image_outputs(net, images, normalise, subject.numerics).logits


def _compare(
    number: int, key: str, student_MC: Tensor, images: Images, session: Session
) -> Compared:
    """The student compared with a fine-tuned teacher; empty where that is not in the store."""
    folder = session.store.run("finetune", key)
    teacher = if_intact(lambda: stored(folder, session))
    if teacher is None:
        return Compared(number, key)
    teacher_MC = _logits(teacher.network(session.device), teacher, images, session)
    return Compared(
        number,
        key,
        teacher.name,
        measures.agreement(student_MC, teacher_MC),
        measures.divergence(student_MC, teacher_MC),
    )


# Logging --------------------------------------------------------------------------------------


def _facts(
    wanted: Request, subject: LoadedModel, data: Splits, session: Session, reads: int | None
) -> Facts:
    classes = subject.data.classes
    known = data.class_names if len(data.class_names) == classes else ()
    return Facts(
        name=subject.name,
        key=subject.key,
        model=subject.model,
        data=subject.data.name,
        data_digest=data.digest,
        own_data=subject.data_digest in (None, data.digest),
        split=wanted.split,
        device=device_name(session.device),
        test_reads=reads,
        class_names=known or tuple(str(number) for number in range(classes)),
    )


def _create(
    wanted: Request, subject: LoadedModel, parent: Parent, session: Session, data: Splits
) -> PlainRun:
    """Create the run of the evaluation, with tags; its parameters are sent with its numbers."""
    run_tags = {
        tags.STAGE: EVALUATE_STAGE,
        tags.PARENT: parent.run_id,
        tags.SPLIT: wanted.split,
        tags.EVALUATED: subject.key,
        tags.BENCH: subject.bench,
        tags.STUDENT: subject.model,
        tags.DEVICE: device_name(session.device),
    }
    given = {"run": wanted.run, "split": wanted.split, "overrides": joined(session.overrides)}
    return session.target.created(
        run_tags,
        f"evaluate-{wanted.split}-{subject.name}",
        parent.experiment_id,
        params=given | dict(flat({"data": vars(subject.data)})),
        data={"name": subject.data.name, "digest": data.digest},
    )


def _record(found: Evaluation, facts: Facts, run: PlainRun) -> None:
    """The numbers and files of the evaluation, in the record of its run."""
    run.numbers = {metrics.EVAL + what: value for what, value in found.flat().items()}
    if facts.test_reads is not None:
        run.numbers[metrics.TEST_READS] = float(facts.test_reads)
    written = artifacts(found, facts)
    picture = io.BytesIO()
    written.figure.savefig(picture, format="png")
    run.write_files(written.texts, {"confusion.png": picture.getvalue()})
