"""Key-value cache, attention and one step for decoding many sequences side by side.

At each step transformers' dynamic cache copies all that it holds to append one token, and its attention repeats keys
and values for every query head of a group wherever there is a padding mask. Both copies grow with batch and length and
soon cost more than the model itself. Here the cache keeps room for what is to come, and the query heads of a group are
laid out as queries of one head, which is the same sum.

A step takes a token for every sequence of the batch to the logits of the next one. On a CPU it costs what it computes,
so the cache grows with the tokens and ended sequences leave the batch. On a GPU a step of a small model is thousands of
kernels of a few microseconds each, and the GPU waits for Python to launch them. There the step is captured once as a
CUDA graph and replayed, which takes one launch; for that all tensors stay where they are, so the cache has its final
size from the start and ended sequences stay in the batch.
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
CAPTURED_ATTENTION = ("sdpa", GROUPED)
"""Attention that reads a mask of true and false as it is meant; the eager one adds the mask to its scores."""
RESCALED_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that look at the places before they compute, which cannot be captured."""
ALIGNED = 8
"""Cache lengths are multiples of it: fused attention wants masks whose rows begin at such places."""


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


def capturable(model: PreTrainedModel) -> bool:
    """Whether `FixedStep` computes what the model does; its cache must be of layers that attend to everything, too."""
    config = model.config.get_text_config()
    rope = str(getattr(config, "rope_parameters", None))
    return config._attn_implementation in CAPTURED_ATTENTION and not any(kind in rope for kind in RESCALED_ROPE)


class GrowingStep:
    """A step over a cache that grows.

    Args:
        model: a causal language model.
        cache: holds the prompts.
        mask: (B, P), 1 where the cache holds a token and 0 where it holds padding.
    """

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask: Tensor) -> None:
        self.model, self.cache, self.mask = model, cache, mask
        self.places = mask.sum(dim=-1, keepdim=True)  # (B, 1)

    def keep(self, kept: Tensor) -> None:
        """Make these sequences (indices) the batch."""
        keep_sequences(self.cache, kept)
        self.mask, self.places = self.mask[kept], self.places[kept]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after the tokens (B,)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        asked: dict[str, Any] = {"attention_mask": self.mask, "position_ids": self.places}
        answer = self.model(input_ids=tokens.unsqueeze(-1), past_key_values=self.cache, use_cache=True, **asked)
        self.places = self.places + 1
        logits: Tensor = answer.logits[:, -1]
        return logits


class FixedLayer(DynamicLayer):
    """One layer's keys and values (B, H, L, D) at their final length; new ones go to the column `column` (1,)."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.column = keys, values, column

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write and return everything, empty columns included: the attention mask leaves those out."""
        assert self.keys is not None and self.values is not None
        self.keys.index_copy_(-2, self.column, key_states)
        self.values.index_copy_(-2, self.column, value_states)
        return self.keys, self.values


class FixedStep:
    """A step over a cache of fixed length, captured as a CUDA graph on a GPU.

    Args:
        model: a causal language model that is `capturable`, whose layers all attend to everything.
        cache: holds the prompts; its layers are replaced.
        mask: (B, P), 1 where the cache holds a token and 0 where it holds padding.
        steps: how many tokens may follow.
    """

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask: Tensor, steps: int) -> None:
        width = mask.shape[1]
        room = steps + -(width + steps) % ALIGNED
        self.model, self.cache = model, cache
        self.column = torch.tensor([width], device=mask.device)
        for number, layer in enumerate(cache.layers):
            held: Any = layer
            keys, values = (pad(part, (0, 0, 0, room)) for part in (held.keys, held.values))
            cache.layers[number] = FixedLayer(keys, values, self.column)
        self.mask = pad(mask, (0, room)).bool()[:, None, None]  # (B, 1, 1, L): as attention takes it
        self.places = mask.sum(dim=-1, keepdim=True)  # (B, 1)
        self.tokens = torch.zeros_like(self.places)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after the tokens (B,); on a GPU the next call overwrites them."""
        self.tokens.copy_(tokens.unsqueeze(-1))
        self.mask.index_fill_(-1, self.column, True)
        logits = self._replayed() if self.mask.is_cuda else self._forward()
        self.column += 1
        self.places += 1
        return logits

    def _forward(self) -> Tensor:
        asked: dict[str, Any] = {"attention_mask": self.mask, "position_ids": self.places}
        return self.model(input_ids=self.tokens, past_key_values=self.cache, use_cache=True, **asked).logits[:, -1]

    def _replayed(self) -> Tensor:
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            beside: Any = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):  # libraries set themselves up at a first call, which cannot be captured
                self._forward()
            torch.cuda.current_stream().wait_stream(beside)
            # Other threads, such as those that pin memory, may go on calling CUDA meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._logits = self._forward()
        assert self._logits is not None  # set by the capture
        self._graph.replay()
        return self._logits
