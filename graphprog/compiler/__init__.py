"""From a graph and a program to a model whose only trainable parameters are the program."""

from __future__ import annotations
