"""The digest of weights tells any two apart that differ in a bit, and is the same for the same."""

import pytest
import torch
from torch import nn

from trainers import models
from trainers.weight_digest import BITS, weights_digest


def network() -> nn.Module:
    torch.manual_seed(0)
    return models.build("resnet8", 10, 8, in_chans=1)


def test_the_same_weights_have_the_same_number_whatever_holds_them():
    one, other = network(), network().to(memory_format=torch.channels_last)
    found = weights_digest(one)
    assert found == weights_digest(other)
    assert found == int(found)
    assert 0 < found < 2**BITS
    assert int(float(found)) == int(found)


def test_one_bit_of_one_weight_changes_it():
    net = network()
    before = weights_digest(net)
    weight = next(net.parameters())
    with torch.no_grad():
        weight.view(-1)[3] = torch.nextafter(weight.view(-1)[3], torch.tensor(9.0))
    assert weights_digest(net) != before


def test_buffers_and_the_sign_of_zero_count():
    net = nn.BatchNorm1d(4)
    before = weights_digest(net)
    net.num_batches_tracked += 1
    counted = weights_digest(net)
    net.running_mean[0] = -0.0
    assert len({before, counted, weights_digest(net)}) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_places_count_in_every_type(dtype):
    net = nn.Module()
    net.register_buffer("t", torch.tensor([0, 1, 1, 0]).to(dtype))
    before = weights_digest(net)
    net.t = net.t.roll(1)
    assert weights_digest(net) != before


def test_order_of_modules_counts_and_no_module_is_nothing():
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    assert weights_digest(one, other) != weights_digest(other, one)
    assert weights_digest() == 0.0


def test_numbers_spread_over_all_bits():
    net = nn.Module()
    net.register_buffer("t", torch.zeros(1))
    seen = []
    for k in range(400):
        net.t = torch.tensor([float(k)])
        seen.append(int(weights_digest(net)))
    assert len(set(seen)) == 400
    for bit in range(BITS):
        assert 120 < sum(number >> bit & 1 for number in seen) < 280  # 200 ± 8 deviations
