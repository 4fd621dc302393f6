"""The order in which training sees the problems, and micro-batches without waste.

`compact` regroups the rows of a generation batch so that the loss stays the same. With TRL's token-mean (`dapo`) loss
and one on-policy update, a row enters the loss through the product of its advantage and its policy ratio, which is 1
with a gradient that is linear in the advantage, and through its KL term where there is one. So rows of equal tokens can
be run once with their advantages added (with a KL term: their weights added and their advantages averaged by these),
rows of zero advantage (with a KL term: of zero weight) can be left out, and the order of rows does not matter. How many
rows are left is logged as `kept_rows`.

Rows with a `role` are of a planner or a solver with an adapter of its own: no micro-batch mixes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import RepeatSampler


class ResumableOrder(RepeatSampler):
    """TRL's sampler, with the permutation of an epoch found from the seed and the epoch's number.

    TRL's own draws one permutation per epoch from a generator that no checkpoint holds, so a run that is resumed in
    its second epoch would see the first one's order again. The orders themselves are TRL's.
    """

    def set_epoch(self, epoch: int) -> None:
        """Continue with the permutation of `epoch`, from 0; the trainer calls this before it iterates."""
        assert self.seed is not None  # TRL passes the run's own
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            torch.randperm(self.num_samples, generator=self.generator)


def compact(chunks: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Regroup a generation batch: merge equal rows, drop rows of zero advantage, sort by length, trim padding.

    Args:
        chunks: TRL's micro-batches of one generation batch; their rows are concatenated and dealt out again. Where they
            have `row_weight`, it weighs a row's KL term and its advantage alike; else the advantage is all there is.

    Returns:
        As many micro-batches as came in, whose summed `dapo` loss equals that of the input, and how many rows hold a
        signal. Where there are fewer of these than micro-batches, rows of two tokens and zero advantage fill in, so
        that every process still makes the same forward and backward passes, at next to no cost.
    """
    keys = [key for key, value in chunks[0].items() if isinstance(value, Tensor) and value.ndim > 0]
    rows = {key: torch.cat([chunk[key] for chunk in chunks]) for key in keys}
    texts = torch.cat(
        [rows["prompt_ids"], rows["prompt_mask"], rows["completion_ids"], rows["completion_mask"]],
        dim=1,
    )
    _, owner = torch.unique(texts, dim=0, return_inverse=True)
    distinct = torch.zeros(int(owner.max()) + 1, dtype=rows["advantages"].dtype, device=owner.device)
    weights = rows.get("row_weight", torch.ones_like(rows["advantages"]))
    pull = distinct.index_add(0, owner, weights * rows["advantages"])
    weight = distinct.index_add(0, owner, weights)
    first = torch.full_like(distinct, len(owner), dtype=torch.long)
    first = first.scatter_reduce(0, owner, torch.arange(len(owner), device=owner.device), "amin")
    # A sum that should be zero can miss it by rounding; such a row still carries no signal.
    signals = pull.abs() > 1e-6 * rows["advantages"].abs().max().clamp(min=1e-30)
    kept = first[weight > 0 if "row_weight" in rows else signals]
    signal, missing = len(kept), max(0, len(chunks) - len(kept))
    merged = {key: value[torch.cat([kept, first[:1].repeat(missing)])] for key, value in rows.items()}
    merged["advantages"] = torch.cat([pull[owner[kept]], pull.new_zeros(missing)])
    if "row_weight" in rows:
        merged["row_weight"] = torch.cat([weight[owner[kept]], weight.new_zeros(missing)])
        merged["advantages"][:signal] /= merged["row_weight"][:signal]
    merged["prompt_mask"][signal:, :-1] = 0  # prompts end, and completions begin, beside each other
    merged["completion_mask"][signal:, 1:] = 0
    order = torch.argsort(merged["prompt_mask"].sum(1) + merged["completion_mask"].sum(1), stable=True)
    parts = [_trim({key: value[part] for key, value in merged.items()}) for part in _deal(order, merged, len(chunks))]
    shared = {key: value for key, value in chunks[0].items() if key not in keys}
    return [{**shared, **part} for part in parts], signal


def _deal(order: Tensor, rows: dict[str, Tensor], parts: int) -> list[Tensor]:
    """Deal the rows out in this order: so many parts of about equal size, each of one role."""
    roles = rows["role"][order] if "role" in rows else torch.zeros_like(order)
    piles = [order[roles == role] for role in roles.unique()]
    if len(piles) == 1:
        return list(torch.tensor_split(order, parts))
    first = min(max(round(parts * len(piles[0]) / len(order)), 1), parts - 1)
    return [*torch.tensor_split(piles[0], first), *torch.tensor_split(piles[1], parts - first)]


def _trim(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut the padding columns that no row of the micro-batch needs: prompts on the left, completions on the right."""
    prompt = int(rows["prompt_mask"].sum(1).max())
    width, completion = rows["completion_mask"].shape[1], int(rows["completion_mask"].sum(1).max())
    trimmed = dict(rows)
    for key, value in rows.items():
        if key in ("prompt_ids", "prompt_mask"):
            trimmed[key] = value[:, value.shape[1] - prompt :]
        elif value.ndim > 1 and value.shape[1] == width:
            trimmed[key] = value[:, :completion]
    return trimmed
