"""The gate's question: answers are one token each, a long one keeps its marker, the score is a softmax of two."""

from __future__ import annotations

import math
from pathlib import Path

import gate_world
import pytest
import small_policy
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cppo_lib.errors import ModelError
from cppo_lib.model import policy as model
from cppo_lib.reward.gate_quality import examples
from cppo_lib.reward.gate_verbaliser import BRIEF, PLAIN, RUBRIC, Verbaliser, answer_token
from cppo_lib.rollout.prompts import render_tuple


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_policy.save(tmp_path_factory.mktemp("policy") / "tiny", steps=2)


@pytest.fixture(scope="module")
def tokenizer(start):
    return model.load_tokenizer(start)


def byte_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """One token for each byte, and one for each merge."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*letters, *("".join(pair) for pair in merges), "<|end|>"])}
    made = Tokenizer(models.BPE(vocab, list(merges)))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(False, use_regex=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>")


def test_each_answer_is_one_token_of_the_tiny_model_and_adds_none(start, tokenizer):
    policy, _ = model.load_policy(start)
    found = {word: answer_token(tokenizer, BRIEF.marker, word) for word in BRIEF.answers}
    assert {word: tokenizer.decode([token]) for word, token in found.items()} == {"P": "P", "F": "F"}
    assert len(set(found.values())) == 2 and policy.config.vocab_size == len(tokenizer)


def test_an_answer_that_is_not_one_clean_token_is_refused_by_name(tokenizer):
    with pytest.raises(ModelError, match=r"the gate's answer ' Fail' is not one token of its own after 'Verdict"):
        Verbaliser(tokenizer, "instruct", 1024)
    # `:P` is one token, so that the answer changes the last token of the marker.
    assert answer_token(byte_tokenizer(), "x:", "P") != answer_token(byte_tokenizer(), "x:", "F")
    with pytest.raises(ModelError, match="'P' is not one token of its own after 'x:'"):
        answer_token(byte_tokenizer((":", "P")), "x:", "P")


def test_a_question_that_is_too_long_loses_its_plan_then_its_problem_and_never_its_marker(tokenizer):
    candidate = gate_world.tuples()[0]
    whole = Verbaliser(tokenizer, "brief", 512).encode([candidate])[0]
    problem, plan = candidate.problem.statement, render_tuple(candidate.methods)
    between = BRIEF.between.format(k=4)
    assert tokenizer.decode(whole) == problem + between + plan + BRIEF.marker
    frame = len(tokenizer(between)["input_ids"]) + len(tokenizer(BRIEF.marker)["input_ids"])
    for size in range(frame, len(whole) + 2):
        cut = Verbaliser(tokenizer, "brief", size).encode([candidate])[0]
        assert len(cut) == min(size, len(whole))
        text = tokenizer.decode(cut)
        assert text.endswith(BRIEF.marker) and between in text
        kept_problem, _, kept_plan = text.removesuffix(BRIEF.marker).partition(between)
        assert problem.startswith(kept_problem) and plan.startswith(kept_plan)
        assert kept_problem == problem or not kept_plan, "problem tokens go when no plan token is left"
    with pytest.raises(ModelError, match=rf"max_length={frame - 1}, and the gate's question takes {frame} tokens"):
        Verbaliser(tokenizer, "brief", frame - 1).encode([candidate])


def test_a_model_with_a_chat_template_reads_plain_text():
    made = byte_tokenizer(*((word[:n], word[n]) for word in ("ĠFail", "ĠPass") for n in range(1, 5)))
    made.chat_template = "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}"
    candidate = gate_world.tuples()[0]
    (ids,) = Verbaliser(made, "instruct", 4096).encode([candidate])
    text = made.decode(ids)
    assert text.startswith(RUBRIC) and text.endswith(PLAIN.marker) and "<user>" not in text
    assert candidate.problem.statement in text and render_tuple(candidate.methods) in text


def test_the_score_is_the_softmax_of_two_logits_at_the_last_token(start, tokenizer):
    policy, _ = model.load_policy(start)
    verbaliser = Verbaliser(tokenizer, "brief", 512)
    rows = verbaliser.encode([one.candidate for one in examples(gate_world.tuples(), seed=0)[:7]])
    scores = verbaliser.scores(policy.eval(), rows)
    for row, score in zip(rows, scores, strict=True):
        with torch.no_grad():
            logits = policy(torch.tensor([row])).logits[0, -1]
        failed, passed = (math.exp(logits[answer_token(tokenizer, BRIEF.marker, word)]) for word in "FP")
        assert score == pytest.approx(passed / (passed + failed), abs=1e-5)
