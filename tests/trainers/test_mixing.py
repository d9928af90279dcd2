"""Mixup, CutMix and the plan of an epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.mixing import UNMIXED, EpochPlan, Mix, MixConfig, batch_sizes, mix_images, plan_epoch

quick = settings(deadline=None, max_examples=60, derandomize=True)
CPU = torch.device("cpu")
MIXUP, CUTMIX = MixConfig(1.0, 0.0), MixConfig(0.0, 1.0)


def plan(
    images: int = 20,
    views: int = 4,
    batch: int = 6,
    mix: MixConfig | None = None,
    seed: int = 0,
    purpose: str = "student",
    epoch: int = 0,
    size: int = 16,
) -> EpochPlan:
    return plan_epoch(
        seed,
        purpose,
        epoch,
        images=images,
        views=views,
        sizes=batch_sizes(images, 0, batch=batch),
        mix=mix,
        size=size,
        device=CPU,
    )


@quick
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 70), st.integers(0, 9))
def test_a_plan_has_every_image_at_most_once(
    images: int, views: int, batch: int, epoch: int
) -> None:
    rows = plan(images, views, batch, epoch=epoch).rows
    steps, size = rows.shape
    assert size == min(batch, images)
    assert steps == images // size
    seen = (rows // views).flatten().tolist()
    assert len(set(seen)) == len(seen)
    assert min(seen) >= 0
    assert max(seen) < images
    assert int(rows.min()) >= 0
    assert int(rows.max()) < images * views


def test_over_the_epochs_every_view_is_drawn_about_equally_often() -> None:
    rows = torch.cat([plan(200, 4, 50, epoch=e).rows.flatten() for e in range(40)])
    share = torch.bincount(rows % 4) / len(rows)
    assert (share - 0.25).abs().max() < 0.02
    positions = plan(200, 1, 200).rows[0]
    assert not torch.equal(positions, torch.arange(200))


def test_seed_purpose_and_epoch_make_plans_of_their_own() -> None:
    base = plan()
    assert torch.equal(plan().rows, base.rows)
    for other in (plan(seed=1), plan(purpose="fusion"), plan(epoch=1)):
        assert not torch.equal(other.rows, base.rows)


@pytest.mark.parametrize("mix", [MixConfig(), MIXUP, CUTMIX])
def test_switching_mixing_off_leaves_order_and_views(mix: MixConfig) -> None:
    mixed, plain = plan(mix=mix), plan(mix=None)
    assert torch.equal(mixed.rows, plain.rows)
    assert len(mixed.mixes) == len(plain.mixes) == 3
    assert all(one is UNMIXED for one in plain.mixes)
    for one in mixed.mixes:
        assert sorted(one.partner.tolist()) == list(range(6))


def numbered(count: int, size: int) -> Tensor:
    """Image i is filled with the number i, so that a mixed pixel tells where it comes from."""
    return torch.arange(float(count))[:, None, None, None].expand(count, 2, size, size).clone()


@quick
@given(st.integers(0, 2**30), st.sampled_from([4, 7, 16, 28]))
def test_cutmix_lambda_is_the_area_of_the_first_image(seed: int, size: int) -> None:
    images = numbered(6, size)
    for mix in plan(mix=CUTMIX, seed=seed, size=size).mixes:
        mixed = mix_images(images, mix)
        for i, partner in enumerate(mix.partner.tolist()):
            own, other = mixed[i] == i, mixed[i] == partner
            assert bool((own | other).all())
            assert torch.equal(own[0], own[1])
            if partner != i:
                assert own.double().mean().item() == pytest.approx(mix.lam, abs=1e-12)
                assert other.nonzero().numel() == 0 or is_a_box(other[0])


def is_a_box(where_HW: Tensor) -> bool:
    y, x = where_HW.nonzero(as_tuple=True)
    area = (y.max() - y.min() + 1) * (x.max() - x.min() + 1)
    return int(area) == len(y)


def test_mixup_is_the_weighted_sum_of_both_images() -> None:
    images = torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    for mix in plan(mix=MIXUP, size=5).mixes:
        assert mix.box is None
        mixed = mix_images(images, mix)
        for i, partner in enumerate(mix.partner.tolist()):
            want = mix.lam * images[i] + (1 - mix.lam) * images[partner]
            torch.testing.assert_close(mixed[i], want, rtol=1e-5, atol=1e-6)


def test_mixing_leaves_the_clean_images_as_they_are() -> None:
    for config in (MIXUP, CUTMIX):
        images = numbered(6, 16)
        for mix in plan(mix=config).mixes:
            mix_images(images, mix)
        assert torch.equal(images, numbered(6, 16))
    assert mix_images(images, UNMIXED) is images


def test_blend_is_the_same_mixture_as_that_of_the_images() -> None:
    values = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for config in (MIXUP, CUTMIX):
        mix = plan(mix=config).mixes[0]
        want = torch.stack(
            [mix.lam * values[i] + (1 - mix.lam) * values[p] for i, p in enumerate(mix.partner)]
        )
        torch.testing.assert_close(mix.blend(values), want, rtol=1e-12, atol=1e-12)
    assert torch.equal(UNMIXED.blend(values), values)
    partner = torch.arange(6).flip(0)
    assert torch.equal(Mix(1.0, partner).blend(values), values)
    assert torch.equal(Mix(0.0, partner).blend(values), values.flip(0))


def many(config: MixConfig) -> list[Mix]:
    return plan(images=4000, batch=2, mix=config, size=64).mixes


def test_mixup_and_cutmix_take_turns_at_random() -> None:
    both = many(MixConfig())
    assert sum(mix.box is None for mix in both) / 2000 == pytest.approx(0.5, abs=0.04)
    assert all(mix.box is None for mix in many(MIXUP))
    assert all(mix.box is not None for mix in many(CUTMIX))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_is_drawn_from_a_symmetric_beta(alpha: float) -> None:
    lams = torch.tensor([mix.lam for mix in many(MixConfig(alpha, 0.0))], dtype=torch.float64)
    assert lams.mean() == pytest.approx(0.5, abs=0.03)
    assert lams.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert lams.min() >= 0
    assert lams.max() <= 1


def test_cutmix_boxes_are_as_large_as_lambda_where_the_border_does_not_clip_them() -> None:
    """λ uniform on 0..1 (α = 1): the side of an uncut box is √(1-λ) of the image's."""
    sides = torch.tensor(
        [
            (bottom - top) / 64
            for top, bottom, left, right in (mix.box for mix in many(CUTMIX))
            if top > 0 and bottom < 64
        ]
    )
    assert len(sides) > 300
    assert sides.max() > 0.8
    assert sides.min() < 0.2
    shares = torch.tensor([1 - mix.lam for mix in many(CUTMIX)])
    # E[cut area] of a box of side w·S with a uniform centre, clipped at the border, is
    # E[(w - w²/4)²] with w² uniform: ∫ (√a - a/4)² da = 1/2 - 1/5 + 1/48.
    assert shares.mean() == pytest.approx(0.5 - 0.2 + 1 / 48, abs=0.02)


