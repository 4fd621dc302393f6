"""Sampling one batch of completions from a causal language model.

`generate()` of transformers does the same for any set of options. For ours alone three things can be had that it does
not offer, and that together make up most of the time with a large vocabulary (see speed/engines.py): what prompts
share (all of it where a problem is asked several times, the problem where K solvers get a method each) is read once and
its key-value cache is copied; sequences that have ended leave the batch; and the nucleus is cut from the most likely
tokens instead of sorting the whole vocabulary at every step. On a GPU the step itself is one launch (`kv_cache`).

Every sequence has random numbers of its own, a hash of its place (`engine.Place`), so that what is drawn for it depends
on its neighbours by the rounding of its logits alone. So that this shows rarely, a token is not drawn from the
cumulated probabilities of the vocabulary, each of which moves with any rounding before it, but by descent: which FAN-th
of the vocabulary, which FAN-th of that, and so on, each with a number of its own (docs/draws.md says what it is worth).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from cppo_lib.errors import ModelError
from cppo_lib.model.engine import Place
from cppo_lib.model.kv_cache import (
    FixedStep,
    GrowingLayer,
    GrowingStep,
    capturable,
    growing_cache,
    join_left,
    keep_sequences,
)

HEAD = 1024
"""Most likely tokens among which the nucleus is looked for first."""
CROWD = 8
"""Ended sequences leave the batch once they are at least one in CROWD: each departure copies the cache."""
SHARED = 0.5
"""Prompts that have at least this part of their tokens in common, from the first on, share the reading of these."""
PARTS = 4
"""Numbers that a token is drawn with."""
FAN = 32
"""Parts among which a step of a token's descent chooses: FAN ** PARTS tokens are more than a vocabulary has."""
WASTE = 1.7
"""Prompts are read by length where reading all at once would take so many times their own tokens, for the padding."""
SPREAD = 1.25
"""Those that are read together then: the longest has at most so many times the tokens of the shortest."""


def uniform(places: Sequence[Place], count: int) -> Tensor:
    """Numbers in [0, 1) for `count` tokens at each place, (places, count, PARTS) of float64.

    A greater count continues the numbers of a smaller one.
    """
    read = b"".join(hashlib.shake_128(repr(place).encode()).digest(4 * PARTS * count) for place in places)
    return torch.from_numpy(np.frombuffer(read, dtype="<u4").reshape(len(places), count, PARTS) * 2.0**-32)


