"""The page of the documentation that the sweep writes."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from sweep.checks import CHECKS
from sweep.outcome import Outcome, Record

LIBRARIES = (
    "torch",
    "transformers",
    "timm",
    "torch_geometric",
    "onnxscript",
    "onnxruntime",
)

INTRODUCTION = """\
# The zoo

*Written by `make sweep`; do not edit.*

One small model with random weights of every family that could be built without downloads, and
what came of it. Checks run at another batch size and length than the capture, as far as these
vary. An insertion is compared with the model itself where that can be made to take the longer
sequence: by its input embeddings, or by a forward hook. A check that does not apply has a dash, and
one that was not made an empty cell.

| check | passes when |
|---|---|
| capture | `gp.capture` makes a graph |
| disabled | the graph returns what the model returns |
| additive | a pattern at the first float input, after the first and after the last block gives \
what the model with hooks gives; every tensor of the program gets a gradient and no other does |
| insertion | none inserted is the source bit for bit; five give what the reference gives, and \
get gradients. Early: at the tokens, where the first block begins, or at the input. Middle: after \
the middle block |
| ONNX | ONNX Runtime returns what the graph with a program returns, at the size of capture and at \
another |
"""

SIGNS = {"passed": "✓", "refused": "refused", "failed": "**fails**", "not applicable": "–"}


def page(records: Sequence[Record]) -> str:
    """The whole page."""
    captured = [record for record in records if record.verdict not in ("not built", "not captured")]
    uncaptured = [record for record in records if record.verdict == "not captured"]
    unbuilt = [record for record in records if record.verdict == "not built"]
    parts = [INTRODUCTION, _versions(), _totals(records), _by_check(captured), _table(captured)]
    parts += [_remarks(captured, status) for status in ("failed", "refused")]
    parts.append(_stopped("Not captured", "What `torch.export` says.", "capture", uncaptured))
    parts.append(_stopped("Not built", "Why the small model could not be made.", "build", unbuilt))
    return "\n".join(part for part in parts if part)


def _versions() -> str:
    found = []
    for name in LIBRARIES:
        for distribution in (name, f"{name}-gpu"):
            try:
                found.append(f"{name} {importlib.metadata.version(distribution)}")
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return f"Libraries: {', '.join(found)}.\n"


def _totals(records: Sequence[Record]) -> str:
    verdicts = Counter(record.verdict for record in records)
    captured = sum(verdicts[word] for word in ("passed", "refused", "failed"))
    sound = verdicts["passed"] + verdicts["refused"]
    share = f"{sound / captured:.1%}" if captured else "none"
    lines = [
        "## Totals\n",
        _sentence(len(records), captured, verdicts, share),
        "| library | tried | captured | pass | refused | fail |\n|---|---|---|---|---|---|",
    ]
    for library in sorted({record.name.partition("/")[0] for record in records}):
        own = Counter(r.verdict for r in records if r.name.partition("/")[0] == library)
        shown = [own["passed"], own["refused"], own["failed"]]
        lines.append(
            f"| {library} | {own.total()} | {sum(shown)} | {' | '.join(map(str, shown))} |"
        )
    return "\n".join(lines) + "\n"


def _sentence(tried: int, captured: int, verdicts: Counter[str], share: str) -> str:
    return (
        f"{tried} families tried: {captured} captured, {verdicts['not captured']} not captured, "
        f"{verdicts['not built']} not built. Of those captured, {verdicts['passed']} pass every "
        f"check that applies, {verdicts['refused']} are refused somewhere with a reason, "
        f"{verdicts['failed']} fail somewhere: {share} pass or are refused.\n"
    )


def _by_check(records: Sequence[Record]) -> str:
    lines = ["| check | pass | refused | fail | not applicable |\n|---|---|---|---|---|"]
    for check in ("capture", *CHECKS):
        found = Counter(outcome.status for r in records if (outcome := r.get(check)) is not None)
        counts = [found[status] for status in ("passed", "refused", "failed", "not applicable")]
        lines.append(f"| {check} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def _table(records: Sequence[Record]) -> str:
    names = ("capture", *CHECKS)
    lines = [
        "## Families\n",
        f"| family | kind | model | weights | {' | '.join(names)} | seconds |",
        "|---" * (5 + len(names)) + "|",
    ]
    for record in sorted(records, key=lambda record: (record.kind, record.name)):
        cells = [_cell(record.get(check)) for check in names]
        seconds = sum(outcome.seconds for outcome in record.outcomes)
        lines.append(
            f"| {record.name} | {record.kind} | {record.what} | {record.parameters:,} | "
            f"{' | '.join(cells)} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    remark = outcome.reason if outcome.status == "passed" else ""
    return SIGNS[outcome.status] + (f" {_plain(remark)}" if remark else "")


def _remarks(records: Iterable[Record], status: str) -> str:
    lines = [
        f"| {record.name} | {outcome.check} | {_plain(outcome.reason)} |"
        for record in records
        for outcome in record.outcomes
        if outcome.status == status
    ]
    if not lines:
        return ""
    head = f"## {'Failures' if status == 'failed' else 'Refusals'}\n\n| family | check | why |"
    return "\n".join([head, "|---|---|---|", *lines]) + "\n"


def _stopped(title: str, text: str, check: str, records: Sequence[Record]) -> str:
    if not records:
        return ""
    lines = [f"## {title}\n\n{text}\n\n| family | kind | why |\n|---|---|---|"]
    for record in records:
        outcome = record.get(check)
        why = "" if outcome is None else _plain(outcome.reason)
        lines.append(f"| {record.name} | {record.kind} | {why} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that is safe in a cell of a table, without places of this machine."""
    text = re.sub(r"/\S*/site-packages/", "", text)
    text = re.sub(r"(?: at )?(?<![\w.:/])/[^/\s]+(?:/\S*|$)", "", text)  # what was cut off before
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", text)
    for sign, safe in (("|", "\\|"), ("<", "‹"), (">", "›"), ("\n", " "), ("](", "] (")):
        text = text.replace(sign, safe)
    return text