@pytest.mark.parametrize(
    ("start", "stop", "active"),
    [
        (0.25, None, range(20, 80)),
        (20.0, 60.0, range(20, 60)),
        (0.0, 0.5, range(40)),
        (0.0, None, range(80)),
        (1.0, None, range(1, 80)),
        (0.5, 0.25, range(0)),
    ],
)
def test_mixing_is_active_between_start_and_stop(
    start: float, stop: float | None, active: range
) -> None:
    config = MixConfig(start=start, stop=stop)
    assert [e for e in range(80) if config.active(e, 80)] == list(active)


def test_mixing_without_any_alpha_is_never_active() -> None:
    config = MixConfig(0.0, 0.0, start=0.0)
    assert not any(config.active(e, 10) for e in range(10))
    assert MixConfig(0.0, 0.5, start=0.0).active(0, 10)
    assert MixConfig(0.5, 0.0, start=0.0).active(0, 10)


@pytest.mark.parametrize("mix", [MixConfig(1.0, 1.0), None])
def test_a_mix_by_an_index_on_the_device_gives_the_same_images(mix: MixConfig | None) -> None:
    drawn = plan(images=120, mix=mix)
    images, values = torch.rand(6, 3, 16, 16), torch.rand(6)
    for i in range(len(drawn.mixes)):
        by_number, by_tensor = drawn.mix(i), drawn.mix(torch.tensor([i]))
        assert torch.equal(mix_images(images, by_number), mix_images(images, by_tensor))
        assert torch.equal(by_number.blend(values), by_tensor.blend(values))
        assert 1 - by_number.lam == 1 - by_tensor.lam
