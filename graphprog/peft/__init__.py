"""Prompts and scalings trained by PEFT, and for it: its checkpoint folders, read and written.

PEFT itself is not needed. ``gp.peft.load(folder, graph)`` compiles a folder into a captured model;
``gp.peft.save(task, folder, ...)`` writes one that ``PeftModel.from_pretrained`` reads. Results are
those of PEFT, with these exceptions, in which PEFT cannot know what the model was given:

- what the model reads off the ids themselves is as without a prompt: a decoder that classifies
  takes the last real token, and positions that skip padding do so. PEFT hides the ids from the
  model, which then takes the last position, padding or not, and counts padding;
- ids of positions count as they are given where the graph has them as inputs. PEFT drops them
  behind a prompt, adds the length of a prefix to them, and never uses them for ``QUESTION_ANS``;
- token types are used where the graph has them as inputs. PEFT drops them for ``QUESTION_ANS``, and
  beside prompts and prefixes also for tasks that generate and ``FEATURE_EXTRACTION``.
"""

from __future__ import annotations

from graphprog.peft.reading import load
from graphprog.peft.writing import save

__all__ = ["load", "save"]
