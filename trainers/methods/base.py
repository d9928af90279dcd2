"""Base of all methods: loss terms of the outputs of networks, never the networks themselves.

Shapes: B examples, L of them, the first, with a label (all, unless there are unlabelled images),
C classes, D features, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from trainers.loop import Terms
from trainers.mixing import Mix
from trainers.models import Outputs


class MethodConfig:
    """Base of the methods' configurations: what the plan of a run depends on. The defaults are
    those of a method without an A-Step."""

    def stage_count(self) -> int:
        """Stages that the B-Step's epochs are shared among."""
        return 1

    def a_step_epochs(self, budget: int) -> list[int]:
        """Epochs of each stage's A-Step; empty where there is none."""
        return []

    def reads_teachers(self) -> bool:
        """Whether the bench's teachers are needed at all."""
        return True

    def own_teacher(self) -> MethodConfig | None:
        """The method whose student, of the same network and seed, is the only teacher (None: the
        teachers are the bench's)."""
        return None

    def is_taught(self) -> bool:
        """Whether there is a teacher at all, of the bench or of its own: without one nothing is
        learned from unlabelled images."""
        return self.reads_teachers() or self.own_teacher() is not None

    def uses_gate(self) -> bool:
        """Whether a synergy accuracy is measured and read."""
        return False

    def reads_validation(self) -> str:
        """The option and value by which the objective itself is chosen on validation images;
        empty: by none."""
        return ""

    def reads_banks(self) -> str:
        """The option and value that need the teachers' view banks; empty: none does."""
        return ""

    def levels(self, whose: str) -> list[int]:
        """Levels of freezing of the stages, of the `student` or of every `teacher`."""
        return [-1]

    def settled(self, *, specialised: bool) -> MethodConfig:
        """The options as they are used: what follows from other options is filled in.
        `specialised`: the teachers know different classes."""
        return self

    def headline(self) -> dict[str, float | str]:
        """The few options that tell a run at a glance, by short name."""
        return {"method": str(getattr(self, "name", ""))}

    def without_effect(self) -> list[str]:
        """Options without effect next to the values of others: all their values are one run."""
        return []

    def in_key(
        self, kept: dict[str, Any], student_dim: int | None, teachers: int
    ) -> dict[str, Any]:
        """The options of the run key, of several spellings of one experiment always the same.
        `kept`: those that count; `student_dim`: the student's pooled width, where it is known."""
        return kept

    def corrected(self, *, fresh: bool, mixed: bool) -> list[str]:
        """Corrections that moved the numbers of such configurations alone (`fresh`: crops without
        fixed views; `mixed`: images are mixed). They are in the run key, so that no run from before
        is taken for one of today's."""
        return []

    def teacher_numbers(self) -> dict[str, list[int]]:
        """Teachers that options name by number: option -> numbers."""
        return {}

    def errors(self, adapt_epochs: int, student_dim: int | None, teachers: int) -> list[str]:
        """Contradictions between values, each one sentence. A subclass adds its own."""
        return [
            f"method.{name}: teacher {max(numbers)} of {teachers}, from 0"
            for name, numbers in self.teacher_numbers().items()
            if self.reads_teachers() and numbers and max(numbers) >= teachers
        ]


class Dims(NamedTuple):
    """What a method's own modules are built for: pooled widths, classes, training images, the
    labels of the first of them (None: unknown; images without a label follow), the teacher and the
    weighting of all teachers with the best validation accuracy, and (C, H, W) of every feature map
    that `Outputs.maps` gives (empty unless the method `needs_maps`)."""

    student: int
    teachers: tuple[int, ...]
    classes: int
    images: int = 0
    best_teacher: int = 0
    student_maps: tuple[tuple[int, int, int], ...] = ()
    teacher_maps: tuple[tuple[tuple[int, int, int], ...], ...] = ()
    labels: Tensor | None = None
    best_weighting: str = "equal"


class StepPosition(NamedTuple):
    """When a batch is seen. `epoch` counts this kind of step over all stages, of `total`;
    `in_step` counts within the step, of `step_total`; `stage` counts from 0."""

    epoch: int
    total: int
    stage: int = 0
    in_step: int = 0
    step_total: int = 1


