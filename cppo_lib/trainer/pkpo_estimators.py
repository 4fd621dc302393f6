"""Estimators of max@k and of its gradient (PKPO, Walder and Karkhanis 2025, 2505.15201).

All work on the last axis, n samples of one problem, and are linear in the rewards sorted in ascending order: what a
sample adds to the best of k depends on its rank. Binary and continuous rewards. `advantages` makes rules of them.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

from cppo_lib.errors import ParameterError

if TYPE_CHECKING:  # alone, as in `advantages`
    from torch import Tensor


def max_at_k(rewards: Tensor, *, k: int) -> Tensor:
    """rho of PKPO (Eq. 12): mean over all k-subsets of the subset's maximum; (..., n) -> (...).

    For binary rewards this is the unbiased pass@k estimator 1 - C(n-c, k) / C(n, k).
    """
    rewards = checked(rewards, at_least=k, rule="pkpo")
    n = rewards.shape[-1]
    weights = rewards.new_tensor([comb(i, k - 1) / comb(n, k) for i in range(n)])
    return (rewards.sort(dim=-1).values * weights).sum(dim=-1)


def subset_credit(rewards: Tensor, *, k: int) -> Tensor:
    """s of PKPO (Eq. 19): (1 / C(n,k)) * sum over k-subsets I that contain i of max_I; (..., n)."""
    rewards = checked(rewards, at_least=k, rule="pkpo")
    return _on_sorted(rewards, _subset_matrix(rewards, k))


def leave_one_out(rewards: Tensor, *, k: int) -> Tensor:
    """s^(loo) of PKPO (Eq. 29): s_i - k/(n-1) * rho of the others; (..., n), needs k <= n-1."""
    rewards = checked(rewards, at_least=k + 1, rule="pkpo_loo")
    n = rewards.shape[-1]
    share = [comb(i, k - 1) / comb(n - 1, k) for i in range(n - 1)]  # rho's weights on n-1 others
    others = [[0.0 if j == i else share[j - (j > i)] for j in range(n)] for i in range(n)]
    baseline = rewards.double().new_tensor(others) * (k / (n - 1))
    return _on_sorted(rewards, _subset_matrix(rewards, k) - baseline)


def leave_one_out_minus_one(rewards: Tensor, *, k: int) -> Tensor:
    """s^(loo-1) of PKPO (Eq. 33): mean over k-subsets of what i adds to the maximum; (..., n).

    Only subsets in which i is the largest count, and with rewards sorted that is
    sum_{j < i} C(j-1, k-2) (r_i - r_j) / C(n, k). Differences are taken first, so that samples that
    add nothing get exactly 0. At k = 1 nothing is left to compare with: the estimator is r_i / n.
    """
    rewards = checked(rewards, at_least=k, rule="pkpo")
    n = rewards.shape[-1]
    if k == 1:
        return rewards / n
    ordered, order = rewards.sort(dim=-1)
    weights = ordered.new_tensor([comb(j, k - 2) / comb(n, k) for j in range(n)])
    gains = (ordered.unsqueeze(-1) - ordered.unsqueeze(-2)).tril(-1)  # (..., i, j): r_i - r_j, j < i
    return rewards.new_empty(rewards.shape).scatter_(-1, order, (gains * weights).sum(dim=-1))


def _subset_matrix(rewards: Tensor, k: int) -> Tensor:
    """Matrix of s on ascending rewards: the maximum of a subset is its own highest member."""
    n = rewards.shape[-1]
    own = [comb(i, k - 1) for i in range(n)]
    above = [comb(j - 1, k - 2) if j and k > 1 else 0 for j in range(n)]
    rows = [[own[i] if j == i else above[j] if j > i else 0 for j in range(n)] for i in range(n)]
    return rewards.double().new_tensor(rows) / comb(n, k)


def _on_sorted(rewards: Tensor, matrix: Tensor) -> Tensor:
    """Apply an (n, n) matrix to ascending rewards; results in the order of the samples."""
    ordered, order = rewards.sort(dim=-1)
    values = ordered @ matrix.to(rewards).T
    return rewards.new_empty(rewards.shape).scatter_(-1, order, values)


def checked(rewards: Tensor, *, rule: str, at_least: int = 1) -> Tensor:
    """Rewards as floats (a float type is kept); ParameterError if the group is too small."""
    size = rewards.shape[-1] if rewards.ndim else 0
    if size < at_least:
        need = f"{rule} needs groups of at least {at_least} samples"
        raise ParameterError(f"{need}, got {size}: raise group_size or lower k")
    if not rewards.is_floating_point():
        return rewards * 1.0  # in torch's default type
    if not rewards.isfinite().all():
        raise ParameterError(f"{rule} got rewards that are not finite: every row needs a reward")
    return rewards
