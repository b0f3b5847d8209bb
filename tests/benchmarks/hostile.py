"""What hostile and damaged files take: seconds, bytes of the file, memory, and the sentence with which each is refused.

python tests/benchmarks/hostile.py [--write]

The files are those of tests/hostile.py, each opened in a process of its own; memory is what that takes beyond all that
it has imported. --write keeps the table in tests/benchmarks/results/hostile.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from hostile import KINDS, Taken, taken_by

RESULTS = Path(__file__).parent / "results" / "hostile.md"


def row(name: str, taken: Taken, path: Path) -> str:
    """A line of the table."""
    verdict = taken.verdict.replace(str(path), "it")
    return (
        f"| {name} | {taken.size / 1e6:,.3g} | {taken.seconds:.2f} | {taken.memory / 1e6:.0f} "
        f"| {verdict if len(verdict) < 160 else verdict[:160] + '…'} |"
    )


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true")
    lines = [
        "# What hostile and damaged files take",
        "",
        "x86-64; seconds are of the processor. A file that is refused may take 5 s and 300 MB, one that is opened",
        "twice its size and 300 MB.",
        "",
        "| file | size, MB | seconds | memory, MB | what was said |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        for name, (way, write) in KINDS.items():
            path = Path(folder) / "file"
            write(path)
            lines.append(row(name, taken_by(way, path), path))
            print(lines[-1], flush=True)
            path.unlink()
    if arguments.parse_args().write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
