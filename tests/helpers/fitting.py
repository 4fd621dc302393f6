"""A few steps of plain language modelling, so that a tiny policy writes something that can pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def fit(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    steps: int,
    batches: int,
) -> PreTrainedModel:
    """Take Adam steps on the texts, which are dealt out to so many batches, and return the policy."""
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for step in range(steps):
        batch = tokenizer(list(texts[step % batches :: batches]), return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        policy(**batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return policy
