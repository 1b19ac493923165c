"""Train the small model that is frozen afterwards, on problems other than those of the test.

    python examples/04_chain_of_thought/train.py

An episode is a few problems, either all answered at once or all worked step by step. Which of
both it will be, a model cannot know at the first problem, and sees in the ones before at the
others.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arithmetic
import torch

sys.path.append(str(Path(__file__).parent.parent))
import language_models

FOLDER = Path(__file__).parent / "outputs" / "model"
STEPS = 3000
EPISODES = 32
PROBLEMS = 3
WORKED = 0.5


def tokenizer() -> Any:
    """One token a word or a number, with the space in front of it."""
    operations = (("plus", 1), ("minus", 1), ("times", 1))
    example = arithmetic.Problem(1, operations).example(steps=True)
    numbers = "".join(f" {number}" for number in range(arithmetic.HIGHEST + 1))
    return language_models.word_tokenizer(
        [arithmetic.TEMPLATE.render(example) + arithmetic.SEPARATOR + numbers]
    )


def batches(tokens: Any, seed: int) -> Iterator[language_models.Batch]:
    """Episodes without end, all of a batch in one style; answers are to be predicted."""
    generator = random.Random(seed)
    source = arithmetic.problems(generator, None, held_out=False)
    while True:
        steps = generator.random() < WORKED
        count = generator.randint(1, PROBLEMS)
        pieces = []
        for problem in (next(source) for _ in range(EPISODES * count)):
            example = problem.example(steps)
            pieces.append(arithmetic.TEMPLATE.query(example))
            pieces.append(arithmetic.TEMPLATE.continuation(example) + arithmetic.SEPARATOR)
        ids = iter(tokens(pieces, add_special_tokens=False)["input_ids"])
        yield _padded(
            [[(next(ids), next(ids)) for _ in range(count)] for _ in range(EPISODES)],
            tokens.bos_token_id,
        )


def _padded(rows: list[list[tuple[list[int], list[int]]]], begin: int) -> language_models.Batch:
    """Rows of questions and answers in tokens, padded behind, where no token before sees it."""
    read, wanted = [], []
    for row in rows:
        ids, targets = [begin], [-100]
        for question, answer in row:
            ids += question + answer
            targets += [-100] * len(question) + answer
        read.append(torch.tensor(ids))
        wanted.append(torch.tensor(targets))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(read, batch_first=True), pad(wanted, batch_first=True, padding_value=-100)


def main(steps: int = STEPS, seed: int = 0, folder: Path = FOLDER) -> Path:
    """Train and keep a model."""
    tokens = tokenizer()
    return language_models.trained(folder, tokens, batches(tokens, seed), steps, seed)


if __name__ == "__main__":
    main()
