"""Completions by the client of OpenAI; texts that are classified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

import graphprog as gp
from graphprog.serve.app import application
from graphprog.serve.language import LanguageModel
from graphprog.serve.limits import Limits
from graphprog.serve.metrics import Metrics
from graphprog.serve.open import open_served
from tests.models.text_models import reader, save_small_gpt2
from tests.support.servers.server_process import serving

pytestmark = pytest.mark.xdist_group("serve")

SOURCE = """
from tests.support.cpu_torchvision import declare_missing_operators

operators = declare_missing_operators()
import graphprog as gp

def small():
    return gp.sources.open_source("hf:small")
"""
PROMPTS = ["Review: a warm", "Q: 23 + 47 ="]


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, gp.ReprogrammedModel]:
    """A folder with a language model and a program, and both in this process."""
    folder = tmp_path_factory.mktemp("language")
    small = save_small_gpt2(folder / "small", blocks=2)
    graph = gp.capture(f"hf:{small}")
    program = gp.Program(
        [gp.Instruction("Be good."), gp.Additive(at="tokens", value=gp.Learnable("normal"))]
    )
    task = gp.compile(graph, program, seed=3)
    gp.save(task, folder / "kind.safetensors")
    return folder, task


@pytest.fixture(scope="module")
def client(writer: tuple[Path, gp.ReprogrammedModel]) -> Iterator[openai.OpenAI]:
    (writer[0] / "own.py").write_text(SOURCE)
    words = ["own:small", "--program", "kind=kind.safetensors", "--name", "small"]
    with serving(writer[0], *words, "--max-tokens", "20", "--max-length", "40") as (address, _):
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("name", ["small", "kind"])
def test_the_client_of_openai_gets_what_generate_writes(
    client: openai.OpenAI, writer: tuple[Path, gp.ReprogrammedModel], name: str
) -> None:
    model = writer[1] if name == "kind" else writer[1].base
    expected = gp.generate(model, PROMPTS, max_new_tokens=8)
    found = client.completions.create(model=name, prompt=PROMPTS, max_tokens=8, temperature=0)
    assert [one.text for one in found.choices] == [one.text for one in expected]
    assert [one.finish_reason for one in found.choices] == [
        "length" if one.ended == "length" else "stop" for one in expected
    ]
    assert found.usage is not None
    assert found.usage.completion_tokens == sum(len(one.ids) for one in expected)
    stream = client.completions.create(
        model=name, prompt=PROMPTS[0], max_tokens=8, temperature=0, stream=True
    )
    events = list(stream)
    assert "".join(one.choices[0].text for one in events) == expected[0].text
    assert events[-1].choices[0].finish_reason == found.choices[0].finish_reason


def test_samples_are_those_of_the_seed(
    client: openai.OpenAI, writer: tuple[Path, gp.ReprogrammedModel]
) -> None:
    asked: dict[str, Any] = {"max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "seed": 5, "n": 2}
    found = client.completions.create(model="kind", prompt=PROMPTS[0], **asked)
    expected = gp.generate(
        writer[1],
        PROMPTS[:1],
        max_new_tokens=6,
        temperature=0.7,
        top_p=0.9,
        seed=5,
        num_return_sequences=2,
    )
    assert [one.text for one in found.choices] == [one.text for one in expected]
    ids = writer[1].base.tokenizer(PROMPTS[1])["input_ids"]
    by_ids = client.completions.create(model="small", prompt=ids, max_tokens=4, temperature=0)
    (text,) = gp.generate(writer[1].base, [ids], max_new_tokens=4)
    assert by_ids.choices[0].text == text.text


@pytest.mark.parametrize(
    ("asked", "status", "what"),
    [
        ({"model": "fish"}, 404, "there is no program 'fish'"),
        ({"max_tokens": 21}, 400, "a text may have 20"),
        ({"logprobs": 3}, 400, "logprobs: this server has no such option"),
        ({"prompt": []}, 400, "no prompts"),
        ({"prompt": [[-1]]}, 400, "token -1 is not in the vocabulary"),
        ({"prompt": "warm " * 41}, 413, "more than 40 tokens"),
        ({"prompt": "a" * 100_000}, 413, "more than 40 tokens"),
        ({"prompt": ["a"] * 33}, 413, "33 rows"),
        ({"temperature": -1}, 400, "temperature"),
    ],
)
def test_what_cannot_be_written_is_refused(
    client: openai.OpenAI, asked: dict[str, Any], status: int, what: str
) -> None:
    call = {"model": "small", "prompt": "a", "temperature": 0, **asked}
    with pytest.raises(openai.APIStatusError, match=what) as caught:
        client.completions.create(**call)
    assert caught.value.status_code == status
    assert {one.id for one in client.models.list()} == {"small", "kind"}


def test_a_decoder_file_writes_the_same(
    writer: tuple[Path, gp.ReprogrammedModel], tmp_path: Path
) -> None:
    folder, task = writer
    gp.backends.onnx.export_decoder(task, tmp_path / "small.onnx")
    served = open_served(
        str(tmp_path / "small.onnx"),
        {},
        Limits(),
        capture=lambda: task.base,
        tokenizer=str(folder / "small"),
    )
    (expected,) = gp.generate(task, PROMPTS[:1], max_new_tokens=5)
    with TestClient(application(served, "t")) as http:
        body = {"model": "model", "prompt": PROMPTS[0], "max_tokens": 5, "temperature": 0}
        found = http.post("/v1/completions", json=body).json()
        assert found["choices"][0]["text"] == expected.text
        data = (folder / "kind.safetensors").read_bytes()
        headers = {"Authorization": "Bearer t"}
        refused = http.put("/v1/programs/kind", content=data, headers=headers)
        assert refused.status_code == 400
        assert "it takes no others" in refused.text


def test_a_program_of_a_language_model_is_added_while_it_runs(
    writer: tuple[Path, gp.ReprogrammedModel],
) -> None:
    folder, task = writer
    served = LanguageModel(task.base, "small", Limits(), Metrics())
    (expected,) = gp.generate(task, PROMPTS[:1], max_new_tokens=5)
    with TestClient(application(served, "t")) as http:
        data = (folder / "kind.safetensors").read_bytes()
        headers = {"Authorization": "Bearer t"}
        assert http.put("/v1/programs/new", content=data, headers=headers).status_code == 201
        body = {"model": "new", "prompt": PROMPTS[0], "max_tokens": 5, "temperature": 0}
        found = http.post("/v1/completions", json=body).json()
        assert found["choices"][0]["text"] == expected.text
        assert http.delete("/v1/programs/new", headers=headers).status_code == 204
        assert http.post("/v1/completions", json=body).status_code == 404


def test_texts_are_classified_with_the_words_of_their_programs(tmp_path: Path) -> None:
    _, graph = reader("bert", head="labels")
    tasks = {}
    for seed, words in enumerate(("Is it good?", "Say which it is.")):
        text = gp.Instruction(words, kept="text")
        contract = gp.Contract(labels=("good", "bad", "so"))
        program = gp.Program([text, gp.Additive(at="tokens")], contract=contract)
        name = f"p{seed}"
        tasks[name] = gp.compile(graph, program, seed=seed)
        gp.save(tasks[name], tmp_path / f"{name}.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in tasks}
    served = open_served("by name", files, Limits(), capture=lambda: graph)
    texts = ["a warm and funny film", "dull and cold"]
    with TestClient(application(served)) as http:
        body = {"texts": texts, "program": ["p0", "p1"]}
        rows = http.post("/v1/predict", json=body).json()["rows"]
        for name, text, row in zip(tasks, texts, rows, strict=True):
            shares = tasks[name](**tasks[name].encode([text])).logits.softmax(-1)[0].tolist()
            assert row["probabilities"] == pytest.approx(
                dict(zip(("good", "bad", "so"), shares, strict=True)), abs=1e-5
            )
        assert http.put("/v1/programs/p2", content=b"").status_code == 403
