"""Makes tests/data/version_1.cnnlab, a record in version 1 of the file format: python tests/data/make_version_1.py.

It was run once, when that version was new. A later version keeps the file, and adds one of its own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cnnlab import Run

TINY = {"channels": 1, "hidden": (2, 2), "patch_size": 13, "patches": 4, "device": "cpu"}
BURSTING = {"cost": "softmax_log", "learning_rate": 1e3, "momentum": 0.5}


def main() -> None:
    run = Run("question", **TINY, **BURSTING, watch=["hid1.weight[0,0]"], history_bytes=1)
    run.advance(5)
    twin = run.fork(2, learning_rate=1e-3)
    twin.advance(1)
    record = dataclasses.replace(run.record, others=(twin.record,))
    record.save(Path(__file__).parent / "version_1.cnnlab")
    print(record, record.cost.tolist(), record.others)


if __name__ == "__main__":
    main()
