"""The gate's condition (4) by a language model with weights psi that was trained to answer in one word.

The model reads a problem, a tuple of methods and an answer marker. The score is the softmax over the logits of two
answer words at the last token, p = P(pass) / (P(pass) + P(fail)): a verbaliser (Schick and Schuetze 2021), as in the
authors' gate (Li et al. 2026, authors' code at 8e5ea8a4). It is read as plain text, also where the model has a chat
template, since theirs is a base model. The wording is ours and meets the contract of theirs; the tiny model, which
reads no English, gets the planner's prompt and answers `P` or `F`, tokens that every byte-level vocabulary has.

`cppo_lib.trainer.gate_training` trains it; during RL it is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cppo_lib.errors import ModelError
from cppo_lib.model import policy as models
from cppo_lib.model.decoding import by_length, padded
from cppo_lib.model.hf_engine import memory_errors
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.plans import render_tuple
from cppo_lib.rollout.prompts import StyleName

BATCH = 32  # tuples read side by side
RUBRIC = """\
A programming problem and a plan for it are given. The plan is a list of methods, each in one to three sentences. \
Every method will be handed, alone, to somebody who writes one program with it.
The plan passes if each method is by itself a way to solve this very problem and names something concrete to build on, \
such as a state, an invariant, a key to sort by or a structure to keep. Two methods may be related where the \
programs would differ in how they work, what they cost or when they go wrong.
The plan fails if any method is filler; is so generic that it suits every problem; solves another task; relies on \
something that the problem does not promise; would lead to the same program as another method; is one step of a \
walk-through that needs the other steps; or gives the answer away."""


@dataclass(frozen=True)
class Wording:
    """The text around a problem and a plan of k methods, and the answers (fail, pass) that may follow `marker`."""

    head: str
    between: str
    marker: str
    answers: tuple[str, str]


PLAIN = Wording(f"{RUBRIC}\n\nProblem:\n", "\n\nPlan:\n", "\n\nVerdict (Pass or Fail):", (" Fail", " Pass"))
BRIEF = Wording("", "\n{k} methods: ", "\nvalid?\n", ("F", "P"))


class Verbaliser:
    """The question to a model about a tuple, and how its answer is read.

    Args:
        tokenizer: the model's.
        style: `brief` for the tiny model; the other styles share one wording.
        max_length: tokens of the longest question.

    Raises:
        ModelError: an answer is not one token of its own after the marker.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: StyleName, max_length: int) -> None:
        self.tokenizer, self._max_length = tokenizer, max_length
        self._words = BRIEF if style == "brief" else PLAIN
        self._pad_id = int(tokenizer.pad_token_id)
        self._answers = [answer_token(tokenizer, self._words.marker, word) for word in self._words.answers]

    def encode(self, candidates: Sequence[Candidate]) -> list[list[int]]:
        """Token ids of the questions, the marker last. One that is too long loses the end of its plan, then of its
        problem.

        Raises ModelError where `max_length` does not even hold the words around them.
        """
        parts = [
            (
                self._words.head,
                one.problem.statement,
                self._words.between.format(k=len(one.methods)),
                render_tuple(one.methods),
                self._words.marker,
            )
            for one in candidates
        ]
        rows = self.tokenizer(list(map("".join, parts)), add_special_tokens=False)["input_ids"] if parts else []
        return [
            list(row) if len(row) <= self._max_length else self._cut(each)
            for row, each in zip(rows, parts, strict=True)
        ]

    def _cut(self, parts: tuple[str, ...]) -> list[int]:
        read = self.tokenizer("".join(parts), add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(read["input_ids"]), read["offset_mapping"]
        dropped: set[int] = set()
        for part in (3, 1):  # the plan, then the problem
            start = len("".join(parts[:part]))
            end = start + len(parts[part])
            inside = [i for i, (first, last) in enumerate(offsets) if start <= first and last <= end]
            excess = len(ids) - len(dropped) - self._max_length
            dropped |= set(inside[max(0, len(inside) - excess) :])
        kept = [token for i, token in enumerate(ids) if i not in dropped]
        if len(kept) > self._max_length:
            raise ModelError(
                f"max_length={self._max_length}, and the gate's question takes {len(kept)} tokens without problem and "
                "plan: raise it"
            )
        return kept

    def batch(self, rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Token ids and mask of questions, both (rows, longest), padded on the left: the marker is last in each."""
        return padded(rows, self._pad_id, device)

    def logits(self, model: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, 2) of fail and pass after the last token of the questions (B, T)."""
        read = model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False).logits
        return read[:, -1, self._answers].float()

    @torch.no_grad()
    def scores(self, model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
        """p of each encoded question, in [0, 1]; questions of about one length are read side by side."""
        found = [0.0] * len(rows)
        for batch in by_length(rows, BATCH):
            ids, mask = self.batch([rows[i] for i in batch], model.device)
            chances = self.logits(model, ids, mask).softmax(dim=-1)[:, 1]
            for i, score in zip(batch, chances.tolist(), strict=True):
                found[i] = score
        return found


def answer_token(tokenizer: PreTrainedTokenizerBase, marker: str, word: str) -> int:
    """The one token that `word` is after a question.

    Raises:
        ModelError: it is several tokens, or changes those before it.
    """
    before, after = tokenizer([f"Plan:\n1. a{marker}", f"Plan:\n1. a{marker}{word}"], add_special_tokens=False)[
        "input_ids"
    ]
    if list(after[:-1]) != list(before):
        raise ModelError(
            f"the gate's answer {word!r} is not one token of its own after {marker.strip()!r} in the tokenizer of its "
            "model: name another base_model"
        )
    return int(after[-1])


class VerbaliserGate:
    """Scores tuples with a trained gate; a `gate_rules.Scorer`.

    Args:
        folder: what `gate_training.train_gate` has saved.
        style: of its questions, and `max_length` of these in tokens, as it was trained with.
        threshold: tau; a tuple with a score above it is accepted.

    Raises:
        ModelError: the folder does not hold a language model.
    """

    def __init__(self, folder: Path, style: StyleName, max_length: int, threshold: float) -> None:
        model, tokenizer = models.load_policy(folder, dtype=models.sampling_dtype())
        self._model: Any = model.eval().requires_grad_(False)
        self._verbaliser = Verbaliser(tokenizer, style, max_length)
        self.threshold = threshold

    def to(self, device: torch.device) -> Self:
        """Move the weights; returns this gate."""
        self._model.to(device)
        return self

    def scores(self, candidates: Sequence[Candidate]) -> list[float]:
        """How likely each tuple is valid."""
        with memory_errors("scoring with the gate: name a smaller base_model in 02b_gate"):
            return self._verbaliser.scores(self._model, self._verbaliser.encode(candidates))
