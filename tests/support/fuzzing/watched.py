"""Files that were changed at random, read in processes that are watched.

    python -m tests.support.fuzzing.watched 100000

reads as many files of every kind and prints what happened. A case counts as code run when reading
it starts a process, opens a socket or another file, loads a library or unpickles a class; as a
crash when its process dies or an error is not one of ours; as a hang above 5 s of processor time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch

from graphprog.errors import GraphprogError
from tests.support.fuzzing import cases as fuzz_cases

SECONDS = 5
WAIT = 120
MEMORY = 2**30
_CALLS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "ctypes.dlopen")
_NET = ("socket.connect", "socket.bind", "pickle.find_class", "urllib.Request")


@dataclasses.dataclass
class Figures:
    """What happened."""

    cases: int = 0
    seconds: float = 0.0
    memory: int = 0
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a case that went wrong, and tell it at once."""
        self.wrong.append(text)
        print(text, flush=True)

    def __str__(self) -> str:
        counted = {name: self.outcomes[name] for name in ("read", "refused", *BAD)}
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        return (
            f"{self.cases} cases ({kinds}): "
            + ", ".join(f"{count} {name}" for name, count in counted.items())
            + f"; {self.memory / 2**20:.0f} MiB more at most, {self.seconds:.0f} s of processor"
            + "".join(f"\n  {text}" for text in self.wrong[:40])
        )


BAD = ("code run", "crashes", "hangs", "above 1 GiB")


def fuzz(cases: int, first: int = 0) -> Figures:
    """Read ``cases`` files; the same numbers make the same files."""
    found = Figures()
    number, last = first, first + cases
    with tempfile.TemporaryDirectory(prefix="graphprog-fuzz-") as folder:
        while number < last:
            number = _watched(number, last, folder, found)
    found.cases = sum(found.kinds.values())
    return found


def _watched(first: int, last: int, folder: str, found: Figures) -> int:
    """Read cases in a process of their own; return the number of the case to go on with."""
    command = [
        sys.executable,
        "-m",
        "tests.support.fuzzing.watched",
        "child",
        str(first),
        str(last),
        folder,
    ]
    begun, kind = first, ""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as child:
        assert child.stdout is not None
        for line in child.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "begin":
                number, _, kind = rest.partition(" ")
                begun = int(number)
                if begun % 1_000 == 0:
                    print(begun, dict(found.outcomes), flush=True)
                found.kinds[kind] += 1
            elif word == "end":
                outcome, _, text = rest.partition("|")
                found.outcomes[outcome] += 1
                if outcome in BAD:
                    found.add(f"{begun} {kind}: {outcome}: {text}")
            elif word == "used":
                memory, seconds = rest.split()
                found.memory = max(found.memory, int(memory))
                found.seconds += float(seconds)
    if child.returncode == 0:
        return last
    ended = -child.returncode
    outcome = "hangs" if ended in (signal.SIGPROF, signal.SIGALRM) else "crashes"
    found.outcomes[outcome] += 1
    found.add(f"{begun} {kind}: {outcome}: status {child.returncode}")
    return begun + 1


def _child(first: int, last: int, folder: Path) -> None:
    torch.set_num_threads(1)
    fuzz_cases.prepare()
    before = resource.getrusage(resource.RUSAGE_SELF)
    place = folder / "case"
    seen: list[str] = []
    sys.addaudithook(lambda event, args: _audit(event, args, folder, seen))
    warnings.simplefilter("ignore")
    write = sys.stdout.write
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, last):
        chosen = random.Random(number)
        kind = chosen.choices(*fuzz_cases.KINDS)[0]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        write(f"begin {number} {kind}\n")
        sys.stdout.flush()
        read = fuzz_cases.CASES[kind](chosen, place)
        seen.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAIT)
        text = ""
        try:
            read()
            outcome = "read"
        except GraphprogError:
            outcome = "refused"
        except MemoryError as error:
            outcome, text = "above 1 GiB", repr(error)[:200]
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome = "crashes"
            text = f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}"[:300]
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if seen:
            outcome, text = "code run", "; ".join(seen)[:300]
        write(f"end {outcome}|{json.dumps(text)}\n")
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    write(f"used {1024 * (after.ru_maxrss - before.ru_maxrss)} {seconds}\n")


def _audit(event: str, args: tuple[object, ...], folder: Path, seen: list[str]) -> None:
    if event in _CALLS or event in _NET:
        seen.append(f"{event} {str(args)[:100]}")
    elif event == "import" and str(args[0]).partition(".")[0] in fuzz_cases.MODULES:
        seen.append(f"import {args[0]}")
    elif event == "open" and isinstance(args[0], str):
        writing = isinstance(args[1], str) and set(args[1]) & set("wax+")
        inside = args[0].startswith((str(folder), os.devnull))
        if (writing and not inside) or args[0] in fuzz_cases.FILES:
            seen.append(f"open {args[0]} {args[1]}")


if __name__ == "__main__":
    if sys.argv[1] == "child":
        _child(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        os.nice(10)
        print(fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
