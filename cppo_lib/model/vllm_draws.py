"""Draws inside vLLM by place, as the engine `hf` makes them: a logits processor that `vllm_engine` names to vLLM.

vLLM is asked for greedy completions, and before it takes the most likely token, the token drawn here is made that one.
Its own random numbers are those of a step, or of a request's seed, which its CPU build does not follow; ours are those
of the place that a request names in `extra_args`, with the temperature and cuts of the call.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from cppo_lib.model.decoding import Draw, uniform

# Not there in the environment that types are checked in.
_vllm: Any = import_module("vllm.v1.sample.logits_processor")
_update: Any = import_module("vllm.v1.sample.logits_processor.builtin").process_dict_updates


class PlacedDraws(_vllm.LogitsProcessor):
    """Makes the drawn token the most likely one; its arguments are vLLM's."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.drawn: dict[int, tuple[Tensor, list[int], Draw]] = {}  # by row: its numbers, its tokens so far, the rule

    def is_argmax_invariant(self) -> bool:
        """No: it is what decides."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests that vLLM adds to the batch, moves in it and removes."""
        _update(self.drawn, batch_update, self._request)

    def _request(
        self, params: Any, prompt: list[int] | None, tokens: list[int]
    ) -> tuple[Tensor, list[int], Draw] | None:
        asked = params.extra_args or {}
        if "place" not in asked:
            return None
        numbers = uniform([tuple(asked["place"])], params.max_tokens)[0].to(self.device)
        return numbers, tokens, Draw(asked["temperature"], asked["top_p"], asked["top_k"])

    def apply(self, logits: Tensor) -> Tensor:
        """The logits (B, V), in which the token drawn for each row is the greatest."""
        if not self.drawn:
            return logits
        rows = sorted(self.drawn)
        held = [self.drawn[row] for row in rows]
        numbers = torch.stack([numbers[len(tokens)] for numbers, tokens, _ in held])
        chosen = torch.tensor(rows, device=logits.device)
        draw = held[0][2]  # all requests in the engine are of one call
        logits[chosen, draw(logits[chosen], numbers)] = torch.inf
        return logits
