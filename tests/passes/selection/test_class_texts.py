"""Fixed class texts with learned context (CoOp), beside the loop of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel

import graphprog as gp
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead, flops_saved

END, LENGTH, CONTEXT, WIDTH, HEADS = 96, 14, 4, 16, 2


def class_texts() -> Tensor:
    """Texts of 4 and 5 tokens, padded with the end of text as CLIP's tokenizer does."""
    ids = torch.full((3, LENGTH), END)
    ids[:, 0] = 95
    ids[:, 1:3] = torch.arange(6).view(3, 2)
    ids[1, 3] = 7
    return ids


@pytest.fixture(scope="module")
def clip() -> tuple[CLIPModel, gp.Graph]:
    torch.manual_seed(0)
    both = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": HEADS}
    text = {**both, "num_hidden_layers": 2, "vocab_size": 97, "max_position_embeddings": 20}
    text |= {"bos_token_id": 95, "eos_token_id": END}
    vision = {**both, "num_hidden_layers": 1, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model = model.double().eval().requires_grad_(False)
    kwargs = {"input_ids": class_texts(), "pixel_values": images(2)}
    axes = {"input_ids": {0: "texts", 1: "sequence"}, "pixel_values": {0: "batch"}}
    return model, gp.capture(model, (), kwargs, axes)


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, 16, 16, generator=generator, dtype=torch.float64)


def with_context(graph: gp.Graph) -> gp.ReprogrammedModel:
    context = gp.Concatenative(
        at="text_model.embeddings.token_embedding:out", offset=1, length=CONTEXT
    )
    texts = gp.ConstantInputs({"input_ids": class_texts()})
    align = gp.Identity(at="output:logits_per_image")
    return gp.compile(graph, gp.Program([context, texts], align=align))


def loop(model: CLIPModel, context: Tensor, pixels: Tensor) -> Tensor:
    """CoOp (Zhou et al., IJCV 2022): [start, context, class, end], all positions, causal."""
    tower, ids = model.text_model, class_texts()
    words = tower.embeddings.token_embedding(ids)
    x = torch.cat([words[:, :1], context.expand(len(ids), -1, -1), words[:, 1:]], 1)
    count = x.shape[1]
    x = x + tower.embeddings.position_embedding.weight[:count]
    hidden = torch.full((count, count), float("-inf"), dtype=x.dtype).triu(1)
    for block in tower.encoder.layers:
        normed = block.layer_norm1(x)
        query, key, value = (
            layer(normed).view(len(ids), count, HEADS, -1).transpose(1, 2)
            for layer in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)
        )
        scores = query @ key.transpose(2, 3) / (WIDTH / HEADS) ** 0.5 + hidden
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
        x = x + block.self_attn.out_proj(mixed)
        x = x + block.mlp(block.layer_norm2(x))
    ends = (ids == END).int().argmax(1) + CONTEXT
    texts = model.text_projection(tower.final_layer_norm(x)[torch.arange(len(ids)), ends])
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    found = functional.normalize(model.visual_projection(pooled), dim=-1)
    logits: Tensor = model.logit_scale.exp() * found @ functional.normalize(texts, dim=-1).T
    return logits


def test_positions_after_the_last_end_of_text_are_not_run(
    clip: tuple[CLIPModel, gp.Graph],
) -> None:
    model, graph = clip
    source = graph.fingerprint
    task = with_context(graph)
    (context,) = task.program.parameters()
    fewer = OnlyWhatIsRead()(task.graph)
    targets = torch.tensor([0, 1, 2, 1, 0])
    found = []
    for logits in (
        fewer.run([images(5)])[0],
        task.train()(images(5)),
        loop(model, context, images(5)),
        task.graph.run([images(5)])[0],
    ):
        loss = functional.cross_entropy(logits, targets)
        found.append((logits.detach(), torch.autograd.grad(loss, context)[0]))
    for one in found[1:]:
        torch.testing.assert_close(found[0], one, rtol=1e-6, atol=1e-5)  # learned in float32
    shapes = [
        node.meta["val"].shape
        for node in fewer.code.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    ]
    texts = [shape for shape in shapes if len(shape) == 3 and shape[0] == 3]
    assert {shape[1] for shape in texts} == {5 + CONTEXT}  # of 18
    before, after = flops_saved(task.graph, fewer)
    assert after < 0.6 * before
    assert graph.fingerprint == source
    assert torch.equal(task.eval()(images(5)), found[3][0])  # all positions, bit for bit


def test_class_texts_are_computed_once_whatever_the_batch(
    clip: tuple[CLIPModel, gp.Graph],
) -> None:
    task = with_context(clip[1]).train()
    counts = []
    for rows in (1, 3, 9):
        with FlopCounterMode(display=False) as counter:
            task(images(rows))
        counts.append(counter.get_total_flops())
    per_image = (counts[1] - counts[0]) // 2
    assert counts[2] - counts[0] == 8 * per_image
    assert counts[0] > 3 * per_image  # of three texts


