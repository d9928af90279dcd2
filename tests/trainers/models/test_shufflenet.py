"""ShuffleNetV2 in the protocol of small nets, against torchvision's own."""

import torch
from torchvision.models import shufflenet_v2_x1_0

from trainers.models import build


def test_at_full_size_it_is_torchvisions() -> None:
    torch.manual_seed(0)
    original = shufflenet_v2_x1_0(num_classes=10).eval()
    model = build("shufflenet_v2", 10, 96).eval()
    model.load_state_dict(original.state_dict())
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(x), original(x))


def test_small_images_change_no_weight() -> None:
    small, large = build("shufflenet_v2", 10, 64), build("shufflenet_v2", 10, 65)
    small.load_state_dict(large.state_dict())
    x = torch.randn(1, 3, 32, 32)
    sides = [m.shape[-1] for m in small.forward_intermediates(x)[1]]
    assert sides == [32, 16, 8, 4]


def test_its_pretrained_stem_is_used(monkeypatch) -> None:
    torch.manual_seed(0)
    source = shufflenet_v2_x1_0().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(source)
    )
    for channels in (1, 3):
        found = build("shufflenet_v2", 10, 32, pretrained=True, in_chans=channels).state_dict()
        stem = source["conv1.0.weight"]
        expected = stem if channels == 3 else stem.sum(1, keepdim=True)
        torch.testing.assert_close(found["conv1.0.weight"], expected)
        same = [key for key in source if found[key].shape == source[key].shape]
        assert len(same) >= len(source) - 3
        assert all(torch.equal(source[key], found[key]) for key in same)
