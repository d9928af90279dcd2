"""The information plane: against closed forms, and without a trace in training."""

import math

import pytest
import torch

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers.bottleneck import Bottleneck
from trainers.methods import information_plane


def head(z_MD: torch.Tensor) -> torch.Tensor:
    """g(z) = (z, 0): cross-entropy of class 0 is softplus(−z)."""
    return torch.cat([z_MD, torch.zeros_like(z_MD)], 1)


def test_entropy_of_the_labels_own_frequencies():
    labels = torch.tensor([0, 0, 1, 3])
    assert information_plane.label_entropy(labels) == pytest.approx(1.5 * math.log(2))
    assert information_plane.label_entropy(torch.zeros(5, dtype=torch.long)) == 0.0


def test_cross_entropy_is_the_mean_over_draws_of_z():
    n = 20_000
    mu, logvar = torch.full((n, 1), 0.5), torch.full((n, 1), 2 * math.log(2.0))
    latent, labels = Bottleneck(mu, mu, logvar), torch.zeros(n, dtype=torch.long)
    found = information_plane.sampled_cross_entropy(head, latent, labels, (0, 0))
    x = torch.linspace(-8, 8, 4001, dtype=torch.double)
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    exact = torch.trapezoid(density * torch.nn.functional.softplus(-(0.5 + 2 * x)), x)
    assert found == pytest.approx(float(exact), abs=0.01)
    at_mean = math.log1p(math.exp(-0.5))
    assert abs(found - at_mean) > 0.1  # z was drawn: this is not the value at mu


def test_draws_belong_to_seed_and_epoch_and_leave_the_global_stream_alone():
    mu = torch.zeros(50, 1)
    latent, labels = Bottleneck(mu, mu, torch.zeros(50, 1)), torch.zeros(50, dtype=torch.long)
    before = torch.get_rng_state()
    values = [
        information_plane.sampled_cross_entropy(head, latent, labels, stream)
        for stream in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert values[0] == values[1]
    assert len(set(values)) == 3


@pytest.mark.parametrize("cfg", ["L0", "L1"])
def test_logged_where_synergy_is_and_there_is_a_bottleneck(world: World, cfg: str):
    for epoch in tiny.run(tiny.rung(cfg), world).epochs:
        measured = "bottleneck/val_ce" in epoch.metrics
        assert measured == (cfg == "L1" and "synergy/top1" in epoch.metrics)
        if measured:
            assert epoch.metrics["bottleneck/val_rate"] >= 0
            labels = world.data.val.labels
            assert epoch.metrics["bottleneck/label_entropy"] == information_plane.label_entropy(
                labels
            )


def test_training_is_the_same_without_it(
    world: World, two_stages: dict[str, tiny.Run], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("trainers.distillation.a_step.information", lambda *_, **__: {})
    without = tiny.run(tiny.rung("L2", *tiny.TWO_STAGES), world)
    name = "train/loss/total"
    assert [e.metrics[name] for e in without.epochs] == [
        e.metrics[name] for e in two_stages["L2"].epochs
    ]
