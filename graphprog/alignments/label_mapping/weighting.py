"""Weights of source classes for target classes, from counts by Bayes' rule."""

from __future__ import annotations

import torch

from graphprog.alignments.label_mapping.matching import check_counts


def bayesian_weights(counts: torch.Tensor, smoothing: float = 1.0) -> torch.Tensor:
    """Estimate column-normalized, smoothed p(target | source) (BLM; arXiv:2410.24018).

    With d the counts: a[s, t] = d[s, t] / (sum over t' of d[s, t'] + smoothing), and the weights
    are a[s, t] / (sum over s' of a[s', t]). A target class without any count has equal weights for
    all source classes.

    Args:
        counts: [K_S, K_T], not negative.
        smoothing: Laplace's lambda, not negative; discounts rarely predicted source classes.

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
