"""Texts as inputs of an exported file, with the text of each row's program around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.backends.onnx_model.metadata import Deployed
from graphprog.compiler.encoding import encode, tensors_of
from graphprog.compiler.lower_text import prompt_of
from graphprog.compiler.program import Program
from graphprog.errors import FileError, GraphprogError
from graphprog.io.artifact import read, within
from graphprog.serve.limits import RequestError
from graphprog.sources.library import library
from graphprog.spec.registry import from_json
from graphprog.text.prompting.prompt import Prompt
from graphprog.text.prompting.tokenizer import TextTokens


def tokenizer_of(name: str) -> Any:
    """Load a tokenizer of transformers from a folder, or by its name; None without a name.

    Raises:
        FileError: there is none.
    """
    if not name:
        return None
    transformers = library("transformers", "--tokenizer")
    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except Exception as error:  # whatever the library raises
        raise FileError(f"{name}: not a tokenizer of transformers: {error}") from error


class TextReader:
    """The tokenizer of a file, and the prompts of its programs.

    Args:
        tokenizer: that of the source model.
        document: of the file.

    Raises:
        FileError: the file does not say how texts become inputs, or was made with another
            tokenizer.

    Attributes:
        prompts: by the name of the program.
    """

    def __init__(self, tokenizer: Any, document: Deployed) -> None:
        if document.text is None:
            raise FileError(
                f"the file of {document.source_name} does not say how texts become inputs",
                ["capture the model with its tokenizer, and export it again"],
            )
        self._entry = document.text
        self.tokens = TextTokens(tokenizer)
        if self.tokens.fingerprint != document.text.tokenizer:
            raise FileError(
                f"the file of {document.source_name} was made with another tokenizer than "
                f"{self.tokens.name}",
                ["give the tokenizer that the model was captured with"],
            )
        self.prompts: dict[str, Prompt] = {}
        self._own = self._of_document(document.program)
        named = {spec.name: spec for spec in document.inputs}
        length = named[self._entry.ids].shape[1]
        self._inputs = TokenInputs(
            ids=self._entry.ids,
            mask=self._entry.mask,
            others=tuple(one for one in named if one not in (self._entry.ids, self._entry.mask)),
            length=length if isinstance(length, int) else None,
            dtypes={name: spec.dtype for name, spec in named.items()},
            vocabulary=self._entry.vocabulary,
        )

    def prompt_of(self, path: Path) -> Prompt:
        """Return the prompt of a saved program.

        Raises:
            FileError: the file is unreadable, or holds no program.
        """
        tensors, document = read(path)
        with within(path):
            program = from_json(document.get("program"), tensors)
            if not isinstance(program, Program):
                raise FileError("the document holds no program")
            return prompt_of(program, self.tokens.tokenizer, self._entry.ends)

    def _of_document(self, document: Mapping[str, Any]) -> Prompt | None:
        """Return the prompt of the file's own program; None if it needs tensors of its spec."""
        try:
            program = from_json(document, {})
        except GraphprogError:
            return None
        if not isinstance(program, Program):
            return None
        return prompt_of(program, self.tokens.tokenizer, self._entry.ends)

    def inputs(self, texts: Sequence[Any], programs: Sequence[str] | None) -> list[torch.Tensor]:
        """Return the inputs for texts, in order.

        Args:
            texts: for each row a text, or a mapping with the fields of its program's template.
            programs: names, one per row, or one for all; None for that of the file.

        Raises:
            DataError: a text does not fit the template or the length.
        """
        names = list(programs or [""])
        names = names * len(texts) if len(names) == 1 else names
        if len(names) != len(texts):
            raise RequestError(400, f"there are {len(names)} programs for {len(texts)} rows")
        rows = []
        for name, text in zip(names, texts, strict=True):
            prompt = self.prompts[name] if name else self._own
            if prompt is None:
                raise RequestError(400, "the file's own program takes no texts")
            rows += encode(prompt, [text])
        found = tensors_of(rows, self.tokens, self._inputs)
        return list(found.values())
