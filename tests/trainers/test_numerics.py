"""Precisions: in which type networks compute, and what else they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainers.numerics import Numerics, use_tf32

CPU = torch.device("cpu")
TYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@pytest.mark.parametrize("precision", TYPES)
def test_networks_compute_in_the_type_of_the_precision(precision: str) -> None:
    numerics, layer = Numerics(precision), torch.nn.Linear(2, 2)
    with numerics.autocast(CPU):
        assert layer(torch.ones(1, 2)).dtype == TYPES[precision] == numerics.dtype
    assert numerics.mixed is (precision in ("bfloat16", "float16"))
    assert not numerics.plain().mixed
    assert (numerics.scaler(CPU) is not None) is (precision == "float16")


@pytest.fixture
def products() -> Iterator[None]:
    """The process's choice of products is restored."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("on", [True, False])
def test_tf32_is_on_for_products_and_convolutions_or_for_neither(on: bool) -> None:
    use_tf32(on)
    assert torch.backends.cudnn.allow_tf32 is on
    assert torch.backends.cuda.matmul.allow_tf32 is on
