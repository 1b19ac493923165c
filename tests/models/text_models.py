"""Real tokenizers, trained on a few lines, and small models that read them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import graphprog as gp

CORPUS = [
    "Review: a warm and funny film. Sentiment: good",
    "Review: a dull and cold film. Sentiment: bad",
    "It was very good, very bad, great or terrible.",
    "Is the review good or bad? Say which it is.",
    "Q: 23 + 47 = A: 20 + 40 is 60 and 3 + 7 is 10, so the answer is 70.",
    "the a an of to and in that it is was for on with as at by\n\n12345 67890",
] * 8
REVIEWS = [
    {"text": "a warm and funny film", "label": "good"},
    {"text": "dull and cold", "label": "bad"},
    {"text": "great, with a funny end", "label": "good"},
    {"text": "a terrible film", "label": "bad"},
]
TEMPLATE = gp.text.Template("Review: {text}\nSentiment: {label}")
SIZE = 400


@functools.cache
def tokenizer(name: str) -> Any:
    """``gpt2``: bytes joined, nothing around a text; ``llama``: a space in front of words, and a
    token of the beginning; ``bert``: pieces of words between two special tokens; ``closing``:
    bytes joined, with a token of the end behind every text."""
    import transformers as t
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer

    special = ["<pad>", "<s>", "</s>", "[MASK]"]
    if name == "bert":
        words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(CORPUS).lower())))
        signs = sorted(set("".join(words)))
        known = dict.fromkeys([*special, *words, *signs, *(f"##{sign}" for sign in signs)])
        vocabulary = {piece: number for number, piece in enumerate(known)}
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="<pad>"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.add_special_tokens(special)
    else:
        made = Tokenizer(models.BPE(unk_token="<pad>"))
        initial = pre_tokenizers.ByteLevel.alphabet() if name != "llama" else []
        trainer = BpeTrainer(vocab_size=SIZE, special_tokens=special, initial_alphabet=initial)
        if name == "llama":
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
            made.decoder = decoders.Metaspace(prepend_scheme="first")
        else:
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
        made.train_from_iterator(CORPUS, trainer)
    around = {"llama": "<s> $A", "bert": "<s> $A </s>", "closing": "$A </s>"}
    if name in around:
        made.post_processor = processors.TemplateProcessing(
            single=around[name], special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        mask_token="[MASK]",
    )  # fmt: skip


def save_small_gpt2(folder: Path, blocks: int) -> Path:
    """Save a small GPT-2 with its tokenizer as a folder that transformers loads; return it."""
    import transformers as t

    torch.manual_seed(0)
    config = t.GPT2Config(
        vocab_size=SIZE, n_positions=64, n_embd=16, n_layer=blocks, n_head=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    t.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer("gpt2").save_pretrained(folder)
    return folder


@functools.cache
def reader(name: str, masked: bool = True, head: str = "words") -> tuple[nn.Module, gp.Graph]:
    """A small model with its tokenizer, for any batch and length.

    Args:
        name: as of :func:`tokenizer`.
        masked: whether it takes a mask.
        head: ``words``, or ``labels`` for logits of three labels.
    """
    torch.manual_seed(0)
    model = _model(name, head).eval().requires_grad_(False)
    ids = torch.randint(4, 300, (2, 9))
    call: dict[str, Any] = {"input_ids": ids}
    if masked:
        call["attention_mask"] = torch.ones_like(ids)
    axes = {key: {0: "batch", 1: "sequence"} for key in call}
    if name != "bert":
        call["use_cache"] = False
    return model, gp.capture(model, (), call, axes, tokenizer=tokenizer(name))


def _model(name: str, head: str) -> nn.Module:
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "num_labels": 3,
    }
    if name == "bert":
        kind = t.BertForMaskedLM if head == "words" else t.BertForSequenceClassification
        return kind(t.BertConfig(**sizes))
    if name == "llama":
        return t.LlamaForCausalLM(t.LlamaConfig(**sizes, num_key_value_heads=2))
    config = t.GPT2Config(
        vocab_size=SIZE,
        n_positions=256,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        num_labels=3,
    )
    kind = t.GPT2LMHeadModel if head == "words" else t.GPT2ForSequenceClassification
    return kind(config)


def alone(model: nn.Module, name: str, text: str) -> torch.Tensor:
    """What a model gives for one text, tokenized as its tokenizer does, by token [S, V]."""
    ids = torch.tensor([tokenizer(name)(text)["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0]


QUERIES = ["a funny film", "cold, dull, very bad, and in that it is long", "12"]
SHOWN = gp.Demonstrations(REVIEWS, TEMPLATE)
TOLD = gp.Instruction("Is the review good or bad?")
CAUSAL = ("gpt2", "llama")


def opened(name: str, text: str) -> list[int]:
    """A text as its tokenizer reads it, without what marks its end."""
    ids: list[int] = tokenizer(name)(text)["input_ids"]
    return ids[:-1] if name in ("closing", "bert") else ids


def behind(model: nn.Module, name: str, text: str) -> Tensor:
    """Logits of the token behind a text, which the model reads as a whole and alone."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([opened(name, text)])).logits
    return logits[0, -1]


def whole_text(query: str) -> str:
    """The text that a query stands for, written out."""
    shown = "".join(f"Review: {one['text']}\nSentiment: {one['label']}\n\n" for one in REVIEWS)
    return f"Is the review good or bad?\n\n{shown}Review: {query}\nSentiment:"
