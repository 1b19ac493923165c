"""Run the sweep."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent

CACHE = ROOT / ".sweep" / "outcomes.jsonl"
PAGE = ROOT / "docs" / "zoo.md"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m sweep", description=__doc__)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="families to run")
    parser.add_argument("--again", action="store_true", help="run also what is done")
    parser.add_argument(
        "--failed", nargs="+", metavar="VERDICT", help="run the cases with these verdicts"
    )
    parser.add_argument("--checks", nargs="*", default=None, metavar="CHECK", help="which ones")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit for one family")
    parser.add_argument("--loud", action="store_true", help="show what processes print")
    parser.add_argument("--list", action="store_true", help="show the families and stop")
    parser.add_argument("--table", action="store_true", help="write the page from what is done")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for and is not done, then write the page."""
    import sweep.preload  # noqa: F401
    from sweep.checks import CHECKS
    from sweep.families.registry import families
    from sweep.outcome import append, read
    from sweep.page import page
    from sweep.runner import run

    options = arguments()
    everything = {family.name: family.kind for family in families()}
    if options.list:
        Console().print("\n".join(f"{name}  ({kind})" for name, kind in everything.items()))
        return
    checks = tuple(CHECKS) if options.checks is None else tuple(options.checks)
    chosen = [name for name in everything if not options.only or _asked(name, options.only)]
    done = read(CACHE)
    if options.failed:
        chosen = [name for name in chosen if name in done and done[name].verdict in options.failed]
    elif not options.again:
        chosen = [name for name in chosen if not _complete(done.get(name), checks)]
    if not options.table:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(TextColumn("{task.description}"), *columns) as bar:
            progress = bar.add_task("families", total=len(chosen))
            todo = _alternating([(name, everything[name]) for name in chosen])
            for record in run(todo, checks, options.jobs, options.seconds, options.loud):
                record = record.over(done.get(record.name))
                append(CACHE, [record])
                done[record.name] = record
                bar.console.print(f"{record.verdict:13} {record.name}")
                for outcome in record.outcomes if options.only else ():
                    bar.console.print("  ", *_cells(outcome), highlight=False, markup=False)
                bar.advance(progress)
    if not options.only:
        records = [done[name] for name in everything if name in done]
        PAGE.write_text(page(records), encoding="utf-8")


def _alternating(todo: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """One of each library and kind in turn, so that a run that is cut short has seen all kinds."""
    seen: Counter[tuple[str, str]] = Counter()
    places = {}
    for name, kind in todo:
        group = (name.partition("/")[0], kind)
        seen[group] += 1
        places[name] = seen[group]
    return sorted(todo, key=lambda item: places[item[0]])


def _asked(name: str, only: list[str]) -> bool:
    return name in only or name.partition("/")[2] in only or name.partition("/")[0] in only


def _complete(record: object, checks: tuple[str, ...]) -> bool:
    from sweep.outcome import Record

    if not isinstance(record, Record):
        return False
    if record.verdict in ("not built", "not captured"):
        return True
    return all(record.get(check) is not None for check in checks)


def _cells(outcome: object) -> list[str]:
    return [str(getattr(outcome, name)) for name in ("check", "status", "reason", "seconds")]


if __name__ == "__main__":
    main()
