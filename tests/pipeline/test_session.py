"""What a command finds out of the machine before it begins."""

import torch

from pipeline.session import slow_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
OLD = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}


def test_mixed_precision_is_doubted_where_the_processor_emulates_it() -> None:
    said = slow_precision("bfloat16", CPU, OLD)
    assert said is not None
    assert "numerics=float32" in said
    assert slow_precision("float32", CPU, OLD) is None
    assert slow_precision("bfloat16", GPU, OLD) is None
    for new in ("avx512_bf16", "amx_bf16"):
        assert slow_precision("bfloat16", CPU, OLD | {new: True}) is None
    assert slow_precision("bfloat16", CPU, {"architecture": "aarch64"}) is None  # not known


def test_torch_says_of_this_processor_what_is_asked_for() -> None:
    there = torch.cpu.get_capabilities()
    if there["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= there.keys()
