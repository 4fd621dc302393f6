"""Sampling with `transformers` for evaluation: the `Generate` of `cppo_lib.rollout.two_stage` over one model.

Tokens are drawn from softmax(logits / temperature), cut to the `top_k` likeliest and the nucleus of mass `top_p`, and
from nothing else: what a model folder suggests for its own use (another cut, a repetition penalty) is not looked at,
because the policy that is scored must be the distribution that RL trained. Prompts are batched by length with padding
on the left, and come back in the order they were given.

A completion's random numbers follow from the engine's seed and the completion's place (`cppo_lib.model.engine`), not
from the batch size, the other prompts or the calls before, and never from torch's global generator, which is left as it
was. What is drawn with them is the same, too, up to the rounding of the logits, which does depend on the neighbours:
see docs/draws.md, which also says how often that shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from cppo_lib.artefacts.progress import log
from cppo_lib.errors import ModelError
from cppo_lib.model.decoding import Draw, by_length, sample, uniform
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.kv_cache import group_heads
from cppo_lib.model.policy import load_policy, out_of_memory, sampling_dtype

REPORT_S = 30.0  # seconds between progress lines


class HFEngine:
    """Completes prompts of token ids by sampling from a model, on the model's device.

    Args:
        model: a causal language model; put into evaluation mode.
        tokenizer: names the padding token and an end token beside those of the model.
        temperature: 1 samples from the model's own distribution, 0 takes the most likely token.
        top_p: nucleus mass; 1 keeps every token.
        batch_size: sequences generated side by side.
        seed: root of every draw; engines of different seeds are independent.
        top_k: so many likeliest tokens are kept before the nucleus; 0: all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float,
        top_p: float,
        batch_size: int,
        seed: int,
        top_k: int = 0,
    ) -> None:
        self.model = model.eval()
        group_heads(self.model)
        self.batch_size = batch_size
        self.seed = seed
        self.end_ids = end_ids(model, tokenizer)
        self.pad_id = self.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        text_config = model.config.get_text_config()
        self.context = getattr(text_config, "max_position_embeddings", None)
        self.draw = Draw(temperature, top_p, top_k)

    def generate(
        self,
        prompt_ids: list[list[int]],
        max_new_tokens: int,
        places: Sequence[Place] | None = None,
        temperature: float | None = None,
        also_end: Sequence[int] = (),
    ) -> list[Completion]:
        """One completion per prompt, in order, cut after its first end token (which is included).

        `places`: what each is drawn with; None: the prompt's number in the call, so that a call repeated is the same.
        `temperature`: of this call; None: the engine's own. `also_end`: tokens that end a completion in this call.

        Raises:
            ModelError: a prompt that leaves no room for `max_new_tokens` in the model's context, or no memory.
        """
        check_lengths(prompt_ids, max_new_tokens, self.context)
        progress = Progress(len(prompt_ids))
        draw = self.draw if temperature is None else replace(self.draw, temperature=temperature)
        completions: list[list[int]] = [[] for _ in prompt_ids]
        roots = rooted(self.seed, prompt_ids, places)
        done = 0
        for batch in by_length(prompt_ids, self.batch_size):
            with memory_errors(f"generating {len(batch)} sequences side by side: lower batch_size"):
                rows = sample(
                    self.model,
                    [prompt_ids[i] for i in batch],
                    uniform([roots[i] for i in batch], max_new_tokens),
                    draw=draw,
                    end_ids=[*self.end_ids, *also_end],
                    pad_id=self.pad_id,
                    report=partial(progress.report, done),
                )
            for i, row in zip(batch, rows, strict=True):
                completions[i] = row
            done += len(batch)
        return [Completion(ids) for ids in completions]


@contextmanager
def opened(policy: str, **options: Any) -> Iterator[tuple[HFEngine, PreTrainedTokenizerBase]]:
    """The engine over a policy, see `engine.open_engine`."""
    with memory_errors(f"loading {policy}: free memory or name a smaller model"):
        model, tokenizer = load_policy(policy, dtype=sampling_dtype())
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps it without its type
    yield HFEngine(model, tokenizer, **options), tokenizer


class Progress:
    """A line now and then on how many of the `total` sequences of a call are there."""

    def __init__(self, total: int) -> None:
        self.total, self._reported = total, time.monotonic()

    def report(self, *done: int) -> None:
        """Say so, unless this was said a moment ago or the end is reached; several numbers are added up."""
        if sum(done) < self.total and time.monotonic() - self._reported > REPORT_S:
            self._reported = time.monotonic()
            log.info(f"  generated {sum(done)} of {self.total} sequences")


def check_lengths(prompt_ids: list[list[int]], max_new_tokens: int, context: int | None) -> None:
    """Make sure that every prompt leaves room for `max_new_tokens` in a context of so many tokens (None: no limit).

    Raises:
        ModelError: the longest prompt does not.
    """
    longest = max(map(len, prompt_ids), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise ModelError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the "
            f"model's context of {context}: lower max_plan_tokens or "
            "max_program_tokens, leave the problem out, or name another model"
        )


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Raise `ModelError("out of memory while <doing>")` where torch runs out of memory on a GPU or a CPU."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise ModelError(f"out of memory while {doing}") from error
        raise


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`end_tokens` of a loaded model."""
    return end_tokens(model.generation_config, tokenizer)


def end_tokens(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: those of the model's generation config and the one of its tokenizer.

    The latter is what TRL puts at the end of supervised completions, so a model whose files disagree (some converted
    ones do) ends with it once it is fine-tuned. TRL's trainer stops at both, too.

    Raises:
        ModelError: neither names one.
    """
    named = config.eos_token_id if config else None
    found = [named] if isinstance(named, int) else list(named or ())
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in found:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise ModelError("neither model nor tokenizer names an end token (eos_token_id)")
    return found


def rooted(seed: int, prompt_ids: list[list[int]], places: Sequence[Place] | None) -> list[Place]:
    """The places of a call's completions under an engine's seed; None: by the prompt's number in the call."""
    named = places or [(number,) for number in range(len(prompt_ids))]
    assert len(named) == len(prompt_ids)
    return [(seed, *place) for place in named]
