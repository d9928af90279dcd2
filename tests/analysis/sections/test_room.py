"""How much there is to teach, on frames written by hand."""

import pytest

from analysis.sections import room
from tests.analysis.frames import bench_runs, distill, runs
from trainers import metrics

KNOWN = {
    f"metrics.{metrics.ROOM_BEST_TEACHER}": 0.52,
    f"metrics.{metrics.ROOM_AVERAGE}": 0.61,
    f"metrics.{metrics.ROOM_STACK}": 0.79,
}
VAL = f"metrics.{metrics.BEST_VAL_TOP1}"


def few_labels(alone: float) -> list[dict]:
    found = []
    for seed in range(2):
        found += [
            distill("CE", seed, 0.5, **{VAL: alone + seed / 100}),
            distill("KD", seed, 0.5, **KNOWN, **{VAL: 0.66}),
            distill("L2", seed, 0.5, synergy=0.75 + seed / 100, **KNOWN, **{VAL: 0.77}),
        ]
    return found


def test_targets_are_compared_with_labels_alone():
    found = room.section(bench_runs(runs(*few_labels(0.70))))
    (table,) = found.tables
    assert [row[0] for row in table.block.rows] == [
        "labels alone",
        "the best teacher",
        "the teachers' average",
        "a stack of the teachers",
        "the fusion of L2",
    ]
    assert [row[3] for row in table.block.rows] == ["–", "−18.50", "−9.50", "+8.50", "+5.00"]
    assert [row[4] for row in table.block.rows] == ["–", "–", "–", "–", "77.00"]
    assert [row[1] for row in table.block.rows] == ["2", "4", "4", "4", "2"]
    assert found.sentences == (
        "A stack of the teachers is +18.00 points from their average: about what a fusion can add "
        "to it.",
        "What knows most is a stack of the teachers (79.00 %), +8.50 points from a student of the "
        "labels alone (70.50 %): about what a target can add to such a student.",
    )
    assert found.summary == found.sentences[-1:]
    assert found.notes == (room._OWN,)
    unfused = [row for row in few_labels(0.7) if row["tags.rung"] != "L2"]
    assert not room.section(bench_runs(runs(*unfused))).notes
    assert not found.gaps


def test_no_room_is_said():
    found = room.section(bench_runs(runs(*few_labels(0.785))))
    assert found.sentences[-1].endswith(
        "there is little to teach. Fewer labels, or other teachers, leave more room."
    )


def test_older_runs_have_it_from_the_gains_of_their_fusions_where_it_is_asked_for():
    gains = {"gain_original": 0.2, "gain_average_original": 0.1}
    kept = runs(*[distill("L2", s, 0.5, synergy=0.7 + s / 10, **gains) for s in range(2)])
    assert room.section(bench_runs(kept)).empty
    info = room.room_info(kept, "toy")
    assert info.of("the best teacher") == pytest.approx(0.55)
    assert info.of("the teachers' average") == pytest.approx(0.65)
    found = room.alone(bench_runs(kept))
    assert [row[0] for row in found.tables[0].block.rows][:2] == list(room._TEACHERS)[:2]
    assert [gap.command.split("cfg=")[1].split()[0] for gap in found.gaps] == ["CE"]
