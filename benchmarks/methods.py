"""What the methods of the literature cost next to plain distillation and to other projects.

    python -m benchmarks.methods [--quick] [--device cuda] [--methods kd,crd]

prints step time and peak memory of every method next to kd; and for each of three pairs of networks
the bare step of kd next to timm's and torchdistill's, and a whole epoch from images to weights
next to a loop that is fed by an ordinary loader. All take turns, so that only ratios within a round
count. Images are random; times do not depend on them.

torchdistill is no requirement of the project. To have it in the tables:

    uv pip install --no-deps torchdistill
"""

from __future__ import annotations

import argparse
import textwrap

import torch

from benchmarks import peers
from benchmarks.setting import Setting, device_name
from benchmarks.shown import WIDTH, at_most, ratios, spread, table
from benchmarks.synthetic import b_steps, config, random_data, random_teacher
from pipeline.config import ConfigError
from trainers.loop import peak_memory_mb, reset_peak_memory
from trainers.methods import METHODS

BASELINES = tuple(name for name in METHODS if name != "asib")
LEARNED = "kd"  # what all others are compared with
IMAGES, ROUNDS, STEPS, WARM_UP = 50_000, 7, 4, 1
QUICK = {"rounds": 2, "steps": 2}
CAPTION = """\
B-Step, milliseconds a step: the training loop itself, {student} from {teacher}, batch {batch}, \
{images} images, unmixed, one teacher (from its bank; fitnet and at run it live, because they \
read its feature maps). Peak memory of the process (of the device on a GPU) during the steps, \
MiB; its banks of images and teachers are about the same for all. {rounds} rounds of {steps} \
steps, interleaved; median (least … largest); ratios within a round. Target: crd, with 16384 \
negatives, at most 1.50 of kd's step."""


def main() -> None:
    options = parse()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    setting = Setting("cifar100_small", "standard", None, torch.device(options.device))
    print(heading(setting))
    try:
        print(compare(setting, options), flush=True)
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    for pair in map(peers.Pair.of, options.pairs):
        print(peers.bare(setting, pair, options.batch, options.rounds, options.steps), flush=True)
        print(peers.end_to_end(setting, pair, options.batch, options.rounds), flush=True)


def compare(setting: Setting, options: argparse.Namespace) -> str:
    """The table of all methods."""
    data = random_data(options.images, setting.device)
    teachers = [random_teacher(options.teacher, data)] * 2  # of two as any bench has
    runs = {
        name: b_steps(config(name, options.student, options.batch), data, teachers, options.steps)[
            0
        ]
        for name in options.methods
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    memory = dict.fromkeys(runs, 0.0)
    for turn in range(WARM_UP + options.rounds):
        for name in [*runs][turn % len(runs) :] + [*runs][: turn % len(runs)]:
            reset_peak_memory(setting.device)
            began = setting.clock()
            runs[name]()
            seconds = setting.clock() - began
            memory[name] = max(memory[name], peak_memory_mb(setting.device))
            if turn >= WARM_UP:
                times[name].append(1e3 * seconds / options.steps)
    rows = []
    for name, values in times.items():
        relative = ratios(values, times[LEARNED])
        target = at_most(1.5, relative) if name == "crd" else ""
        rows.append([name, spread(values, 0), spread(relative), f"{memory[name]:.0f}", target])
    caption = CAPTION.format(**vars(options))
    return table(caption, ["", "ms a step", "time / kd", "peak MiB", "target"], rows)


def heading(setting: Setting) -> str:
    """Device, threads, versions."""
    threads = torch.get_num_threads()
    text = (
        f"Device: {device_name(setting.device)}, {threads} thread{'s' if threads > 1 else ''}, "
        f"wall clock; torch {torch.__version__}, float32."
    )
    return textwrap.fill(text, WIDTH) + "\n"


def parse() -> argparse.Namespace:
    """Options of the command line; kd, the measure of the others, is always among the methods."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--methods", default=",".join(BASELINES), help="with commas")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=IMAGES, help="training images")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of a round")
    parser.add_argument("--pairs", default=",".join(peers.PAIRS), help="benches; '' for none")
    parser.add_argument("--quick", action="store_true", help="a look: few rounds of few steps")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args()
    options.pairs = [name for name in options.pairs.split(",") if name]
    chosen = options.methods.split(",")
    unknown = [name for name in chosen if name not in BASELINES]
    if unknown:
        allowed = ", ".join(BASELINES)
        parser.error(f"--methods: unknown {', '.join(unknown)} (allowed: {allowed})")
    options.methods = [name for name in BASELINES if name in chosen or name == LEARNED]
    if options.quick:
        vars(options).update(QUICK)
    return options


if __name__ == "__main__":
    main()
