"""Measures what the labs say of many seeds: python tests/benchmarks/lab_claims.py [NAME ...]

A NAME is the beginning of a claim's name, as in 08 or 08_throw; without one all are measured. Each is kept in
`results/labs`; the tests hold the labs' sentences against the files and measure two seeds of each anew.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # each seed is one process's work
sys.path.insert(0, str(Path(__file__).parents[1] / "labs"))

import numpy as np
from claims import list_claims, write_values


def measure(name: str, seed: int) -> dict[str, float]:
    """One seed of a claim; for a process of the pool, which finds the claim by its name."""
    return dict(next(claim for claim in list_claims() if claim.name == name).measure(seed))


def main(names: list[str]) -> None:
    """Measure the claims whose names begin with one of these, write them, and print the spread of each value."""
    chosen = [claim for claim in list_claims() if not names or claim.name.startswith(tuple(names))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for claim in chosen:
            begun = time.perf_counter()
            found = pool.map(measure, [claim.name] * len(claim.seeds), claim.seeds)
            values = dict(zip(claim.seeds, found, strict=True))
            write_values(claim.name, values)
            print(f"{claim.name}: {len(values)} seeds, {time.perf_counter() - begun:.0f} s")
            for key in next(iter(values.values())):
                column = np.array([value[key] for value in values.values()], dtype=float)
                finite = column[np.isfinite(column)]
                if len(finite):
                    print(f"  {key}: {len(finite)} finite, quartiles {np.quantile(finite, (0, 0.25, 0.5, 0.75, 1))}")


if __name__ == "__main__":
    main(sys.argv[1:])
