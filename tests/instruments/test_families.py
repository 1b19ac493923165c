"""Recording beside forward hooks on the eager model, in families of the zoo."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")
pytest.importorskip("transformers")
pytest.importorskip("torch_geometric")

import torch

import graphprog as gp
from sweep.families.registry import family_named
from sweep.subject import captured
from tests.support.oracle import values_of

FAMILIES = (
    *("torch_geometric/GAT", "torch_geometric/GCN", "torch_geometric/GIN"),
    *("timm/convnext", "timm/densenet", "timm/efficientnet", "timm/mlp_mixer", "timm/regnet"),
    *("timm/resnet", "timm/swin_transformer", "timm/vision_transformer", "timm/xcit"),
    *("transformers/audio_spectrogram_transformer", "transformers/bart", "transformers/bert"),
    *("transformers/clip", "transformers/gemma2", "transformers/gpt2", "transformers/llama"),
    *("transformers/mamba", "transformers/opt", "transformers/patchtst", "transformers/segformer"),
    *("transformers/swin", "transformers/t5", "transformers/videomae", "transformers/wav2vec2"),
    *("transformers/whisper",),
)
QUICK = {"timm/resnet", "torch_geometric/GAT", "transformers/bart", "transformers/wav2vec2"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_every_alias_holds_what_hooks_see(name: str) -> None:
    """Bit for bit; hooks see neither inputs and outputs of the model nor inside attention."""
    subject = captured(family_named(name).build())
    arguments, table = subject.arguments(), subject.graph.interfaces()
    torch.manual_seed(0)
    with torch.no_grad():
        seen = values_of(subject.case.model, (), arguments)
    places = {alias: table.resolve(alias).key for alias in subject.graph.aliases}
    torch.manual_seed(0)
    found = gp.record(subject.graph, arguments, at=[*places])
    compared = []
    for alias, key in places.items():
        # without taps the values of a call are numbered otherwise: take one of the same shape
        bare = key.partition("[")[0]
        known = [key, *sorted(one for one in seen if one.partition("[")[0] == bare)]
        values = [seen[one] for one in known if one in seen]
        same = [value for value in values if value.shape == found[alias].shape]
        if same:
            assert torch.equal(found[alias], same[0]), alias
            compared.append(alias)
    assert any("hidden[" in alias for alias in compared)
    assert len(compared) >= 3
