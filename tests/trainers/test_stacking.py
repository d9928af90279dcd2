"""Stacking against scikit-learn's regression and its own promises."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from trainers.stacking import PENALTIES, Stack, fit, stacked


def problem(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of two teachers, each of which tells two of three classes apart, and labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=draw)
    first = torch.stack([(labels == 0).float(), (labels == 1).float()], 1)
    second = torch.stack([(labels == 2).float(), torch.zeros(count)], 1) * 40 + 7
    noise = torch.randn(count, 4, generator=draw)
    return stacked([first + 0.4 * noise[:, :2], second + 16 * noise[:, 2:]]), labels


def fitted(count: int = 300) -> tuple[Stack, Tensor, Tensor]:
    x, y = problem(count, 0)
    val, val_y = problem(200, 1)
    return fit(x, y, val, val_y, 3), x, y


def test_probabilities_are_those_of_scikit_learn() -> None:
    found, x, y = fitted()
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    other = LogisticRegression(C=1 / (found.penalty * len(y)), tol=1e-8, max_iter=10_000)
    expected = torch.tensor(other.fit(scaled, y).predict_proba(scaled))
    assert torch.softmax(found.logits(x), 1) == pytest.approx(expected, abs=2e-4)


def test_teachers_together_know_more_than_each() -> None:
    found, x, y = fitted()
    val, val_y = problem(200, 1)
    alone = [fit(x[:, part], y, val[:, part], val_y, 3) for part in (slice(2), slice(2, 4))]
    assert found.val_top1 > max(one.val_top1 for one in alone)
    right = (found.logits(val).argmax(1) == val_y).float().mean()
    assert float(right) == pytest.approx(found.val_top1)


def test_the_penalty_is_chosen_on_validation_alone() -> None:
    few, many = fitted(12)[0], fitted(3000)[0]
    assert few.penalty > many.penalty
    draw = torch.Generator().manual_seed(5)  # labels that the features do not explain
    noise, other = (torch.randint(3, (count,), generator=draw) for count in (40, 2000))
    nothing = fit(problem(40, 0)[0], noise, problem(2000, 1)[0], other, 3)
    assert nothing.penalty == PENALTIES[0]


def test_the_same_numbers_give_the_same_fit_and_constant_features_no_weight() -> None:
    x, y = problem(100, 0)
    x = torch.cat([x, torch.full((100, 1), 3.0)], 1)
    val = torch.cat([problem(50, 1)[0], torch.full((50, 1), 9.0)], 1)
    one, other = (fit(x, y, val, problem(50, 1)[1], 3) for _ in range(2))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
    assert not one.weight[:, -1].any()


def test_without_validation_images_there_is_no_penalty() -> None:
    x, y = problem(10, 0)
    with pytest.raises(ValueError, match="no validation images"):
        fit(x, y, x[:0], y[:0], 3)