@dataclass(frozen=True)
class Draw:
    """A rule that turns logits and uniform numbers into tokens.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token (the first of several).
        top_p: mass of the nucleus: the smallest set of most likely tokens that reaches it (Holtzman et al. 2020).
        top_k: so many most likely tokens are kept before the nucleus, whose mass is then counted among them, as by
            transformers' processors (which keep all that are as likely as the last one); 0: all.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0

    def __call__(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens (B,) from logits (B, V) and uniform numbers in [0, 1) (B, PARTS)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        scaled = logits.float() / self.temperature
        if self.top_k:
            values, tokens = scaled.topk(min(self.top_k, scaled.shape[-1]), dim=-1)
            return self._within(values, tokens, values.logsumexp(dim=-1, keepdim=True), uniform, scaled.shape[-1])
        if self.top_p >= 1:
            return _descend(scaled.softmax(dim=-1), uniform, scaled.shape[-1])
        total = scaled.logsumexp(dim=-1, keepdim=True)
        values, tokens = scaled.topk(min(HEAD, scaled.shape[-1]), dim=-1)
        if ((values - total).exp().sum(dim=-1) < self.top_p).any():
            values, tokens = scaled.sort(dim=-1, descending=True)
        return self._within(values, tokens, total, uniform, scaled.shape[-1])

    def _within(self, values: Tensor, tokens: Tensor, total: Tensor, uniform: Tensor, size: int) -> Tensor:
        """Tokens (B,) of the nucleus, which is looked for in `tokens` (B, N), the likeliest first, with these logits.

        `total`: (B, 1), logarithm of the mass that the nucleus is a part of; `size`: of the vocabulary.
        """
        p = (values - total).exp()
        before = p.cumsum(dim=-1) - p
        tokens, order = tokens.sort(dim=-1)
        return _descend(p.where(before < self.top_p, 0.0).gather(-1, order), uniform, size, tokens)


def _descend(p: Tensor, uniform: Tensor, size: int, tokens: Tensor | None = None) -> Tensor:
    """Tokens (B,) of a vocabulary of `size`, drawn with the weights p (B, N) and the numbers `uniform` (B, PARTS).

    `tokens`: which the weights are of (B, N), ascending; None: of all. What has no weight is never drawn.
    """
    cumulated = p.cumsum(dim=-1, dtype=torch.float64)
    depth = next(depth for depth in range(1, PARTS + 1) if FAN**depth >= size)
    first = torch.zeros(len(p), 1, dtype=torch.long, device=p.device)  # token of the part that the descent is in
    before = cumulated.new_zeros(len(p), 1)  # weight of the tokens before it
    for step in range(depth):
        width = FAN ** (depth - 1 - step)
        last = first + torch.arange(width - 1, FAN * width, width, device=p.device)  # tokens of the parts of the part
        at = last if tokens is None else torch.searchsorted(tokens, last, right=True) - 1
        upto = cumulated.gather(-1, at.clamp(min=0, max=p.shape[-1] - 1))
        if tokens is not None:
            upto = upto.where(at >= 0, 0.0)
        wanted = torch.lerp(before, upto[:, -1:], uniform[:, step : step + 1])
        passed = ((upto <= wanted) & (upto < upto[:, -1:])).sum(dim=-1, keepdim=True)
        before = upto.gather(-1, (passed - 1).clamp(min=0)).where(passed > 0, before)
        first = first + width * passed
    return first.squeeze(-1)


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    *,
    draw: Draw,
    end_ids: Sequence[int],
    pad_id: int,
    report: Callable[[int], None] = lambda ended: None,
) -> list[list[int]]:
    """One completion per prompt, with the token that ended it.

    Args:
        prompts: token ids; equal ones are read once.
        uniform: numbers in [0, 1), (B, T, PARTS) of float64: row b draws the at most T tokens of completion b.
        draw: how a token is drawn; end_ids: tokens that end a completion; pad_id: fills up short prompts on the left.
        report: told at each step how many completions have ended.

    Raises:
        ModelError: the model answers a prompt with what is no number, as one with broken weights does.
    """
    steps, uniform = uniform.shape[1], uniform.to(model.device)
    cache = growing_cache(model)
    logits, mask = _read(model, cache, prompts, pad_id)
    if logits.isnan().any():
        raise ModelError("the model's outputs are NaN, so its weights are broken: train it again or name another model")
    step = _step(model, cache, mask, steps)

    rows = list(range(len(prompts)))  # the completion that each sequence of the batch belongs to
    ends = torch.tensor(list(end_ids), device=model.device)
    going = torch.ones(len(rows), dtype=torch.bool, device=model.device)
    completions: list[list[int]] = [[] for _ in prompts]
    for number in range(steps):
        tokens = draw(logits, uniform[:, number])
        for row, token, alive in zip(rows, tokens.tolist(), going.tolist(), strict=True):
            if alive:
                completions[row].append(token)
        going &= ~torch.isin(tokens, ends)
        left = int(going.sum())
        report(len(prompts) - left)
        if not left or number == steps - 1:
            break
        if isinstance(step, GrowingStep) and (len(rows) - left) * CROWD >= len(rows):
            kept = going.nonzero().squeeze(-1)
            step.keep(kept)
            tokens, uniform, going = tokens[kept], uniform[kept], going[kept]
            rows = [rows[at] for at in kept.tolist()]
        logits = step(tokens)
    return completions


def _step(model: PreTrainedModel, cache: DynamicCache, mask: Tensor, steps: int) -> GrowingStep | FixedStep:
    if mask.is_cuda and _keeps_places(cache) and capturable(model):
        return FixedStep(model, cache, mask, steps)
    return GrowingStep(model, cache, mask)


def _read(
    model: PreTrainedModel, cache: DynamicCache, prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Fill the cache with the prompts; the logits after each of them (B, V) and the cache's mask (B, P)."""
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    # A state of linear attention has no places that a mask could leave out, so its padding can only come first.
    heads, owners = shared_heads(distinct) if _keeps_places(cache) else ([], [])
    if heads:
        _, mask = _begin(model, cache, heads, pad_id)
        chosen = torch.tensor(owners, device=model.device)
        keep_sequences(cache, chosen)
        tails = [row[len(heads[owner]) :] for row, owner in zip(distinct, owners, strict=True)]
        logits, mask = _append(model, cache, mask[chosen], tails, pad_id)
    else:
        logits, mask = _begin(model, cache, distinct, pad_id)
    copies = torch.tensor([distinct.index(tuple(prompt)) for prompt in prompts], device=model.device)
    keep_sequences(cache, copies)
    return logits[copies], mask[copies]


