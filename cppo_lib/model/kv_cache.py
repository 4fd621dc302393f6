"""Key-value cache and attention for decoding many sequences side by side.

At each step transformers' dynamic cache copies all that it holds to append one token, and its attention repeats keys
and values for every query head of a group wherever there is a padding mask. Both copies grow with batch and length and
soon cost more than the model itself. Here the cache keeps room for what is to come, and the query heads of a group are
laid out as queries of one head, which is the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROOM = 64
"""Tokens that a layer makes room for at a time."""
GROUPED = "grouped_sdpa"


class GrowingLayer(DynamicLayer):
    """One layer's keys and values (B, H, L, D), as the first L places of larger tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append and return everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None  # since the initialization
        before, after = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < after:
            room = after + ROOM
            self._room = _enlarged(self.keys, key_states, room), _enlarged(self.values, value_states, room)
        for part, new in zip(self._room, (key_states, value_states), strict=True):
            part[..., before:after, :] = new
        self.keys, self.values = (part[..., :after, :] for part in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences of the batch."""
        super().batch_select_indices(indices)
        self._room = None


def _enlarged(old: Tensor, new: Tensor, length: int) -> Tensor:
    room = new.new_empty((*new.shape[:-2], length, new.shape[-1]))
    if old.numel():
        room[..., : old.shape[-2], :] = old
    return room


def growing_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for the model: growing layers where it attends to everything, its own kind elsewhere."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def keep_sequences(cache: DynamicCache, indices: Tensor) -> None:
    """Make these sequences of the batch, in this order and possibly repeated, all that the cache holds.

    Layers of linear attention (Qwen3.5) hold a state instead of keys and values, which they can only reorder; that
    is a selection too.
    """
    for layer in cache.layers:
        select: Any = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
        select(indices)


def join_left(cache: DynamicCache, parts: Sequence[DynamicCache], order: Tensor) -> None:
    """Fill an empty cache with those of the parts, one below the other and then in this order.

    Shorter ones get empty places on the left, which the attention mask has to leave out. All layers are growing ones.
    """
    width = max(part.get_seq_length() for part in parts)

    def joined(held: list[Any]) -> Tensor:
        return torch.cat([pad(one, (0, 0, width - one.shape[-2], 0)) for one in held])[order]

    for number, whole in enumerate(cache.layers):
        layers: list[Any] = [part.layers[number] for part in parts]
        layer: Any = whole
        layer.update(joined([one.keys for one in layers]), joined([one.values for one in layers]))


def grouped_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`sdpa`, but for one query (B, H, 1, D) over fewer key heads (B, H / G, L, D) without repeating those."""
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] != 1 or groups == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    queries = query.reshape(query.shape[0], key.shape[1], groups, query.shape[-1])
    found = torch.nn.functional.scaled_dot_product_attention(
        queries, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return found.reshape(query.shape[0], 1, query.shape[1], value.shape[-1]), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)


def group_heads(model: PreTrainedModel) -> None:
    """Let a model that uses `sdpa` attend by groups of heads."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(GROUPED)
