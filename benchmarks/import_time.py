"""CPU time of ``import graphprog`` against that of ``import torch``.

    python -m benchmarks.import_time [rounds]

Each import runs in an interpreter of its own, in turns; the time is that of its processor, user
and system. What a name needs is imported when the name is first used; the other rows show that.
"""

from __future__ import annotations

import platform
import resource
import statistics
import subprocess
import sys

CONTESTANTS = {
    "import torch": "import torch",
    "import graphprog": "import torch, graphprog",
    "gp.capture named": "import torch, graphprog as gp; gp.capture",
    "all names": "import torch; from graphprog import *",
}


def cpu_seconds(code: str) -> float:
    """Processor time of a fresh interpreter that runs some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for code in CONTESTANTS.values():  # into the cache of files
        cpu_seconds(code)
    taken: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, code in CONTESTANTS.items():
            taken[name].append(cpu_seconds(code))
    alone = statistics.median(taken["import torch"])
    print(f"Python {platform.python_version()}, median of {rounds}")
    print("| | seconds of CPU | × torch |\n|---|---|---|")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median:.2f} | {median / alone:.2f} |")


if __name__ == "__main__":
    main()
