"""Build the stand-in for the CUDA runtime against the torch of this Python.

    python -m tests.fakecuda.build FOLDER

It needs the CUDA build of torch with its nvidia-* packages, and gcc and nm. It makes libfakecuda.so
(runtime, cuBLAS and cuDNN: counted, not computed) and libcuda.so.1 (the driver).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

HERE = Path(__file__).parent
LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so", "libtorch_cuda_linalg.so")
NAME = r"(?:__)?cuda[A-Z]\w*|cublas\w+|cudnn\w+"
PRODUCTS = re.compile(r"cublas[SDCZ](gemm|gemv|dot)|cublas(Gemm|Dot)")
SHIM = """\
#pragma once
#define __device_builtin__
#define __cudart_builtin__
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __CUDA_ARCH_HAS_FEATURE__(x) 0
"""


def packages() -> Path:
    """The folder in which torch and its nvidia-* packages are installed."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).parent


def missing() -> str | None:
    """Why the stand-in cannot be built here; None if it can."""
    if torch.version.cuda is None:
        return "torch was built without CUDA"
    absent = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
    if absent:
        return f"no {' and no '.join(absent)}"
    if not any((packages() / "nvidia").glob("cu*/include/driver_types.h")):
        return "the CUDA headers of the nvidia-* packages are absent"
    return None


def build(folder: Path) -> dict[str, str]:
    """Build both libraries into a folder; the environment variables that make torch load them.

    Raises:
        CalledProcessError: gcc or nm failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    include = next((packages() / "nvidia").glob("cu*/include/driver_types.h")).parent
    shim = folder / "crt" / "host_defines.h"
    if not (include / "crt" / "host_defines.h").exists():  # it comes with nvcc
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(SHIM)
    (folder / "stubs.c").write_text(_stubs())
    gcc = ["gcc", "-O1", "-w", "-shared", "-fPIC"]
    runtime = [HERE / "runtime.c", folder / "stubs.c", f"-I{folder}", f"-I{include}", "-lpthread"]
    subprocess.run([*gcc, "-o", folder / "libfakecuda.so", *runtime], check=True)
    driver = ["-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1", HERE / "driver.c"]
    subprocess.run([*gcc, *driver], check=True)
    return {
        "LD_LIBRARY_PATH": str(folder),
        "LD_PRELOAD": str(folder / "libfakecuda.so"),
        "TORCH_CUDNN_V8_API_DISABLED": "1",  # the older interface has one call a convolution
        "OMP_NUM_THREADS": "1",
    }


def _stubs() -> str:
    """A function that succeeds for each one that torch needs and runtime.c does not define."""
    needed: set[str] = set()
    for name in LIBRARIES:
        path = packages() / "torch" / "lib" / name
        nm = ["nm", "-D", "--undefined-only", str(path)]
        listed = subprocess.run(nm, capture_output=True, text=True, check=True).stdout
        symbols = [line.split()[-1].partition("@")[0] for line in listed.splitlines()]
        needed |= {symbol for symbol in symbols if re.fullmatch(NAME, symbol)}
    source = (HERE / "runtime.c").read_text()
    defined = set(re.findall(rf"\b({NAME})\s*\(", source))
    for kind in re.findall(r"^DESCRIPTOR\((\w+)\)", source, re.M):
        defined |= {f"cudnnCreate{kind}", f"cudnnDestroy{kind}"}
    for kind in re.findall(r"^CONVOLUTION\((\w+)\)", source, re.M):
        whole = f"cudnnConvolution{kind}"
        defined |= {whole, f"cudnnGetConvolution{kind}Algorithm_v7"}
        defined.add(f"cudnnGetConvolution{kind}WorkspaceSize")
    lines = ["int fakecuda_library(void);"]
    for name in sorted(needed - defined):
        body = "fakecuda_library()" if PRODUCTS.match(name) else "0"
        lines.append(f"int {name}() {{ return {body}; }}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for variable in build(Path(sys.argv[1]).resolve()).items():
        print("=".join(variable))
