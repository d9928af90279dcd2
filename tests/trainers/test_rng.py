"""Named streams: stable over versions, independent of what was drawn before, shared by rungs."""

import contextlib

import pytest
import torch
from torch import Tensor

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import mixing
from trainers.distillation.config import DistillConfig
from trainers.mixing import Mix
from trainers.rng import generator, seed_global, seeded, stream_seed


def test_seeds_are_the_same_on_every_machine_and_version() -> None:
    assert stream_seed(0, "student") == 4103486972053664701
    assert stream_seed(7, "fusion", "draws", 3) == 8352138197451702141
    assert stream_seed(12345, "view", 0) == 5232296433832824310


def test_global_streams_are_seeded_as_torch_does_but_without_a_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Formatting the stack took 0.3 ms of every step."""
    torch.manual_seed(stream_seed(0, "x"))
    expected = torch.get_rng_state()
    torch.manual_seed(1)
    monkeypatch.delattr("traceback.format_stack")
    seed_global(stream_seed(0, "x"))
    assert torch.equal(torch.get_rng_state(), expected)


def test_draws_are_the_same_on_every_machine_and_version() -> None:
    drawn = torch.randint(1000, (6,), generator=generator(3, "order", 1)).tolist()
    assert drawn == [193, 620, 333, 850, 805, 979]
    assert torch.rand(2, generator=generator(0, "x")).tolist() == pytest.approx(
        [0.7356137633, 0.5759711266], abs=1e-7
    )
    plan = mixing.plan_epoch(
        0,
        "student",
        0,
        images=12,
        views=4,
        sizes=mixing.batch_sizes(12, 0, batch=6),
        mix=mixing.MixConfig(),
        size=16,
        device=torch.device("cpu"),
    )
    assert plan.rows.tolist() == [[18, 22, 44, 41, 30, 37], [5, 2, 32, 26, 9, 15]]
    assert [round(mix.lam, 6) for mix in plan.mixes] == [0.208357, 0.648438]
    assert [mix.box for mix in plan.mixes] == [None, (6, 16, 7, 16)]
    partners = [mix.partner.tolist() for mix in plan.mixes]
    assert partners == [[4, 2, 3, 0, 5, 1], [1, 2, 3, 4, 0, 5]]


def test_seed_and_every_part_of_the_purpose_count() -> None:
    named = [(0,), (1,), (0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 0)]
    assert len({stream_seed(*name) for name in named}) == len(named)
    assert all(0 <= stream_seed(*name) < 2**63 for name in named)


def test_seeded_draws_from_its_own_stream_and_puts_the_global_one_back() -> None:
    torch.manual_seed(9)
    want = torch.rand(3)
    torch.manual_seed(9)
    with seeded(0, "student"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), want)
    torch.manual_seed(10)
    with seeded(0, "student"):
        assert torch.equal(torch.rand(3), inside)
    with seeded(0, "method"):
        assert not torch.equal(torch.rand(3), inside)


def test_seeded_puts_the_global_stream_back_after_an_error() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with contextlib.suppress(KeyError), seeded(0, "student"):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


# What all rungs share at one seed ------------------------------------------------------------


class Seen:
    """Everything a student is shown in a run's B-Steps, and its initial weights."""

    def __init__(self, config: DistillConfig, world: World) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.mixes: list[Mix] = []
        state = tiny.new_state(config, world)
        self.initial_weights = tiny.clone(state.student)

        def look(stem: torch.nn.Module, arguments: tuple[Tensor]) -> None:
            if stem.training:  # the frozen copies that answer queries are in evaluation
                self.images.append(arguments[0].clone())

        state.student.conv1.register_forward_pre_hook(look)
        terms = state.method.student_terms

        def record(student, teacher_outputs, labels, mix, position):
            self.labels.append(labels.clone())
            self.mixes.append(mix)
            return terms(student, teacher_outputs, labels, mix, position)

        state.method.student_terms = record
        self.epochs = list(tiny.epochs_of(config, world, state))


@pytest.fixture(scope="module")
def control(world: World) -> Seen:
    return Seen(tiny.rung("CE", "mix.start=0.5"), world)


@pytest.mark.parametrize("cfg", ["KD", "L1", "L3"])
def test_rungs_at_one_seed_share_weights_order_crops_and_mixes(
    cfg: str, control: Seen, world: World
) -> None:
    rung = Seen(tiny.rung(cfg, "mix.start=0.5"), world)
    assert (cfg == "L3") == any(e.step == "A" and e.stage == 2 for e in rung.epochs)
    assert len(control.images) == len(rung.images) == 4 * 4
    assert tiny.differences(control.initial_weights, rung.initial_weights) == []
    assert tiny.differences(control.images, rung.images) == []
    assert tiny.differences(control.labels, rung.labels) == []
    assert tiny.differences(control.mixes, rung.mixes) == []


def test_epochs_and_seeds_differ(control: Seen, world: World) -> None:
    mixed = [mix.partner is not None for mix in control.mixes]
    assert mixed == [False] * 8 + [True] * 8
    first, second = control.images[:4], control.images[4:8]
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = Seen(tiny.rung("CE", "mix.start=0.5", "seed=1"), world)
    assert len(tiny.differences(control.images, other.images)) == 16
    assert tiny.differences(
        control.initial_weights["conv1.weight"], other.initial_weights["conv1.weight"]
    )


def test_the_global_stream_before_a_run_changes_nothing(world: World) -> None:
    config = tiny.rung("L1")
    torch.manual_seed(1)
    one = tiny.run(config, world)
    torch.manual_seed(2)
    torch.rand(100)
    other = tiny.run(config, world)
    assert tiny.differences(one.state.state_dict(), other.state.state_dict()) == []
    assert tiny.without_cost(one.epochs) == tiny.without_cost(other.epochs)
