"""The sweep's own parts, and a slice of the zoo with the outcomes that are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("transformers")
pytest.importorskip("torch_geometric")

from sweep.checks import CHECKS
from sweep.families.registry import families, family_named
from sweep.outcome import Outcome, Record, append, read
from sweep.page import page
from sweep.runner import Account, run
from sweep.shrink import VOCABULARY, limit, shrunk, smaller
from sweep.worker import examine


def record(name: str = "timm/vit", **statuses: str) -> Record:
    made = {"build": "passed", "capture": "passed", **statuses}
    outcomes = tuple(Outcome(check, status, "why | so") for check, status in made.items())
    return Record(name, "vision", "Model", 1234, outcomes)


def test_there_are_families_of_every_library() -> None:
    libraries = [family.library for family in families()]
    assert len(libraries) >= 400
    assert set(libraries) == {"timm", "transformers", "torch_geometric"}
    assert len({family.name for family in families()}) == len(libraries)


def test_an_unknown_family_is_an_error() -> None:
    with pytest.raises(LookupError, match="nonesuch"):
        family_named("timm/nonesuch")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_size", 768, 32),
        ("hidden_size", 16, 16),
        ("num_attention_heads", 12, 4),
        ("num_hidden_layers", 12, 2),
        ("vocab_size", 30522, VOCABULARY),
        ("type_vocab_size", 2, 2),
        ("hidden_dropout_prob", 0.1, 0.1),
        ("eos_token_id", 50256, 2),
        ("use_cache", True, True),
        ("depths", (3, 4, 6, 3), (1, 1, 2, 1)),
        ("hidden_sizes", [64, 128, 320, 512], [16, 32, 80, 128]),
        ("num_heads", (3, 6, 12), (1, 2, 4)),
        ("layer_norm_eps", 1e-12, 1e-12),
    ],
)
def test_sizes_shrink(field: str, value: object, expected: object) -> None:
    assert smaller(field, value) == expected


def test_a_name_that_is_no_size_has_no_limit() -> None:
    assert limit("conv_kernel_size") == 0
    assert limit("hidden_dropout_prob") == 0


def test_inner_configurations_shrink_too() -> None:
    from transformers import CLIPConfig

    config = shrunk(CLIPConfig, {"vision_config": {"patch_size": 16}})
    assert config.text_config.hidden_size == 32
    assert config.vision_config.patch_size == 16
    assert config.vision_config.image_size == 32


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ({"ONNX": "passed", "disabled": "not applicable"}, "passed"),
        ({"ONNX": "refused"}, "refused"),
        ({"ONNX": "refused", "disabled": "failed"}, "failed"),
        ({"capture": "failed"}, "not captured"),
        ({"build": "failed"}, "not built"),
    ],
)
def test_the_worst_outcome_is_the_verdict(statuses: dict[str, str], verdict: str) -> None:
    assert record(**statuses).verdict == verdict


def test_a_later_record_keeps_what_was_not_made_again() -> None:
    merged = record(disabled="failed").over(record(disabled="passed", ONNX="refused"))
    assert {item.check: item.status for item in merged.outcomes} == {
        "build": "passed",
        "capture": "passed",
        "disabled": "failed",
        "ONNX": "refused",
    }


def test_records_are_kept_and_a_line_cut_short_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "outcomes.jsonl"
    first, second = record(disabled="failed"), record("timm/resnet")
    append(path, [first, second])
    append(path, [dataclasses.replace(first, parameters=7)])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"name": "timm/be')
    assert read(path) == {"timm/vit": dataclasses.replace(first, parameters=7), second.name: second}


def test_the_page_has_totals_and_every_family() -> None:
    failing = record("timm/resnet", disabled="failed")
    text = page([record(), failing, record("timm/beit", capture="failed")])
    assert "3 families tried: 2 captured, 1 not captured, 0 not built" in text
    assert "50.0% pass or are refused" in text
    assert "| timm/resnet | disabled | why \\| so |" in text
    assert "## Not captured" in text
    assert "## Refusals" not in text


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("no x at /home/me/lib/python3.11/site-packages/timm/a.py:3: y", "no x at timm/a.py:3: y"),
        ("no x at /home/me/lib/python3.11/site-p", "no x"),  # cut off
        ("no x at /ho", "no x"),
        ('no x (File "/usr/lib/python3.11/ast.py")', 'no x (File "'),
        (
            "s6//2 and 3 / 4, of https://a.org/b/c or a/b",
            "s6//2 and 3 / 4, of https://a.org/b/c or a/b",
        ),
    ],
)
def test_the_page_names_no_place_of_this_machine(reason: str, shown: str) -> None:
    outcome = Outcome("disabled", "failed", reason)
    text = page([dataclasses.replace(record(), outcomes=(*record().outcomes, outcome))])
    assert f"| disabled | {shown} |" in text


@pytest.mark.slow
def test_a_family_runs_in_a_process_of_its_own_and_ends_in_time() -> None:
    names = [("torch_geometric/GraphSAGE", "graph network")]
    (done,) = run(names, ("disabled",), seconds=300.0)
    assert done.get("disabled") is not None
    (stopped,) = run(names, ("disabled",), seconds=0.0)
    assert stopped.outcomes[-1].reason == "took more than 0 s"


TEXT = {"additive: input": "not applicable"}
"""What reads token ids has no input of floats."""

FIXED = {"insertion: early": "refused", "insertion: middle": "refused"}
"""Windows, mixers and tables of a fixed length cannot grow."""

SLICE: dict[str, dict[str, str]] = {
    "torch_geometric/GAT": {},
    "torch_geometric/GraphSAGE": {},
    "timm/beit": FIXED,
    "timm/convnext": {},
    "timm/efficientnet": {},
    "timm/mlp_mixer": FIXED,
    "timm/resnet": {},
    "timm/swin_transformer": FIXED,
    "timm/vision_transformer": {},
    "transformers/albert": TEXT,
    "transformers/audio_spectrogram_transformer": {},
    "transformers/bart": TEXT,
    "transformers/beit": {},
    "transformers/bert": TEXT,
    "transformers/clip": {},
    "transformers/convnext": {},
    "transformers/dinov2": {},
    "transformers/distilbert": TEXT,
    "transformers/gemma2": TEXT,
    "transformers/gpt2": TEXT,
    "transformers/llama": TEXT,
    "transformers/opt": TEXT,
    "transformers/patchtst": {
        "insertion: none": "not applicable",
        "insertion: early": "not applicable",
        "insertion: middle": "refused",
    },
    "transformers/roberta": TEXT,
    "transformers/swin": FIXED,
    "transformers/t5": TEXT,
    "transformers/timesformer": FIXED,
    "transformers/videomae": {},
    "transformers/vit": {},
    "transformers/wav2vec2": {},
    "transformers/whisper": {},
}
"""Family to what is known of it: by check, the status where it is not passed."""

EXPORTED = ("timm/resnet", "transformers/gpt2", "transformers/vit")
"""The check that takes longest is made for these."""


QUICK = {
    *("torch_geometric/GAT", "timm/resnet", "timm/vision_transformer"),
    *("transformers/gpt2", "transformers/wav2vec2"),
}
"""Families of the default run; they stand for the others."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in SLICE],
)
def test_a_slice_of_the_zoo(name: str) -> None:
    family = family_named(name)
    account = Account(family.name, family.kind)
    checks = [check for check in CHECKS if check != "ONNX" or name in EXPORTED]
    for message in examine(family, checks):
        account.take(message)
    outcomes = account.record().outcomes
    assert [item.check for item in outcomes] == ["build", "capture", *checks]
    found = {item.check: item for item in outcomes if item.status != "passed"}
    assert {check: item.status for check, item in found.items()} == SLICE[name], found
