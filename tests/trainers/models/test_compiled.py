"""Networks by torch.compile: no graph break in any family, the same numbers, the same names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers import tiny
from tests.trainers.tiny import World
from trainers import models
from trainers.models import compiled
from trainers.rng import seeded

# The smallest network of each family, by its image side in pixels.
QUICK = {"resnet8": 8, "wrn_16_2": 8, "vgg8": 16}
SLOW = {
    "shufflenet_v1": 32,
    "shufflenet_v2": 32,
    "mobilenet_v2_half": 32,
    "mobilenet_v2": 32,
    "efficientnet_b0": 32,
    "resnet50": 32,
    "convnext_s": 32,
    "timm:test_vit": 160,
}
FAMILIES = [
    *(pytest.param(*item, id=item[0]) for item in QUICK.items()),
    *(pytest.param(*item, id=item[0], marks=pytest.mark.thorough) for item in SLOW.items()),
]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """torch.compile without code generation: whole graphs, forward and backward, are traced, and
    run operation by operation. The graphs that were traced."""
    graphs, real = list[Any](), torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    def compile_(function: Any, *, fullgraph: bool, options: dict[str, Any]) -> Any:
        assert options == {"fallback_random": True}
        return real(function, fullgraph=fullgraph, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_)
    torch.compiler.reset()
    compiled._compiled.cache_clear()
    yield graphs
    compiled._compiled.cache_clear()
    torch.compiler.reset()


def built(name: str, size: int) -> nn.Module:
    with seeded(0, "test"):
        return models.build(name, 10, size)


def images(size: int, count: int = 2) -> Tensor:
    with seeded(1, "test"):
        return torch.randn(count, 3, size, size)


@pytest.mark.parametrize(("name", "size"), FAMILIES)
@pytest.mark.parametrize("maps", [False, True])
def test_no_family_breaks_the_graph(name: str, size: int, maps: bool, traced: list[Any]) -> None:
    nets, x = [built(name, size) for _ in range(2)], images(size)
    names = list(nets[0].state_dict())
    for training in (True, False):
        found = [
            models.step_outputs(net.train(training), x, maps=maps, compiled=on)
            for net, on in zip(nets, (True, False), strict=True)
        ]
        for one, other in zip(found[0].maps, found[1].maps, strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(found[0].logits, found[1].logits)
        torch.testing.assert_close(found[0].pooled, found[1].pooled)
        assert len(found[0].maps) == len(found[1].maps)
        assert bool(found[0].maps) is maps
    assert list(nets[0].state_dict()) == names
    assert len(traced) == 2  # one graph in each mode
    models.step_outputs(built(name, size).eval(), x, maps=maps, compiled=True)
    assert len(traced) == 2  # which another network of the kind shares


class Breaks(nn.Module):
    def forward_features(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x


@pytest.mark.usefixtures("traced")
def test_a_network_that_breaks_the_graph_is_one_message() -> None:
    with pytest.raises(models.CannotCompile) as found:
        models.step_outputs(Breaks(), images(8), compiled=True)
    text = str(found.value)
    assert text.startswith("numerics.compile=true: Breaks cannot be compiled here (")
    assert text.endswith("numerics.compile=false does without")
    assert "\n" not in text


@pytest.mark.parametrize(
    "case", ["KD", pytest.param("L4", marks=pytest.mark.thorough), "at", "KD fresh"]
)
def test_a_compiled_run_is_the_run_without(case: str, world: World, traced: list[Any]) -> None:
    short = ["budget.student_epochs=4", "budget.adapt_epochs=4"]
    more = ["data.views=0"] if case == "KD fresh" else []
    runs = []
    for on in ("false", "true"):
        given = (*short, *more, f"numerics.compile={on}")
        name = case.split()[0]
        config = tiny.rung(name, *given) if name.isupper() else tiny.baseline(name, *given)
        runs.append(tiny.run(config, world))
        assert bool(traced) is (on == "true")
    assert runs[1].losses() == pytest.approx(runs[0].losses(), rel=1e-5)
    one, other = (run.state.student.state_dict() for run in runs)
    assert list(one) == list(other)


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_generated_code_gives_the_same_numbers_to_rounding() -> None:
    nets, x = [built("resnet8", 8).train() for _ in range(2)], images(8, 16)
    for net, on in zip(nets, (True, False), strict=True):
        models.step_outputs(net, x, compiled=on).logits.square().mean().backward()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad - other.grad).norm()) <= 1e-3 * float(other.grad.norm())
