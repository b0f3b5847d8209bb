"""Compile the kernels of Triton for a GPU that is not there; prints each with ok, or its error.

python tests/compile_kernels.py [--all]

In a process of its own: where the tests have Triton interpret its kernels, it compiles none.
"""

from __future__ import annotations

import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cnnlab.sweeps import convolution_kernels
from cnnlab.training import gauge_kernels

TARGETS = [GPUTarget("cuda", capability, 32) for capability in (80, 90)]
"""An A100 and an H100."""
POINTERS = {"partial": "*fp64", "joined": "*fp64", "starts": "*i64", "firsts": "*i64"}
COUNTS = ("lengths", "layers", "histogram", "noted")
NUMBERS = ("chunks", "count", "rows", "columns", "inner", "patches", "high", "wide", "own")
TYPES = {
    "fp16": (tl.int16, 10, 32), "bf16": (tl.int16, 7, 256), "fp32": (tl.int32, 23, 256), "fp64": (tl.int64, 52, 2048),
}  # fmt: skip
"""Type of the weights -> integers of its width, bits of its mantissa, values of its exponent."""


def list_kernels(every: bool) -> list[tuple[object, str, dict[str, object]]]:
    """Kernels, the type of what they are given, and their constants: of the question's network, or of all kinds."""
    types = TYPES if every else {"fp32": TYPES["fp32"]}
    kernels: list[tuple[object, str, dict[str, object]]] = []
    for dtype, (integer, shift, classes) in types.items():
        flat = {"SIZE": 1024, "INTEGER": integer, "SHIFT": shift, "CLASSES": classes}
        kernels += [(gauge_kernels.survey_chunks, dtype, {"CLIPS": clips, **flat}) for clips in (True, False)]
        wide = tl.float64 if dtype == "fp64" else tl.float32
        kernels.append((gauge_kernels.look_at_rows, dtype, {"WIDE": wide, "ROW": 16, "COLUMN": 1024}))
    for most, size in ((65, 128), *(((1, 1), (3000, 1024)) if every else ())):
        kernels.append((gauge_kernels.join_chunks, "fp64", {"CLIPS": True, "MOST": most, "SIZE": size}))
    for into, out, side in ((32, 32, 3), *(((9, 32, 1), (70, 40, 3)) if every else ())):
        sizes = {"INTO": into, "OUT": out, "SIDE": side, "BLOCK": 64, "SOME_IN": 32, "SOME_OUT": 32}
        forward = {"PAD": 0, "BIASED": True, "RELU": True, "GATED": False, "PRECISION": "tf32x3", **sizes}
        backward = {"PAD": side - 1, "BIASED": False, "RELU": False, "GATED": True, "PRECISION": "tf32x3", **sizes}
        kernels += [(convolution_kernels.convolve_block, "fp32", each) for each in (forward, backward)]
        kernels.append((convolution_kernels.differentiate_block, "fp32", {"PRECISION": "ieee", **sizes}))
    return kernels


def main() -> int:
    """Compile them all; 1 if one cannot be."""
    every, failed = "--all" in sys.argv, 0
    for kernel, dtype, constants in list_kernels(every):
        names = kernel.arg_names
        signature = {
            name: "constexpr" if name in constants else "i32" if name in NUMBERS
            else "*i32" if name in COUNTS else POINTERS.get(name, f"*{dtype}")
            for name in names
        }  # fmt: skip
        places = {(names.index(name),): value for name, value in constants.items()}
        for target in TARGETS if every else TARGETS[-1:]:
            said = f"{kernel.__name__} of {dtype} for {target.arch}"
            try:
                triton.compile(ASTSource(kernel, signature, places), target=target)
                print(f"{said}: ok")
            except Exception as reason:
                failed += 1
                print(f"{said}: {reason}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
