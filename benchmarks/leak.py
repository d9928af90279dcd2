"""Does the student's query leak labels? What a fusion gets right on labelled, unlabelled and
validation images at the end of every A-Step, with the student's query and without.

    python -m benchmarks.leak [--seeds 0,1,2] [--figure FILE.png] [OVERRIDES …]

trains one student a seed and kind of query (the defaults: cfg=L2 bench=fashion_mnist_few; its
teachers must be in the store: `python -m pipeline finetune bench=fashion_mnist_few`) and prints a
table. The labels of the unlabelled images are read here and by nothing that learns. Accuracies are
of the fusion that is restored, on one view of each image; the intervals are over seeds. Last comes
what a plain regression on both teachers' features gets right (`cfg=stack`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.report_model import ReportFigure
from analysis.stats import Interval, mean_interval
from benchmarks.shown import table
from pipeline.config import Config, compose
from pipeline.identity import distill_config, splits, teacher_numbers
from pipeline.session import store_of
from pipeline.stages.network import network
from pipeline.stages.teacher import trained, training
from trainers import metrics
from trainers.data import DATASETS, Splits, partition
from trainers.distill import distill, plan
from trainers.distillation.stage_cache import network_bank, stack, synergy_rows
from trainers.distillation.state import DistillState, StepInputs, Teacher
from trainers.loop import top1
from trainers.methods.alternating import alternating
from trainers.models import freezing
from trainers.stacking import stacked

QUERIES = ("stage", "none")
IMAGES = ("labelled", "unlabelled", "validation")
DEFAULTS = ["bench=fashion_mnist_few", "cfg=L2"]


class Found(NamedTuple):
    """Accuracy of the fusion (a share) on images of a kind after the A-Step of a stage (from 1)."""

    query: str
    images: str
    stage: int
    accuracy: float


def main() -> None:
    options, overrides = parse()
    found = [
        one
        for seed in options.seeds.split(",")
        for query in QUERIES
        for one in of_run(compose([*DEFAULTS, *overrides, f"seed={seed}", f"method.query={query}"]))
    ]
    means = averaged(found)
    print(as_table(means))
    of_problem = [text for text in overrides if not text.startswith(("method", "cfg="))]
    print(stack_line(compose([*DEFAULTS, *of_problem, "cfg=stack"])))
    if options.figure:
        path = Path(options.figure)
        ReportFigure(path.stem, draw(means), "").write(path, "png")


def of_run(config: Config) -> Iterator[Found]:
    """The accuracies of one run, which is trained for it and kept nowhere."""
    inputs, state = prepared(config)
    trainer, teachers, hidden_N = inputs.config, inputs.teachers, hidden_labels(config)
    rows_N = one_view(len(inputs.data.train.labels), len(hidden_N), inputs)
    epochs = distill(trainer, inputs.data, teachers, state)
    for epoch, planned in zip(epochs, plan(trainer), strict=True):
        if planned.step != "A" or not planned.last:
            continue
        method = alternating(state.method)
        assert method is not None
        student = network_bank(inputs, state.student).train.at(rows_N)
        fused = synergy_rows(method, student, [t.bank.train.at(rows_N) for t in teachers])
        accuracies = (
            epoch.metrics[metrics.SYNERGY_TRAIN_TOP1],
            top1(fused.logits, hidden_N),
            epoch.metrics[metrics.SYNERGY_RESTORED],
        )
        for images, accuracy in zip(IMAGES, accuracies, strict=True):
            yield Found(config.method.query, images, planned.position.stage + 1, accuracy)


def prepared(config: Config) -> tuple[StepInputs, DistillState]:
    """A student that has not learned, with the finished teachers of the store."""
    trainer, data = distill_config(config), splits(config.data)
    seen, teachers = training(data), loaded_teachers(config, data)
    state = DistillState.new(trainer, seen, teachers)
    return StepInputs.prepare(trainer, seen, teachers, state), state


def stack_line(config: Config) -> str:
    """What the regression on the teachers gets right, on the same images; it has no stages."""
    inputs, state = prepared(config)
    labels_N, hidden_N = inputs.data.train.labels, hidden_labels(config)
    fitted, what = stack(inputs, state), state.method.stack_features
    assert what is not None

    def right(first: int, labels: torch.Tensor) -> float:
        rows = one_view(first, len(labels), inputs)
        features = [getattr(t.bank.train.at(rows), what) for t in inputs.teachers]
        return 100 * top1(fitted.logits(stacked(features)), labels)

    return (
        f"The stack: labelled {right(0, labels_N):.1f}, unlabelled "
        f"{right(len(labels_N), hidden_N):.1f}, validation {100 * fitted.val_top1:.1f}."
    )


def one_view(first: int, count: int, inputs: StepInputs) -> torch.Tensor:
    """The rows of one view of `count` images [count], from the image `first` on."""
    return (first + torch.arange(count)) * inputs.views.count


def hidden_labels(config: Config) -> torch.Tensor:
    """Labels of the unlabelled images [N], from the files."""
    raw = DATASETS[config.data.name](config.data)
    labels_N = raw.train_labels[partition(raw, config.data).unlabelled]
    return torch.from_numpy(labels_N.astype("int64"))


def loaded_teachers(config: Config, data: Splits) -> list[Teacher]:
    """The finished teachers of the store, with view banks that are made here."""
    device, store = torch.device("cpu"), store_of(config.runtime)
    trainer, seen = distill_config(config), training(data)
    views = StepInputs.prepare(trainer, seen, [], DistillState.new(trainer, seen, []))
    teachers = []
    for one in trained(config, teacher_numbers(config)):
        folder = store.run(one.stage, one.key)
        result = folder.result()
        if result is None:
            raise SystemExit(f"{one.key} is not finished in {store.root}: finetune it first")
        model = network(one.model, config.data, config.numerics, device)
        model.load_state_dict(folder.load_tensors(one.weights, result.weights[one.weights]))
        freezing.freeze(model)
        teachers.append(Teacher(model, network_bank(views, model)))
    return teachers


Means = dict[tuple[str, str], list[Interval]]  # (query, images): an interval a stage


def averaged(found: list[Found]) -> Means:
    """Means over seeds, in stage order."""
    stages = sorted({one.stage for one in found})
    return {
        (query, images): [
            mean_interval([f.accuracy for f in found if f[:3] == (query, images, stage)])
            for stage in stages
        ]
        for query in QUERIES
        for images in IMAGES
    }


def as_table(means: Means) -> str:
    """A row a kind of query and images, a column a stage; in %."""
    stages = range(1, 1 + len(next(iter(means.values()))))
    rows = [
        [f"{query}, {images}", *(f"{100 * one.mean:.1f}" for one in each)]
        for (query, images), each in means.items()
    ]
    n = next(iter(means.values()))[0].n
    caption = f"Accuracy of the fusion, %, mean of {n} seeds. none: without the student's query."
    return table(caption, ["query, images", *(f"stage {s}" for s in stages)], rows)


def draw(means: Means) -> Figure:
    """A panel a kind of query, a line a kind of images."""
    titles = {"stage": "with the student's query", "none": "without the query"}
    figure, panels = style.new_multiples(
        "What the fusion gets right at the end of each A-Step",
        "stage",
        "accuracy of the fusion, %",
        list(titles.values()),
        [style.TEXT] * len(titles),
    )
    for axes, query in zip(panels, titles, strict=True):
        for number, images in enumerate(IMAGES):
            each = means[query, images]
            stages = range(1, 1 + len(each))
            look = style.series(number)
            style.draw_intervals(axes, stages, each, look, f"{images} images", scale=100)
        axes.set_xticks(stages)
    bounds = style.view([one for each in means.values() for one in each], scale=100)
    panels[-1].set_ylim(bounds)
    panels[-1].legend(fontsize=style.SMALL, frameon=False)
    return figure


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--figure", help="a file to draw the table in")
    return parser.parse_known_args()


if __name__ == "__main__":
    main()
