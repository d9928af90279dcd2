"""What distillation costs next to a bare loop and next to training without teachers.

    python -m benchmarks.step [--bench fashion_mnist] [--budget standard] [--train-limit 1000]

prints two tables: the speed of the B-Step's loop, and the time of whole runs. Everything is
measured in one process, in rounds that take turns, so that only ratios within a round count.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks import b_step, whole_run
from benchmarks.setting import RUNGS, Setting, heading
from pipeline.config import ConfigError
from trainers.data import DataDamaged, DataMissing

ROUNDS, RUN_ROUNDS = 15, 3
QUICK = {"rounds": 3, "run_rounds": 1, "train_limit": 512}


def main() -> None:
    options = parse()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    setting = Setting(
        options.bench,
        options.budget,
        options.train_limit,
        torch.device(options.device),
        cpu_clock=options.clock == "cpu",
    )
    try:
        data = setting.data()
    except (ConfigError, DataMissing, DataDamaged) as error:
        raise SystemExit(str(error)) from error
    print(heading(setting, data))
    in_loop = [rung for rung in options.rungs if rung != "L0"]
    if options.rounds:
        teachers, _ = setting.teachers(data)
        print(b_step.compare(setting, data, teachers, in_loop, options.rounds), flush=True)
    if options.run_rounds:
        print(whole_run.compare(setting, data, options.rungs, options.run_rounds), flush=True)


def parse() -> argparse.Namespace:
    """Options of the command line; CE, the measure of the others, is always among the rungs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bench", default="fashion_mnist", help="a name of conf/bench")
    parser.add_argument("--budget", default="standard", help="a name of conf/budget")
    parser.add_argument("--train-limit", type=int, default=1000, help="training images")
    parser.add_argument("--rungs", default=",".join(RUNGS), help="of the ladder, with commas")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the B-Step; 0: leave out")
    parser.add_argument("--run-rounds", type=int, default=RUN_ROUNDS, help="of whole runs")
    parser.add_argument("--quick", action="store_true", help="a look: few rounds, 512 images")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: CPU seconds of the process, on a machine that others use (with --threads 1)",
    )
    options = parser.parse_args()
    chosen = options.rungs.split(",")
    unknown = [rung for rung in chosen if rung not in RUNGS]
    if unknown:
        parser.error(f"--rungs: unknown {', '.join(unknown)} (allowed: {', '.join(RUNGS)})")
    if options.clock == "cpu" and (options.threads != 1 or options.device != "cpu"):
        parser.error("--clock cpu: only with --threads 1 --device cpu (waiting threads count too)")
    options.rungs = [rung for rung in RUNGS if rung in chosen or rung == "CE"]
    if options.quick:
        vars(options).update(QUICK)
    return options


if __name__ == "__main__":
    main()
