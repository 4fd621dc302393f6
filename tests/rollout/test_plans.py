"""Plans in labelled lines are read as the authors' code reads them, and a style asks for the format that it reads."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from released import named
from tokenizers.processors import TemplateProcessing

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import ModelError, ParameterError
from cppo_lib.model.tiny import build_tokenizer
from cppo_lib.reward.gate_rules import GateDecision, gate
from cppo_lib.rollout.plans import (
    LABELS,
    ParsedTuple,
    all_methods,
    is_canonical,
    parse_labelled,
    render_labelled,
)
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.trainer.sft_data import crossroads_rows, planned_tuples

SIZES = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1}
METHODS = ("sort and sweep", "a heap", "two pointers", "dp over prefixes")
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
UNREADABLE = ParsedTuple((), False)
STDIO = Problem("p", "own", "Add two numbers.", (Test("1 2\n", "3\n"),))


def style(name: str = "instruct", plan_format: str = "labelled") -> PromptStyle:
    tokenizer = build_tokenizer(["def f(x): return x"], 300)
    tokenizer.chat_template = CHAT if name in ("instruct", "fenced") else None
    return PromptStyle(name, tokenizer, plan_format=plan_format)  # type: ignore[arg-type]


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", named("plans"))
def test_plans_are_read_as_the_authors_read_them(row) -> None:
    wanted = UNREADABLE if row["methods"] is None else ParsedTuple(tuple(row["methods"]), True)
    assert parse_labelled(row["text"], 4) == wanted
    assert is_canonical(row["text"], 4) == row["strict"]


SENTENCE = st.from_regex(r"[a-z]{1,9}( [A-Za-z:.)]{1,9}){0,4}[a-z]", fullmatch=True)


@given(st.lists(SENTENCE, min_size=1, max_size=26))
def test_any_methods_in_words_survive_the_round_trip(methods) -> None:
    plan = render_labelled(methods)
    assert parse_labelled(plan, len(methods)) == ParsedTuple(tuple(methods), True)
    assert is_canonical(plan, len(methods)) and not is_canonical(plan, len(methods) + 1 if len(methods) < 26 else 1)
    assert all_methods(plan, "labelled") == tuple(methods)


@given(st.text(alphabet=st.sampled_from("AB:.)*# \n\ra\x85\u2028"), max_size=60), st.integers(1, 3))
def test_any_text_is_read_whole_or_not_at_all(text, k) -> None:
    parsed = parse_labelled(text, k)
    assert len(parsed.methods) == (k if parsed.complete else 0)
    assert parsed.complete or not is_canonical(text, k)


@pytest.mark.parametrize("text", ["A:" * 10**5, "A" + "*" * 10**6, "\n-" * 10**5, "A. " + " " * 10**6, "*" * 10**6])
def test_text_that_is_made_to_be_slow_is_read_at_once(text) -> None:
    began = time.process_time()
    parse_labelled(text, 4), is_canonical(text, 4)
    assert time.process_time() - began < 2


def test_more_methods_than_letters_are_refused_where_they_are_asked_for() -> None:
    assert parse_labelled(render_labelled(LABELS), 26).methods == tuple(LABELS)
    for asked in (
        lambda: parse_labelled("A: one", 27),
        lambda: render_labelled(["one"] * 27),
        lambda: style().planner(STDIO, 27),
        lambda: style().read_tuple("A: one", 27),
    ):
        with pytest.raises(ParameterError, match="at most 26 methods: lower k or set plan_format: numbered"):
            asked()


# --- styles -------------------------------------------------------------------------------------


def test_a_style_asks_for_writes_and_reads_the_same_format() -> None:
    numbered, labelled = style(plan_format="numbered"), style()
    for one, plan in ((numbered, "1. sort and sweep\n2. a heap"), (labelled, "A: sort and sweep\nB: a heap")):
        assert one.plan(METHODS[:2]) == plan
        assert one.read_tuple(plan, 2) == ParsedTuple(METHODS[:2], True)
    assert labelled.read_tuple(numbered.plan(METHODS), 4) == UNREADABLE
    prompt = labelled.planner(STDIO, 4)
    assert "4 lines" in prompt and "A: to D:" in prompt and "45 words" in prompt and "numbered" not in prompt
    assert "numbered list of exactly 4 lines" in numbered.planner(STDIO, 4)
    for same in (lambda s: s.planner(STDIO, 1), lambda s: s.solver(STDIO, "a heap"), lambda s: s.direct(STDIO)):
        assert same(numbered) == same(labelled)
    assert numbered == PromptStyle("instruct", numbered.tokenizer)


def test_what_follows_a_thought_is_tried_before_the_whole_reply() -> None:
    plan = render_labelled(METHODS)
    assert style().read_tuple(f"<think>\nA: no\nB: no\n</think>\n{plan}", 4).methods == METHODS
    assert style().read_tuple(f"<think>\n{plan}", 4).methods == METHODS  # as the authors' code does


def test_the_tiny_model_can_be_taught_either_format() -> None:
    corpus = crossroads.world(1, 1, 1, 2, 2, 0)["corpus"]
    for plan_format, first in (("numbered", "1. "), ("labelled", "A: ")):
        brief = PromptStyle("brief", None, plan_format=plan_format)
        rows = crossroads_rows(corpus, brief, 3)
        plans = [row for row in rows if row.kind == "plan"]
        assert all(row.completion.startswith(first) for row in rows if row.kind.startswith("plan"))
        found = planned_tuples(rows, plan_format)
        assert [one.methods for one in found] == [brief.read_tuple(row.completion, 3).methods for row in plans]
        assert all(len(one.methods) == 3 for one in found)
        begun = brief.next_method(plans[0].problem, ["mean"], 3)
        assert begun.endswith(f"3 methods: {first}mean\n" + {"1. ": "2. ", "A: ": "B: "}[first])
        rest = plans[0].completion.split("\n", 1)[1]
        assert brief.methods(rest[3:], after=1) == (found[0].methods[1],)


@pytest.mark.parametrize("plan_format", ["numbered", "labelled"])
def test_a_method_is_the_same_tokens_in_every_slot_of_the_tiny_model(plan_format) -> None:
    corpus = crossroads.world(1, 1, 1, 6, 2, 0)["corpus"]
    rows = [
        r for r in crossroads_rows(corpus, PromptStyle("brief", None, plan_format=plan_format), 4) if r.kind == "plan"
    ]
    tokenizer = build_tokenizer([row.prompt + row.completion for row in rows], 1050)
    brief = PromptStyle("brief", tokenizer, plan_format=plan_format)
    labels = ("1. ", "2. ", "3. ", "4. ") if plan_format == "numbered" else ("A: ", "B: ", "C: ", "D: ")
    for row in rows:
        prompt, completion, whole = brief.encode([row.prompt, row.completion, row.prompt + row.completion])
        assert whole == prompt + completion  # SFT reads them together, a rollout apart
        methods = brief.read_tuple(row.completion, 4).methods
        pieces = [piece for method in methods for piece in brief.encode([method])]
        marks = brief.encode([mark.format(label) for label, mark in zip(labels, ("{}", *["\n{}"] * 3), strict=True)])
        assert completion == [token for mark, piece in zip(marks, pieces, strict=True) for token in (*mark, *piece)]


def test_the_gate_takes_sentences_of_45_words_and_no_empty_method() -> None:
    def judged(first: str) -> GateDecision:
        return gate(parse_labelled(f"A: {first}\nB: a heap", 2))

    assert judged("word " * 45) == GateDecision(True)
    assert judged("word " * 46) == GateDecision(False, "long")
    assert judged("") == GateDecision(False, "empty")
    assert judged("x\nC: y\nA: z") == GateDecision(True)
    assert gate(parse_labelled("A: a heap", 2)) == GateDecision(False, "incomplete")


# --- plain prompts ------------------------------------------------------------------------------


def test_plain_prompts_are_the_words_of_the_message_alone() -> None:
    plain, chat = style("plain"), style("instruct")
    assert plain.tokenizer is not None and plain.tokenizer.chat_template is None
    for asked in (
        lambda s: s.direct(STDIO),
        lambda s: s.solver(STDIO, "a heap"),
        lambda s: s.planner(STDIO, 4),
        lambda s: s.next_method(STDIO, ["a heap"], 4),
    ):
        message = re.fullmatch(r"<user>(.*)<assistant>", asked(chat), re.DOTALL)
        assert message is not None and asked(plain) == message[1] + "\n\n"
    reply = plain.reply(STDIO, "print(1)")
    assert reply == "```python\nprint(1)\n```" and plain.program(STDIO, reply) == "print(1)"
    assert plain.read_by(STDIO) == "asked" and plain.program_ends == ()
    assert plain.record() == {"thoughts_left_open": False, "template_date": None}
    assert plain.program(STDIO, f"<think>\nhm\n</think>\n{reply}") == "print(1)"
    with pytest.raises(ModelError, match=r"no chat template: .*plain \(a base model\)"):
        PromptStyle("instruct", plain.tokenizer).direct(STDIO)


def test_a_plain_prompt_begins_with_the_token_that_a_text_begins_with() -> None:
    tokenizer = style("plain").tokenizer
    assert tokenizer is not None
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    number = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    (plain,) = PromptStyle("plain", tokenizer).encode(["a heap"])
    (brief,) = PromptStyle("brief", tokenizer).encode(["a heap"])
    assert plain == [number, *brief]