class TeacherOutputs(NamedTuple):
    """Outputs of the teachers on a batch: on its clean source images, or on the mixed images where
    the method has `live_targets` or `needs_maps`. Teachers are those that
    `Method.teachers_used` lists, in that order.

    teachers [K, B, C] logits; synergy [B, C] logits (None: gate closed, or no fusion);
    certainty [B] of the fusion (None: no bottleneck); latent [B, D], the fusion's mean;
    pooled: a teacher's features [B, D_k] each; maps: a teacher's feature maps each (empty unless
    the method `needs_maps`); image [B]: which training image each is;
    stack [B, C]: logits of a regression on all of them (None: the method does not read it);
    ema [B, C]: logits of an exponential average of the student;
    donor: outputs on other images, by which a placebo has these images taught and routed;
    targets: what `Method.student_targets` gave for these (None: it was not asked yet);
    at [N]: which images of the batch all of this is of (None: of all of them).
    """

    teachers: Tensor
    synergy: Tensor | None = None
    certainty: Tensor | None = None
    latent: Tensor | None = None
    pooled: tuple[Tensor, ...] = ()
    maps: tuple[tuple[Tensor, ...], ...] = ()
    image: Tensor | None = None
    stack: Tensor | None = None
    ema: Tensor | None = None
    donor: TeacherOutputs | None = None
    targets: dict[str, Tensor] | None = None
    at: Tensor | None = None

    def changed(self, change: Callable[[Tensor, int], Any]) -> TeacherOutputs:
        """With the `change` of every tensor (of all images, before targets are made), which is
        given with the number of its axis of images."""

        def first(value: Tensor | None) -> Any:
            return None if value is None else change(value, 0)

        return TeacherOutputs(
            teachers=change(self.teachers, 1),
            synergy=first(self.synergy),
            certainty=first(self.certainty),
            latent=first(self.latent),
            pooled=tuple(map(first, self.pooled)),
            maps=tuple(tuple(map(first, maps)) for maps in self.maps),
            image=first(self.image),
            stack=first(self.stack),
            ema=first(self.ema),
            donor=self.donor and self.donor.changed(change),
        )


class Method(nn.Module):
    """A distillation objective and its own parameters.

    Its parameters are saved apart from the student, which stays a plain model.
    """

    config_type: type
    needs_maps = False  # of the student, and of teachers that are then run on the mixed images

    def __init__(self, config: Any, dims: Dims) -> None:
        super().__init__()
        self.config, self.dims = config, dims

    @property
    def live_targets(self) -> bool:
        """Whether teachers are run on the very images that the student sees."""
        return False

    @property
    def ema(self) -> tuple[float, int] | None:
        """(decay, steps between updates) of an average of the student, where it is used."""
        return None

    @property
    def ema_teaches(self) -> bool:
        """Whether that average is a teacher too."""
        return False

    @property
    def stack_features(self) -> str | None:
        """What a regression on all teachers reads of each: pooled or logits (None: no stack)."""
        return None

    @property
    def teachers_used(self) -> list[int]:
        """Indices of the teachers in the B-Step's `TeacherOutputs`; the others are not run."""
        return list(range(len(self.dims.teachers)))

    def student_level(self, stage: int) -> int:
        """Which of the student's blocks learn in a stage (`trainers.models.freezing`)."""
        return -1

    @property
    def freeze_bn(self) -> bool:
        """Whether BatchNorm of the student's frozen blocks is frozen too."""
        return False

    def kd_weight(self, position: StepPosition) -> float | None:
        """Weight of the distillation term at this moment of the B-Step (None: not logged)."""
        return None

    def needs_teachers(self, position: StepPosition) -> bool:
        """Whether teacher outputs are needed at this moment of the B-Step."""
        raise TypeError(f"{type(self).__name__} does not define needs_teachers")

    def needed_images(self, student: Outputs, labels_L: Tensor, mix: Mix) -> Tensor | None:
        """Indices of the images of a batch that teachers have to see where they are run live, for a
        student that saw the mixed images (None: all)."""
        return None

    def student_targets(
        self, teacher_outputs: TeacherOutputs, labels_L: Tensor, mix: Mix, position: StepPosition
    ) -> dict[str, Tensor]:
        """What `student_terms` needs of a batch's teacher outputs that no student changes. Where
        these come from tables it is made for many batches at once (`torch.vmap`), and then
        `teacher_outputs.targets`. Nothing for a method that does all of it in `student_terms`."""
        return {}

    def student_terms(
        self,
        student: Outputs,
        teacher_outputs: TeacherOutputs | None,
        labels_L: Tensor,
        mix: Mix,
        position: StepPosition,
    ) -> Terms:
        """The B-Step's terms for a student that saw the mixed images. Images without a label have
        no part in the labels' cross-entropy."""
        raise TypeError(f"{type(self).__name__} has no B-Step")

    def trainable(self, step: str) -> list[tuple[str, nn.Parameter]]:
        """Named parameters of the method that learn in step "A" or "B"."""
        return []
