"""Load and save PEFT checkpoint folders of prompts, prefixes and (IA)³ scalings.

PEFT itself is not needed. ``gp.peft.load(folder, graph)`` compiles a folder into a captured model;
``gp.peft.save(task, folder, ...)`` writes one that ``PeftModel.from_pretrained`` reads. Results are
those of PEFT, except where PEFT hides inputs from the model:

- values derived from the ids are those without a prompt: a decoder that classifies reads the last
  token that is not padding, and positions skip padding if the model does so. PEFT passes no ids to
  the model, which then reads the last position, padding or not, and counts padding;
- position ids are used as given if the graph has them as inputs. PEFT drops them with a prompt,
  adds the length of a prefix to them, and never uses them for ``QUESTION_ANS``;
- token types are used if the graph has them as inputs. PEFT drops them for ``QUESTION_ANS``, and
  with prompts and prefixes also for generation and ``FEATURE_EXTRACTION``.
"""

from __future__ import annotations

from graphprog.peft.reading import load
from graphprog.peft.writing import save

__all__ = ["load", "save"]
