"""Tokens of answer words at the place where the answer follows a query."""

from __future__ import annotations

from graphprog.errors import DataError, ProgramError
from graphprog.text.prompting.prompt import Prompt, Query
from graphprog.text.prompting.tokenizer import inner


def answer_tokens(prompt: Prompt, word: str) -> tuple[int, ...]:
    """Tokenize a word at the place of the answer.

    Raises:
        ProgramError: the word shares a token with its surroundings; or demonstrations write their
            answers with a leading space and this word has none, or vice versa.
    """
    sample, tokens = _sample(prompt), prompt.tokens
    text = prompt.asked(sample)
    try:
        if not prompt.answer:
            return inner(word, tokens.opened(text + answered(prompt, word)), tokens.opened(text))
        masked = tokens.opened(text)
        gap = masked.index(tokens.mask[1])
        filled = tokens.opened(_filled(prompt, sample, text, word))
        return inner(word, filled, masked[:gap], masked[gap + 1 :])
    except DataError as error:
        raise ProgramError(error.what, error.remedies) from error


def answered(prompt: Prompt, word: str) -> str:
    """Format a word as the answer to a query.

    Raises:
        ProgramError: as :func:`answer_tokens`; or the answer of the template is not its label.
    """
    part = prompt.demonstrations
    if part is None:
        return word
    template = part.template
    if template.answer != template.label:
        raise ProgramError(
            f"the template asks for {template.answer!r} before the label {template.label!r}, so "
            "the answer does not begin with a label",
            [
                "parse the label in generated text: align=gp.Parse(pattern)",
                "use a template without steps",
            ],
        )
    text = template.spaced(word)
    shown = {template.spaced(row[template.label])[:1].isspace() for row in part.records}
    if shown and text[:1].isspace() not in shown:
        other = word.lstrip() if text[:1].isspace() else " " + word
        raise ProgramError(
            f"demonstrations begin their answers {'with' if True in shown else 'without'} a space, "
            f"{word!r:.60} does not",
            [f"write {other!r:.60}"],
        )
    return text


def _filled(prompt: Prompt, sample: Query, text: str, word: str) -> str:
    """The text of a query with the mask filled by a word."""
    part = prompt.demonstrations
    if part is not None:
        return prompt.asked(sample, answered(prompt, word))
    before, _, after = text.partition(prompt.answer)
    return before + (word.lstrip() if before[-1:].isspace() else word) + after


def _sample(prompt: Prompt) -> Query:
    """A sample query to tokenize words after."""
    part = prompt.demonstrations
    if part is None:
        return f"a {prompt.answer}".rstrip()
    template = part.template
    names = [name for name in template.fields if name != template.answer]
    if part.records:
        return {name: part.records[0][name] for name in names}
    return dict.fromkeys(names, "a")
