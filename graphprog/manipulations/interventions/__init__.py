"""Interventions: manipulations that say what a value does, by taking it away or exchanging it.

Ablation, exchange with the value of another run, edits of a linear subspace, and vectors that are
added only where a probe fires. Finding what to intervene with belongs in
:mod:`graphprog.instruments`.
"""

from __future__ import annotations
