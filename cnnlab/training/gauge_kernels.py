"""Kernels of Triton that measure an update: what a person of PyTorch would write as hundreds of small operations.

Sums are float64, counts are whole numbers, and what is added up in no fixed order is whole numbers alone.
"""

import triton
import triton.language as tl


@triton.jit
def measure_length(values):
    """Euclidean norm of float64 values without overflow: inf only if one of them is or the norm is, NaN if one is."""
    nan = tl.sum((values != values).to(tl.int32), 0)
    inf = tl.sum((tl.abs(values) == float("inf")).to(tl.int32), 0)
    usable = tl.where((values != values) | (tl.abs(values) == float("inf")), 0.0, values)
    largest = tl.max(tl.abs(usable), 0)
    scale = tl.where(largest > 0, largest, 1.0)
    relative = usable / scale
    length = scale * tl.sqrt(tl.sum(relative * relative, 0))
    return tl.where(nan > 0, float("nan"), tl.where(inf > 0, float("inf"), length))


@triton.jit
def survey_chunks(
    weight, gradient, update, before, clipped, starts, lengths, layers, partial, histogram, chunks,
    CLIPS: tl.constexpr, SIZE: tl.constexpr, INTEGER: tl.constexpr, SHIFT: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """What `join_chunks` needs of one chunk, (9, chunks), and its share of the histogram (layers, classes)."""
    chunk = tl.program_id(0)
    place = tl.arange(0, SIZE)
    length = tl.load(lengths + chunk)
    there = place < length
    at = tl.load(starts + chunk) + place
    new = tl.load(weight + at, mask=there, other=0.0)
    wide = new.to(tl.float64)
    steep = tl.load(gradient + at, mask=there, other=0.0).to(tl.float64)
    tl.store(partial + chunk, measure_length(wide))
    tl.store(partial + chunks + chunk, measure_length(steep))
    moved = tl.load(update + at, mask=there, other=0.0).to(tl.float64)
    tl.store(partial + 2 * chunks + chunk, measure_length(moved))
    met = tl.load(before + at, mask=there, other=0.0).to(tl.float64)
    tl.store(partial + 3 * chunks + chunk, measure_length(met))
    nan = tl.sum((wide != wide).to(tl.int32), 0)
    largest = tl.max(tl.where(wide != wide, 0.0, tl.abs(wide)), 0)
    tl.store(partial + 4 * chunks + chunk, tl.where(nan > 0, float("nan"), largest))
    tl.store(partial + 5 * chunks + chunk, nan.to(tl.float64))
    tl.store(partial + 6 * chunks + chunk, tl.sum((tl.abs(wide) == float("inf")).to(tl.int32), 0).to(tl.float64))
    tl.store(partial + 7 * chunks + chunk, tl.sum((steep != steep).to(tl.int32), 0).to(tl.float64))
    tl.store(partial + 8 * chunks + chunk, tl.sum((tl.abs(steep) == float("inf")).to(tl.int32), 0).to(tl.float64))
    if CLIPS:
        cut = tl.load(clipped + at, mask=there, other=0.0).to(tl.float64)
        # What is not finite stays as it was: its difference is NaN, and differs from 0.
        tl.store(partial + 9 * chunks + chunk, tl.sum(((cut - steep) != 0).to(tl.int32), 0).to(tl.float64))
    exponent = (new.to(INTEGER, bitcast=True) >> SHIFT) & (CLASSES - 1)  # which leaves out the sign, a NaN's too
    classes = tl.arange(0, CLASSES)
    counts = tl.histogram(exponent.to(tl.int32), CLASSES)
    counts = tl.where(classes == 0, counts - (SIZE - length), counts)  # beyond the chunk there are zeros
    tl.atomic_add(histogram + tl.load(layers + chunk) * CLASSES + classes, counts, mask=counts > 0)


@triton.jit
def join_chunks(partial, firsts, chunks, joined, count, CLIPS: tl.constexpr, MOST: tl.constexpr, SIZE: tl.constexpr):
    """The rows of MEASURES of one layer, from those of its chunks."""
    layer = tl.program_id(0)
    first = tl.load(firsts + layer)
    last = tl.load(firsts + layer + 1)
    place = tl.arange(0, SIZE)
    for row in tl.static_range(4):
        largest = tl.zeros((SIZE,), tl.float64)
        nan = tl.zeros((SIZE,), tl.int32)
        inf = tl.zeros((SIZE,), tl.int32)
        for begin in range(0, MOST, SIZE):
            at = first + begin + place
            part = tl.load(partial + row * chunks + at, mask=at < last, other=0.0)
            nan += (part != part).to(tl.int32)
            inf += (part == float("inf")).to(tl.int32)
            largest = tl.maximum(largest, tl.where((part != part) | (part == float("inf")), 0.0, part))
        scale = tl.max(largest, 0)
        scale = tl.where(scale > 0, scale, 1.0)
        squares = tl.zeros((SIZE,), tl.float64)
        for begin in range(0, MOST, SIZE):
            at = first + begin + place
            part = tl.load(partial + row * chunks + at, mask=at < last, other=0.0) / scale
            squares += part * part
        length = scale * tl.sqrt(tl.sum(squares, 0))
        length = tl.where(tl.sum(nan, 0) > 0, float("nan"), tl.where(tl.sum(inf, 0) > 0, float("inf"), length))
        if row < 3:
            tl.store(joined + row * count + layer, length)
        else:
            moved = tl.load(joined + 2 * count + layer)
            tl.store(joined + 2 * count + layer, tl.where(moved == 0, 0.0, moved / length))
    largest = tl.zeros((SIZE,), tl.float64)
    broken = tl.zeros((SIZE,), tl.int32)
    for begin in range(0, MOST, SIZE):
        at = first + begin + place
        part = tl.load(partial + 4 * chunks + at, mask=at < last, other=0.0)
        broken += (part != part).to(tl.int32)
        largest = tl.maximum(largest, tl.where(part != part, 0.0, part))
    tl.store(joined + 3 * count + layer, tl.where(tl.sum(broken, 0) > 0, float("nan"), tl.max(largest, 0)))
    for row in tl.static_range(5, 10):
        if row < 9 or CLIPS:
            total = tl.zeros((SIZE,), tl.float64)
            for begin in range(0, MOST, SIZE):
                at = first + begin + place
                total += tl.load(partial + row * chunks + at, mask=at < last, other=0.0)
            tl.store(joined + (row - 1) * count + layer, tl.sum(total, 0))


@triton.jit
def look_at_rows(output, noted, rows, columns, inner, WIDE: tl.constexpr, ROW: tl.constexpr, COLUMN: tl.constexpr):
    """Count NaN and inf of some rows and columns of an output (rows, columns); mark units that are not dead."""
    column = tl.program_id(0) * COLUMN + tl.arange(0, COLUMN)
    there = column < columns
    row = tl.zeros((COLUMN,), tl.int64) + tl.program_id(1) * ROW
    nan = tl.zeros((COLUMN,), tl.int32)
    inf = tl.zeros((COLUMN,), tl.int32)
    alive = tl.zeros((COLUMN,), tl.int32)
    for _ in tl.static_range(ROW):
        value = tl.load(output + row * columns + column, mask=there & (row < rows), other=0.0).to(WIDE)
        nan += (value != value).to(tl.int32)
        inf += (tl.abs(value) == float("inf")).to(tl.int32)
        alive += ((value > 0) | (value != value)).to(tl.int32)
        row += 1
    nans = tl.sum(nan, 0)
    infs = tl.sum(inf, 0)
    tl.atomic_add(noted, nans)
    tl.atomic_add(noted + 1, infs)
    tl.store(noted + 2 + column // inner, tl.full((COLUMN,), 1, tl.int32), mask=there & (alive > 0))
