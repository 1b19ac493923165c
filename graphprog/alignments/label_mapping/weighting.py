"""Weights of source classes for target classes, by Bayes' rule from counts."""

from __future__ import annotations

import torch

from graphprog.alignments.label_mapping.matching import check_counts


def bayesian_weights(counts: torch.Tensor, smoothing: float = 1.0) -> torch.Tensor:
    """Column-normalized, smoothed estimates of p(target | source) (BLM; arXiv:2410.24018).

    With d the counts: a[s, t] = d[s, t] / (sum over t' of d[s, t'] + smoothing), and the weights
    are a[s, t] / (sum over s' of a[s', t]). A target class without any count is given every
    source class equally.

    Args:
        counts: [K_S, K_T], not negative.
        smoothing: Laplace's lambda, not negative; discounts source classes seldom predicted.

    Returns:
        float64 [K_S, K_T] on the CPU; every column sums to 1.

    Raises:
        DataError: counts of another rank, negative, not finite, or all zero.
    """
    exact = check_counts(counts)
    mass = exact.sum(1, keepdim=True) + smoothing
    shares = torch.where(exact > 0, exact / mass, 0.0)
    total = shares.sum(0, keepdim=True)
    return torch.where(total > 0, shares / total, 1.0 / exact.shape[0])
