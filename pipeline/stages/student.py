"""The student stage: distil a student, after the teachers that its method reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from analysis import tags
from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.identity import (
    distill_config,
    identity,
    own_teacher,
    recipe_of,
    run_key,
    setting_key,
    teacher_numbers,
    with_few_labels,
)
from pipeline.session import Session
from pipeline.stages.images import on_device
from pipeline.stages.matched_budget import resolved, standards
from pipeline.stages.names import run_name
from pipeline.stages.network import network
from pipeline.stages.run_spec import overlap_tag, run_spec
from pipeline.stages.runner import run
from pipeline.stages.teacher import Teachers, check_room, finetune_teacher, training
from pipeline.stages.variant import variant
from pipeline.storage.run_record import RunResult, RunSpec
from trainers import metrics
from trainers.data import TrainingData
from trainers.distill import distill, plan
from trainers.distillation.room import room
from trainers.distillation.state import DistillState, Teacher
from trainers.errors import UserError
from trainers.loop import Epoch


class StudentStage:
    """Distillation of one student. `requested` is the configuration before its epochs were
    computed from the time of other runs (`budget.matched_to`)."""

    weights = "student"

    def __init__(self, config: Config, requested: Config, session: Session) -> None:
        self.config, self.requested, self.session = config, requested, session
        self.trainer, self.data = distill_config(config), on_device(config, session)
        self.folder = session.store.run("distill", run_key("distill", config))
        self.name = run_name("distill", config)
        self.epochs = len(plan(self.trainer))
        self.teachers = Teachers(config, session, self.data, list(teacher_numbers(config)))

    @property
    def rates(self) -> dict[str, float]:
        found = {"optim.lr": self.config.optim.lr}
        if any(epoch.step == "A" for epoch in plan(self.trainer)):
            found["method.a_lr"] = self.config.method.a_lr
        return found

    @property
    def bank_seconds(self) -> float:
        return self.teachers.bank_seconds

    def spec(self) -> RunSpec:
        config = self.config
        setting = identity("distill", with_few_labels(self.requested))
        own = identity("distill", config)
        run_tags = {
            tags.STAGE: "distill",
            tags.STUDENT: config.student.model,
            tags.SEED: str(config.seed),
            tags.RUNG: config.rung,
            tags.METHOD: config.method.name,
            tags.TEACHERS: ",".join(config.teachers()[k].model for k in self.teachers.numbers),
            tags.TEACHER_KEYS: ",".join(own["teachers"][: len(self.teachers.numbers)]),
            tags.VERSION: str(own["version"]),
            tags.RECIPE: recipe_of(self.requested),
            tags.SETTING: setting_key(setting),
            tags.VARIANT: variant(config),
        }
        if (taught_by := own_teacher(config)) is not None:
            run_tags[tags.OWN_TEACHER] = run_key("distill", taught_by)
        params: dict[str, str] = {}
        if self.teachers.numbers:
            run_tags |= overlap_tag(config)
        if (rung := self.requested.budget.matched_to) is not None:
            run_tags[tags.MATCHED_TO] = params["budget.matched_to"] = rung
            params["budget.matched_with"] = str(self.requested.budget.matched_with)
        spec = run_spec(
            config,
            self.session,
            name=self.name,
            identity=own,
            run_tags=run_tags,
        )
        return replace(spec, params=spec.params | params)

    def prepare(self) -> None:
        """Finish the teachers that the method reads; then say what the student learns from."""
        check_room(self.config, self.teachers.numbers, self.session)
        if (option := self.config.method.reads_banks()) and self.teachers.tables is not None:
            raise UserError(
                f"{option} reads all rows of the view banks at once, which do not fit in "
                "runtime.device_budget: give a larger one, or fewer views (data.views)"
            )
        for number in self.teachers.numbers:
            finetune_teacher(self.config, number, self.session)
        if (own := own_teacher(self.config)) is not None:
            distill_student(own, self.session)
        say(headline(self.config))

    def new_state(self) -> DistillState:
        state = DistillState.new(self.trainer, training(self.data), self.teachers())
        state.stop, state.graphs = self.session.stop_of_any, self.session.graphs()
        return state

    def train(self, state: DistillState) -> Iterator[Epoch]:
        """Epochs; the first of a run has the room that the teachers leave."""
        data, teachers = training(self.data), self.teachers()
        found = self._room(data, teachers) if state.progress.slot == 0 else {}
        for epoch in distill(self.trainer, data, teachers, state):
            epoch.metrics.update(found)
            found = {}
            yield epoch

    def _room(self, data: TrainingData, teachers: list[Teacher]) -> dict[str, float]:
        config = self.config
        if own_teacher(config) is not None:  # no more than the student's own
            return {}
        weights = getattr(config.method, "teacher_weights", None)
        found = room(
            data, teachers, views=config.data.views, classes=config.data.classes, weights=weights
        )
        if found:
            listed = (
                f"{name.split('/')[1].replace('_', ' ')} {v:.1%}" for name, v in found.items()
            )
            say(f"teachers on {len(data.val.labels)} validation images: {', '.join(listed)}")
        return found

    def network(self) -> nn.Module:
        config, model = self.config, self.config.student.model
        return network(model, config.data, config.numerics, self.session.device)


def distill_student(config: Config, session: Session) -> RunResult:
    """The finished run of one student: reused, resumed or trained. The teachers that its method
    reads are finished first."""
    matched = config.budget.matched_to is not None
    stage = StudentStage(_matched(config, session) if matched else config, config, session)
    return run(stage, session)


def headline(config: Config) -> str:
    """`[CFG] kd_target=auto ce=0.70 kd=0.30 ib_beta=1e-3`: what a student learns from."""
    found = config.method.headline().items()
    return " ".join(["[CFG]", *(f"{name}={_short(value)}" for name, value in found)])


def _short(value: float | str) -> str:
    """`0.70`, `1e-3`, or the text."""
    if isinstance(value, str):
        return value
    if value == 0 or value >= 0.01:
        return f"{value:.2f}" if value else "0"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


def _matched(config: Config, session: Session) -> Config:
    """A CE_matched configuration with its epochs: the rung and CE are run first, at this seed."""
    pair = standards(config, session.overrides)
    seconds = [distill_student(one, session).metrics[metrics.RUN_SECONDS] for one in pair]
    found = resolved(config, *seconds)
    say(
        f"{config.cfg}: {pair[0].cfg} took {seconds[0]:.1f} s, {pair[1].cfg} {seconds[1]:.1f} s: "
        f"{found.budget.student_epochs} epochs"
    )
    return found