def _keeps_places(cache: DynamicCache) -> bool:
    return all(type(layer) is GrowingLayer for layer in cache.layers)


def _begin(
    model: PreTrainedModel, cache: DynamicCache, rows: Sequence[tuple[int, ...]], pad_id: int
) -> tuple[Tensor, Tensor]:
    """`_append` to an empty cache, by length where padding would be most of what is read."""
    parts = alike(rows) if _keeps_places(cache) else []
    if len(parts) < 2:
        return _append(model, cache, _unread(model, rows), rows, pad_id)
    caches, logits, masks = [], [], []
    width = max(map(len, rows))
    for part in parts:
        own, chosen = growing_cache(model), [rows[i] for i in part]
        last, mask = _append(model, own, _unread(model, chosen), chosen, pad_id)
        caches.append(own)
        logits.append(last)
        masks.append(pad(mask, (width - mask.shape[1], 0)))
    back = torch.tensor([i for part in parts for i in part], device=model.device).argsort()
    join_left(cache, caches, back)
    return torch.cat(logits)[back], torch.cat(masks)[back]


def _unread(model: PreTrainedModel, rows: Sequence[object]) -> Tensor:
    return torch.ones(len(rows), 0, dtype=torch.long, device=model.device)


def alike(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of the rows, shortest first, in parts that are worth reading one by one (see WASTE, SPREAD)."""
    [order] = by_length(rows, len(rows))
    if len(rows) * len(rows[order[-1]]) < WASTE * sum(map(len, rows)):
        return [order]
    parts = [[order[0]]]
    for i in order[1:]:
        if len(rows[i]) > SPREAD * len(rows[parts[-1][0]]):
            parts.append([])
        parts[-1].append(i)
    return parts


def _append(
    model: PreTrainedModel, cache: DynamicCache, mask: Tensor, rows: Sequence[tuple[int, ...]], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Read rows of tokens, padded on the left, behind what the cache holds; their last logits and the longer mask."""
    ids, new = padded(rows, pad_id, model.device)
    mask = torch.cat([mask, new], dim=-1)
    places = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    asked = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
    return model(input_ids=ids, **asked, use_cache=True, logits_to_keep=1).logits[:, -1], mask


def by_length(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Indices of the rows in batches of at most `size`, shortest rows first."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), list(rows[i])))
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of rows, both (rows, longest), padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def shared_heads(prompts: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Beginnings that several prompts share, and for each prompt which one is its own.

    Every prompt keeps at least its last token to itself. Empty where no two prompts share enough.
    """
    heads: list[tuple[int, ...]] = []
    owners = [0] * len(prompts)
    for place in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt = prompts[place]
        common = _common(heads[-1], prompt[:-1]) if heads else 0
        if heads and common >= SHARED * max(len(heads[-1]), len(prompt)):
            heads[-1] = prompt[:common]
        else:
            heads.append(prompt[:-1])
        owners[place] = len(heads) - 1
    return (heads, owners) if len(heads) < len(prompts) else ([], [])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts have in common from the first on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
