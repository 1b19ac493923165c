"""Prompts and scalings trained by PEFT, and for it: its checkpoint folders, read and written.

PEFT itself is not needed. ``gp.peft.load(folder, graph)`` compiles a folder into a captured model;
``gp.peft.save(task, folder, ...)`` writes one that ``PeftModel.from_pretrained`` reads. Results are
those of PEFT, with these exceptions, in which PEFT cannot know what the model was given:

- a decoder that classifies by its last token reads the last real one here, as without a prompt;
  PEFT hides the ids from the model, which then takes the last position, padding or not;
- ids of positions and, for tasks that generate, of token types are used where the graph has them
  as inputs; PEFT drops them.
"""

from __future__ import annotations

from graphprog.peft.reading import load
from graphprog.peft.writing import save

__all__ = ["load", "save"]