@pytest.mark.parametrize("reuse", ["off", "memory"])
def test_training_is_that_of_the_loop(clip: tuple[CLIPModel, gp.Graph], reuse: str) -> None:
    model, graph = clip
    task = with_context(graph)
    (context,) = task.program.parameters()
    learned = context.detach().clone().requires_grad_()
    pixels, targets = images(6), torch.tensor([0, 1, 2, 2, 1, 0])
    losses = []
    optimizer = torch.optim.SGD([learned], lr=0.1)
    for _ in range(3):
        loss = functional.cross_entropy(loop(model, learned, pixels), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    history = gp.fit(
        task,
        (pixels, targets),
        epochs=3,
        batch_size=6,
        optimizer=gp.SGD(0.1, momentum=0.0),
        reuse=reuse,
        progress=False,
    )
    assert len(history.notes) == 1  # there is no validation split, and values were kept
    found = [record.train_loss for record in history.records]
    assert found == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(context.detach(), learned.detach(), rtol=1e-6, atol=1e-7)


def test_in_inference_class_texts_are_constants(clip: tuple[CLIPModel, gp.Graph]) -> None:
    model, graph = clip
    task = with_context(graph)
    frozen = gp.freeze(task)
    assert torch.equal(frozen(images(4)), task(images(4)))
    (context,) = task.program.parameters()
    torch.testing.assert_close(frozen(images(4)), loop(model, context, images(4)))
    linear = frozen.code.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert not any(node.meta["val"].shape[0] == 3 for node in linear)  # no text is run


class Reader(nn.Module):
    """Scores of images [B, D] and of fixed texts [K, S, D], read at numbers [K]."""

    def __init__(self, mask: Tensor | None, causal: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.causal = causal
        if mask is not None:
            self.register_buffer("mask", mask)
        else:
            self.mask = None

    def forward(self, image: Tensor, texts: Tensor, ends: Tensor) -> Tensor:
        x = self.layer(texts)[:, None]
        x = functional.scaled_dot_product_attention(
            x, x, x, self.mask, is_causal=self.causal
        ).squeeze(1)
        return image @ self.layer(x)[torch.arange(x.shape[0]), ends].T


def reading(mask: Tensor | None, causal: bool, ends: list[int]) -> gp.ReprogrammedModel:
    torch.manual_seed(0)
    model = Reader(mask, causal).eval().requires_grad_(False)
    image, texts = torch.randn(2, WIDTH).double(), torch.randn(3, 6, WIDTH).double()
    names = {"image": {0: "batch"}, "texts": {0: "texts"}, "ends": {0: "texts"}}
    graph = gp.capture(model, (image, texts, torch.tensor([1, 2, 3])), dynamic_axes=names)
    given = gp.ConstantInputs({"texts": texts, "ends": torch.tensor(ends)})
    pattern = gp.Additive(at="layer:out", value=gp.Learnable("normal"))
    return gp.compile(graph, gp.Program([given, pattern]))


def upper(value: float) -> Tensor:
    return torch.full((6, 6), value, dtype=torch.float64).triu(1)


MASKS = {
    "causal": (None, True, [1, 3, 0], 4),
    "written": (upper(float("-inf")), False, [1, 3, 0], 4),
    "bool": (torch.ones(6, 6, dtype=torch.bool).tril(), False, [1, 3, 0], 4),
    "least": (upper(torch.finfo(torch.float64).min), False, [1, 3, 0], 4),
    "small": (upper(-50.0), False, [1, 3, 0], 6),
    "both ways": (None, False, [1, 3, 0], 6),
    "one later": (torch.ones(6, 6, dtype=torch.bool).tril(1), False, [1, 3, 0], 6),
    "later than read": (torch.ones(6, 6, dtype=torch.bool).tril(1), False, [1, 0, 4], 6),
    "from the end": (None, True, [1, -3, 0], 6),
    "last": (None, True, [1, 5, 0], 6),
}


@pytest.mark.parametrize("kind", MASKS)
def test_keys_are_left_out_where_they_are_proved_to_be_hidden(kind: str) -> None:
    mask, causal, ends, length = MASKS[kind]
    task = reading(mask, causal, ends)
    fewer = OnlyWhatIsRead()(task.graph)
    (attention,) = fewer.code.find_nodes(
        op="call_function", target=torch.ops.aten.scaled_dot_product_attention.default
    )
    assert attention.args[1].meta["val"].shape[-2] == length
    results = []
    for graph in (task.graph, fewer):
        image = torch.arange(4.0 * WIDTH, dtype=torch.float64).view(4, WIDTH).cos()
        scores = graph.run([image.requires_grad_()])[0]
        leaves = [image, *task.program.parameters()]
        results.append((scores, *torch.autograd.grad(scores.sin().sum(), leaves)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_numbers_that_change_are_an_error_and_never_other_entries() -> None:
    task = reading(None, True, [1, 3, 0])
    fewer = OnlyWhatIsRead()(task.graph)
    image = torch.ones(1, WIDTH, dtype=torch.float64)
    held = task.program.constant_inputs.ends_given
    held.copy_(torch.tensor([2, 0, 1]))
    torch.testing.assert_close(fewer(image), task(image))
    held.copy_(torch.tensor([1, 5, 0]))
    with pytest.raises(IndexError):
        fewer(image)
