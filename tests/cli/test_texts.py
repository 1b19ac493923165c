"""A run on texts of a table, with a model of transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers

from graphprog.cli.main import main
from tests.models.text_models import tokenizer


def test_texts_are_trained_on_and_labeled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("GRAPHPROG_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=400,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    transformers.BertForSequenceClassification(config).save_pretrained("model")
    tokenizer("bert").save_pretrained("model")
    rows = ["a warm and funny film,good", "a dull and cold film,bad"] * 4
    Path("reviews.csv").write_text("\n".join(["review,label", *rows]), "utf-8")
    flags = ["--model", "hf:model", "--data", "reviews.csv", "--method", "linear"]
    assert main(["init", "reviews.toml", *flags]) == 0
    changes = ["train.epochs=30", "train.lr=0.3", "data.validation=0.25", "data.test=0"]
    assert main(["train", "reviews.toml", *(x for one in changes for x in ("--set", one))]) == 0
    capsys.readouterr()
    Path("new.txt").write_text("a warm and funny film\n\na dull and cold film\n", "utf-8")
    assert main(["predict", "runs/reviews", "new.txt", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        ["row", "label"],
        ["new.txt:1", "good"],
        ["new.txt:3", "bad"],
    ]
