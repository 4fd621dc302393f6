"""The gate's condition (4) by a chat model that is asked, per method, whether it is plausible for the problem.

The answer is not sampled: one forward pass over the question gives the probabilities of the first token of the reply,
and the score is P(yes) / (P(yes) + P(no)), each summed over its spellings. A tuple is as plausible as its least
plausible method. Answers are remembered by problem and method. The question is ours; the abstract has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from cppo_lib.data.problem import Problem
from cppo_lib.errors import ModelError
from cppo_lib.model import policy as models
from cppo_lib.model.decoding import by_length, padded
from cppo_lib.model.hf_engine import memory_errors
from cppo_lib.reward.gate_rules import THRESHOLD, Candidate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.replies import normalise

BATCH = 16  # questions asked side by side
SPELLINGS = {"yes": ("Yes", " Yes", "yes", " yes", "YES"), "no": ("No", " No", "no", " no", "NO")}


def question(method: str) -> str:
    """What the model is asked about one method, after the problem."""
    return (
        f"Somebody wants to solve it like this: {method}\n\nIs this a method that could plausibly solve this problem? "
        "Reply with one word, yes or no."
    )


class LLMGate:
    """Scores tuples by asking a frozen chat model; a `gate_rules.Scorer`.

    Args:
        name: a model folder or hub id.
        threshold: tau; a tuple with a score above it is accepted.

    Raises:
        ModelError: the model cannot be loaded, has no chat template, or has no tokens for yes and no.
    """

    def __init__(self, name: str, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        model, tokenizer = models.load_policy(name, dtype=models.sampling_dtype())
        self._model: Any = model.eval().requires_grad_(False)
        self._style = PromptStyle("instruct", tokenizer)
        if not tokenizer.chat_template:
            raise ModelError(f"gate_model {name!r} has no chat template, so it cannot be asked: name a chat model")
        self._pad_id = int(tokenizer.pad_token_id)
        self._tokens = answer_tokens(tokenizer)
        self._known: dict[tuple[str, str], float] = {}

    def to(self, device: torch.device) -> Self:
        """Move the weights; returns this gate."""
        self._model.to(device)
        return self

    def scores(self, candidates: Sequence[Candidate]) -> list[float]:
        """Per tuple the score of its least plausible method."""
        asked: dict[tuple[str, str], tuple[Problem, str]] = {}
        for candidate in candidates:
            for method in candidate.methods:
                asked.setdefault(_key(candidate.problem, method), (candidate.problem, method))
        if unknown := {key: asked[key] for key in asked if key not in self._known}:
            self._learn(unknown)
        return [min(self._known[_key(one.problem, method)] for method in one.methods) for one in candidates]

    def _learn(self, asked: dict[tuple[str, str], tuple[Problem, str]]) -> None:
        keys = list(asked)
        questions = [self._style.ask(problem, question(method)) for problem, method in asked.values()]
        rows = self._style.encode([text + self._style.no_thoughts for text in questions])
        for batch in by_length(rows, BATCH):
            ids, mask = padded([rows[i] for i in batch], self._pad_id, self._model.device)
            with torch.no_grad(), memory_errors("asking the gate's model: name a smaller gate_model"):
                logits = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1].float()
            yes, no = (logits[:, self._tokens[word]].logsumexp(dim=-1) for word in ("yes", "no"))
            for i, score in zip(batch, (yes - no).sigmoid().tolist(), strict=True):
                self._known[keys[i]] = score


def _key(problem: Problem, method: str) -> tuple[str, str]:
    return problem.id, normalise(method)


def answer_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """First tokens of the spellings of each answer, without those that both answers begin with.

    Raises:
        ModelError: none is left for one of the answers.
    """
    first = {
        word: {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts}
        for word, texts in SPELLINGS.items()
    }
    found = {"yes": sorted(first["yes"] - first["no"]), "no": sorted(first["no"] - first["yes"])}
    if not (found["yes"] and found["no"]):
        raise ModelError("the gate's model does not tell yes from no by their first tokens: name another gate_model")
    return found
