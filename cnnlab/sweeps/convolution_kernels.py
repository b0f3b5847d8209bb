"""Kernels of Triton: convolutions of many members at once, channels last, each member with kernels of its own.

A member is one axis of the grid, so that members do not meet; sums have a fixed order. PRECISION says how products are
as exact as float32.
"""

import triton
import triton.language as tl


@triton.jit
def convolve_block(
    passed, weight, bias, gate, made, patches, high, wide, own,
    INTO: tl.constexpr, OUT: tl.constexpr, SIDE: tl.constexpr, PAD: tl.constexpr,
    BIASED: tl.constexpr, RELU: tl.constexpr, GATED: tl.constexpr,
    BLOCK: tl.constexpr, SOME_IN: tl.constexpr, SOME_OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Some positions and channels of `made` (members, patches, rows, columns, OUT), for one member.

    made[p] = sum over k of passed[p + k - PAD] weight[k], with `passed` (members or 1, patches, high, wide, INTO) 0
    beyond its border and `weight` (members, SIDE^2, INTO, OUT). A bias is added, then what is below 0 set to 0; where
    `gate`, as large as `made`, is not above 0, so is `made`.
    """
    member = tl.program_id(1).to(tl.int64)
    rows = high + 2 * PAD - SIDE + 1
    columns = wide + 2 * PAD - SIDE + 1
    count = patches * rows * columns
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    patch = place // (rows * columns)
    row = place % (rows * columns) // columns
    column = place % columns
    into = tl.arange(0, SOME_IN)
    out = tl.program_id(2) * SOME_OUT + tl.arange(0, SOME_OUT)
    total = tl.zeros((BLOCK, SOME_OUT), tl.float32)
    passed += member * own * patches * high * wide * INTO
    weight += member * SIDE * SIDE * INTO * OUT
    for k in tl.static_range(SIDE * SIDE):
        from_row = row + k // SIDE - PAD
        from_column = column + k % SIDE - PAD
        there = (place < count) & (from_row >= 0) & (from_row < high) & (from_column >= 0) & (from_column < wide)
        at = ((patch * high + from_row) * wide + from_column)[:, None] * INTO
        for first in tl.static_range(0, INTO, SOME_IN):
            inner = first + into
            taken = tl.load(passed + at + inner[None, :], mask=there[:, None] & (inner < INTO)[None, :], other=0.0)
            kernel = tl.load(
                weight + (k * INTO + inner)[:, None] * OUT + out[None, :],
                mask=(inner < INTO)[:, None] & (out < OUT)[None, :], other=0.0,
            )  # fmt: skip
            total = tl.dot(taken, kernel, total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias + member * OUT + out, mask=out < OUT, other=0.0)[None, :]
    if RELU:
        total = tl.where(total <= 0, 0.0, total)  # a NaN stays
    to = (member * count + place)[:, None] * OUT + out[None, :]
    kept = (place < count)[:, None] & (out < OUT)[None, :]
    if GATED:
        total = tl.where(tl.load(gate + to, mask=kept, other=0.0) <= 0, 0.0, total)
    tl.store(made + to, total, mask=kept)


@triton.jit
def differentiate_block(
    passed, slope, weight, bias, patches, high, wide, own,
    INTO: tl.constexpr, OUT: tl.constexpr, SIDE: tl.constexpr,
    BLOCK: tl.constexpr, SOME_IN: tl.constexpr, SOME_OUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of one row of a member's kernels, `weight` (members, SIDE^2, INTO, OUT), for some channels.

    weight[k] = sum over p of passed[p + k]^T slope[p]; `bias` (members, OUT) gets the sum of `slope`. SIDE is 1 or 3.
    """
    member = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1) % SIDE
    into = tl.program_id(1) // SIDE * SOME_IN + tl.arange(0, SOME_IN)
    out = tl.program_id(2) * SOME_OUT + tl.arange(0, SOME_OUT)
    rows = high - SIDE + 1
    columns = wide - SIDE + 1
    count = patches * rows * columns
    passed += member * own * patches * high * wide * INTO
    first_total = tl.zeros((SOME_IN, SOME_OUT), tl.float32)
    second_total = tl.zeros((SOME_IN, SOME_OUT), tl.float32)
    third_total = tl.zeros((SOME_IN, SOME_OUT), tl.float32)
    sums = tl.zeros((SOME_OUT,), tl.float32)
    for begin in range(0, count, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        there = place < count
        patch = place // (rows * columns)
        at = (patch * high + place % (rows * columns) // columns + line) * wide + place % columns
        known = there[:, None] & (out < OUT)[None, :]
        steep = tl.load(slope + (member * count + place)[:, None] * OUT + out[None, :], mask=known, other=0.0)
        kept = there[None, :] & (into < INTO)[:, None]
        taken = tl.load(passed + at[None, :] * INTO + into[:, None], mask=kept, other=0.0)
        first_total = tl.dot(taken, steep, first_total, input_precision=PRECISION)
        if SIDE == 3:
            taken = tl.load(passed + (at + 1)[None, :] * INTO + into[:, None], mask=kept, other=0.0)
            second_total = tl.dot(taken, steep, second_total, input_precision=PRECISION)
            taken = tl.load(passed + (at + 2)[None, :] * INTO + into[:, None], mask=kept, other=0.0)
            third_total = tl.dot(taken, steep, third_total, input_precision=PRECISION)
        sums += tl.sum(steep, 0)
    to = ((member * SIDE * SIDE + line * SIDE) * INTO + into[:, None]) * OUT + out[None, :]
    kept = (into < INTO)[:, None] & (out < OUT)[None, :]
    tl.store(weight + to, first_total, mask=kept)
    if SIDE == 3:
        tl.store(weight + to + INTO * OUT, second_total, mask=kept)
        tl.store(weight + to + 2 * INTO * OUT, third_total, mask=kept)
    if tl.program_id(1) == 0:
        tl.store(bias + member * OUT + out, sums, mask=out < OUT)
