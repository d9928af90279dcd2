"""Networks of timm for small images, and pretrained weights, without a network."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from torch import Tensor, nn

from tests.trainers.models.test_models import shape_only
from trainers.models import CannotBuild, NoWeights, build, timm_models
from trainers.models.timm_models import TIMM_NETS

QUICK = ("mobilenet_v2", "resnet50", "convnext_s")  # one of each family
Fetch = Callable[[Callable[..., Any]], None]


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Put something in the place of every download."""

    def put(stand_in: Callable[..., Any]) -> None:
        for name in ("load_state_dict_from_hf", "load_state_dict_from_url"):
            monkeypatch.setattr(f"timm.models._builder.{name}", stand_in)
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", stand_in)

    return put


def strides(model: nn.Module) -> list[Any]:
    return [
        (name, m.kernel_size, m.stride)
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.MaxPool2d)
    ]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in TIMM_NETS],
)
def test_small_images_change_no_weight(name: str) -> None:
    small, large = shape_only(name, 64), shape_only(name, 65)
    with torch.device("meta"):
        plain = timm.create_model(TIMM_NETS[name].name, num_classes=100)

    def shapes(model: nn.Module) -> dict[str, Any]:
        return {key: value.shape for key, value in model.state_dict().items()}

    assert shapes(small) == shapes(large) == shapes(plain)
    assert strides(large) == strides(plain)
    assert strides(small) != strides(plain)


def test_strides_for_small_images() -> None:
    stem = {name: shape_only(name) for name in ("resnet50", "mobilenet_v2", "convnext_s")}
    assert stem["resnet50"].conv1.stride == (1, 1)
    assert isinstance(stem["resnet50"].maxpool, nn.Identity)
    assert stem["mobilenet_v2"].conv_stem.stride == (1, 1)
    halving = [n for n, _, s in strides(stem["mobilenet_v2"]) if s == (2, 2)]
    assert halving == ["blocks.2.0.conv_dw", "blocks.3.0.conv_dw", "blocks.5.0.conv_dw"]
    assert strides(stem["convnext_s"])[0][1:] == ((4, 4), (1, 1))


def test_a_model_named_with_the_prefix_is_taken_as_it_is() -> None:
    with torch.device("meta"):
        plain = timm.create_model("resnet50", num_classes=100)
        assert strides(build("timm:resnet50", 100, 32)) == strides(plain)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_pretrained_weights_are_used_in_the_stem_too(
    name: str, channels: int, fetch: Fetch
) -> None:
    torch.manual_seed(0)
    source = timm.create_model(TIMM_NETS[name].name, num_classes=1000).state_dict()
    fetch(lambda *_, **__: dict(source))
    model = build(name, 10, 32, pretrained=True, in_chans=channels).state_dict()
    stem = next(iter(source))
    expected = source[stem] if channels == 3 else source[stem].sum(1, keepdim=True)
    torch.testing.assert_close(model[stem], expected)
    same = [key for key in source if source[key].shape == model[key].shape]
    assert len(same) >= len(source) - 3  # the stem at 1 channel, the head
    assert all(torch.equal(source[key], model[key]) for key in same)


def test_the_overlapping_patches_of_convnext_use_the_pretrained_ones() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_convnext", num_classes=5)
    weight, x = net.stem[0].weight.clone(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        patches = net.stem[0](x)
        timm_models._convnext(net)
        overlapping = net.stem[0](x)
    assert torch.equal(net.stem[0].weight, weight)
    assert overlapping.shape[2:] == (32, 32)
    # An output at (1 + 4i, 1 + 4j) sees the i, j-th patch: one pixel of padding comes before.
    torch.testing.assert_close(overlapping[:, :, 1::4, 1::4], patches)


@pytest.mark.parametrize("name", ["resnet50", "shufflenet_v2", "timm:test_resnet"])
def test_weights_that_cannot_be_fetched_are_an_error_that_names_the_option(
    name: str, fetch: Fetch
) -> None:
    def no_network(*_: Any, **__: Any) -> dict[str, Tensor]:
        raise ConnectionError("no route to host")

    fetch(no_network)
    with pytest.raises(NoWeights) as raised:
        build(name, 10, 32, pretrained=True)
    text = str(raised.value)
    for part in (
        name,
        "ConnectionError: no route to host",
        "student.pretrained=false",
        "teacher.N.pretrained=false",
    ):
        assert part in text
    build(name, 10, 32)  # needs nothing


@pytest.mark.parametrize("name", ["vgg8", "wrn_16_2", "timm:convnextv2_small"])
def test_nets_without_published_weights_are_an_error(name: str, fetch: Fetch) -> None:
    def never(*_: Any, **__: Any) -> dict[str, Tensor]:
        raise AssertionError("requested weights that do not exist")

    fetch(never)
    with pytest.raises(CannotBuild, match=r"no published weights: set student\.pretrained=false"):
        build(name, 10, 32, pretrained=True)


def test_a_hub_that_is_away_is_asked_once_and_its_cache_is_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    asked = []

    def head(*address: str, timeout: float) -> None:
        asked.append(address)
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=head))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(NoWeights, match=r"cannot be reached \(no route to host\).*in the cache"):
        build("timm:test_resnet", 10, 32, pretrained=True)
    assert len(asked) == 1
    assert not caplog.text
    assert time.monotonic() - started < 20  # its client tries for half a minute and more
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
