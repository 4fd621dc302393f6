"""What is read of a reply: nothing of its thoughts, methods without their marks, and the block that was asked for.

The chat templates are those of real models, from the installed TRL.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pytest
import trl
from transformers import AddedToken

from cppo_lib.data.problem import Problem, Test
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.tiny import EOS, build_tokenizer
from cppo_lib.reward.gate_rules import gate, gated
from cppo_lib.rollout.plans import ParsedTuple, first_line, parse_tuple, render_tuple
from cppo_lib.rollout.procedures import read_probabilities
from cppo_lib.rollout.prompts import PromptStyle, StyleName
from cppo_lib.rollout.replies import asked, bare, blocks, last_fences, left_open, said
from cppo_lib.rollout.two_stage import rollout
from cppo_lib.trainer.sft_data import SFTRow, distilled_rows

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
STDIO = Problem("own/add", "own", "Add two numbers.", (Test("1 2\n", "3\n"),))
FUNCTION = Problem(
    "own/f", "own", "Write f.", (Test("[1]", "1"),), mode="call", fn_name="f", starter_code="def f(x):\n"
)
METHODS = ("Sorting", "A heap", "Two pointers", "Brute force")
PLAN = render_tuple(METHODS)
READ = "print(sum(map(int, input().split())))"


def style_of(template: str, name: StyleName = "instruct") -> PromptStyle:
    tokenizer = build_tokenizer(["1. Sorting\n2. A heap", "```python\n", "\n```", "\n```\n\n"] * 3, 300)
    tokenizer.chat_template, tokenizer.bos_token = template, EOS
    return PromptStyle(name, tokenizer)


@functools.cache
def model_style(model: str, name: StyleName = "instruct") -> PromptStyle:
    return style_of((TEMPLATES / f"{model}.jinja").read_text(), name)


# --- thoughts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("no thoughts", "no thoughts"),
        ("<think>\n1. a\n2. b\n</think>\n\n3. c", "\n\n3. c"),
        ("<think>a</think>b", "b"),
        ("  <think>\n</think>x\n<think>\nagain\n</think>y", "y"),
        ("so, a list it is\n</think>\n\n1. a", "\n\n1. a"),  # begun in the prompt, or not at all
        ("<think>\n1. a\n2. b", ""),
        ("1. a\n<think>\nhm", ""),
        ("[THINK]a[/THINK]b", "b"),
        ("<|channel>thought\na<channel|>b", "b"),
        ("<|channel|>analysis<|message|>aassistant<|channel|>final<|message|>b", "b"),
        ("<|channel|>final<|message|>b", "b"),
        ('print("<think>", "</think>")', 'print("<think>", "</think>")'),
    ],
)
def test_what_follows_the_thoughts_is_said(reply, rest):
    assert said(reply) == rest and said(said(reply)) == rest


def test_no_reader_reads_thoughts():
    thought = f"<think>\n{PLAN}\n```python\nprint(0)\n```\n"
    style = model_style("qwen3")
    for open_end in (thought, f"{thought}{PLAN}"):
        assert parse_tuple(open_end, 4) == ParsedTuple((), False)
        assert style.methods(open_end) == () and first_line(open_end) is None
        assert style.program(STDIO, open_end) == "" and read_probabilities(f'{open_end}{{"method": "x"}}') == []
    assert parse_tuple(f"<think>\n1. a\n2. b\n</think>\n\n{PLAN}", 4) == ParsedTuple(METHODS, True)
    assert style.methods("<think>\nhm\n</think>\n\nSort it.") == ("Sort it.",)
    assert style.program(STDIO, f"{thought}</think>\n```python\n{READ}\n```") == READ


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_no_prompt_of_a_real_model_leaves_thoughts_open_if_its_template_can_close_them(path):
    template = path.read_text()
    if "image" in template and "vl" in path.stem or path.stem.startswith(("llava", "idefics", "smolvlm")):
        pytest.skip("a message to it is no text")
    style = style_of(template)
    forced = path.stem.startswith("deepseek")  # has no switch
    assert style.record()["thoughts_left_open"] is forced
    assert (left_open(style.direct(STDIO)) is not None) is forced


def test_a_template_is_asked_for_an_empty_thought():
    for model in ("qwen3", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"):
        assert model_style(model).direct(STDIO).endswith("<think>\n\n</think>\n\n"), model
    fenced = model_style("qwen3_5_think", "fenced")
    assert fenced.direct(FUNCTION).endswith("</think>\n\n```python\ndef f(x):\n") and fenced.program_ends
    switch = (
        "{{ messages[0].content }}{% if thinking is defined and not thinking %}</think>{% else %}<think>{% endif %}"
    )
    assert style_of(switch).direct(STDIO).endswith("</think>")


def test_where_thoughts_stay_open_the_reply_begins_in_them():
    for name in ("instruct", "fenced"):
        style = model_style("deepseek_r1_distill", name)
        for prompt in (style.direct(FUNCTION), style.planner(FUNCTION, 4)):
            assert prompt.endswith("<think>\n")  # no code block is begun in a thought
        assert style.program_ends == ()
        drafts, final = "```python\ndef f(x): 0\n```", "```python\ndef f(x):\n    return x\n```"
        (text,) = style.decode(style.encode([f"hm: {drafts}\nno\n</think>\n\nThis:\n{final}"]))
        assert style.program(FUNCTION, text) == "def f(x):\n    return x"
        (text,) = style.decode(style.encode([f"{PLAN}\n{drafts}"]))
        assert parse_tuple(text, 4) == ParsedTuple((), False) and style.program(FUNCTION, text) == ""


@pytest.mark.parametrize("name", ["instruct", "fenced"])
@pytest.mark.parametrize("model", ["deepseek_r1_distill", "qwen3_5_think", "qwen2_5"])
def test_what_is_learnt_is_what_is_read(model, name):
    """Rows of supervised training come from the renderer of the rollouts, and their completions are read back."""
    style, program = model_style(model, name), "def f(x):\n    return x"
    slots = [{"problem_id": FUNCTION.id, "tuple_index": 0, "slot": n, "strategy": m} for n, m in enumerate(METHODS)]
    attempts = pd.DataFrame(slots).assign(valid=True, passed=True, program=program)
    plan, *solvers = distilled_rows(attempts, [FUNCTION], style)
    assert plan == SFTRow("plan", style.planner(FUNCTION, 4), style.plan(METHODS), FUNCTION)
    for row in (plan, *solvers):
        (text,) = style.decode(style.encode([row.completion]))
        assert "<think>" not in row.completion
        if row.kind == "plan":
            assert parse_tuple(text, 4) == ParsedTuple(METHODS, True)
        else:
            assert style.program(FUNCTION, text).strip() == program
    assert (model == "deepseek_r1_distill") == plan.completion.startswith("\n</think>\n\n1. ")


def test_marks_of_thoughts_are_read_where_the_tokenizer_calls_them_special():
    style = style_of("{{ messages[0].content }}")
    marks = ["<|channel>", "<channel|>", "[THINK]", "[/THINK]"]
    style.tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(mark) for mark in marks]})
    for thought in ("<|channel>thought\n1. a\n2. b<channel|>", "[THINK]1. a[/THINK]"):
        ids = style.encode([f"{thought}{PLAN}{EOS}"])
        assert "1. a" in style.tokenizer.decode(ids[0], skip_special_tokens=True), "a guess about transformers"
        (text,) = style.decode(ids)
        assert parse_tuple(text, 4) == ParsedTuple(METHODS, True) and EOS not in text
    assert style.decode(style.encode([PLAN + EOS])) == [PLAN]


def test_the_date_in_a_template_stands_and_is_recorded():
    for model, shown in (("llama3_2", "Today Date: 26 Jul 2024"), ("gptoss", "Current date: 2024-07-26")):
        style = model_style(model)
        assert shown in style.direct(STDIO)
        assert style.record()["template_date"] == "2024-07-26"
    assert model_style("qwen3").record()["template_date"] is None
    assert PromptStyle("brief", None).record() == {"thoughts_left_open": False, "template_date": None}


def test_a_rollout_of_a_model_that_thinks_reads_its_answers():
    style = model_style("deepseek_r1_distill")
    draft = f"```python\nprint(0)\n```\n{PLAN}"

    def generate(prompts: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        solver = limit == 2
        replies = [f"{draft}\n</think>\n\n" + (f"```python\n{READ}\n```" if solver else PLAN), draft]
        return [Completion(ids) for ids in style.encode([replies[number % 2] for number in range(len(prompts))])]

    limits = {"max_plan_tokens": 1, "max_program_tokens": 2}
    ended, unfinished = gated(rollout([STDIO, STDIO], "tuple", 4, style=style, generate=generate, **limits))
    assert ended.valid and ended.strategies == METHODS
    assert (unfinished.valid, unfinished.refusal) == (False, "incomplete")
    assert ended.programs == (READ, "", READ, "")


# --- methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "**{n}. Sorting**", "{n}. {n}. Sorting", "{n}. Method {n}: Sorting", "- {n}. Sorting", "### {n}. Sorting",
        "### **{n}.** Sorting", "({n}) Sorting", "{n}.) Sorting", "{n}. [{n}] Sorting", "{n}. ({l}) Sorting",
        "{n}. {l}. Sorting", "{n}. {l}) Sorting", "{n}. {r}. Sorting", "{n}. ({r}) Sorting", "{n}. {n} Sorting",
        "{n}. Approach {l}: Sorting", "{n}. **Option {n}** - Sorting", "{n}. Plan {l} – Sorting", "Method {n}: Sorting",
        "{n}. Sorting {n}", "{n}. Sorting ({n})", "{n}. Sorting #{n}", "{n}. Sorting ({r})",
        "{n}. Sorting, variant {n}",
        "{n}. {n}.{n}. Sorting", "{n}. {c} Sorting", "{n}. {c}Sorting", "{n}. {n}\ufe0f\u20e3 Sorting",
        "{n}. {n} - Sorting", "{n}. *Sorting*{d}", "{n}. \u200b{n}. Sorting", "{n}. Sort{z}ing",
        "{n}. > {n}. Sorting", "{n}. # Sorting{d}", "{n}. __Sorting__{d}", "{n}. `Sorting`{d}",
    ],
)  # fmt: skip
def test_one_method_under_four_numbers_is_one_method(form):
    """What RL is paid to find: four times the same method, told apart by marks, numbers and labels."""
    marks = zip(
        "1234", "ABCD", ("i", "ii", "iii", "iv"), "①②③④", "\u200b\u200c\u200d\u2060", (".", "!", ":", ";"), strict=True
    )
    lines = [form.format(n=n, l=letter, r=r, c=c, z=z, d=d) for n, letter, r, c, z, d in marks]
    plan = parse_tuple("\n".join(lines), 4)
    assert plan.complete, plan
    decision = gate(plan)
    assert not decision.valid and decision.reason in ("repeated", "code"), plan


@pytest.mark.parametrize(
    "spelling", ["Ｓｏｒｔｉｎｇ", "𝐒𝐨𝐫𝐭𝐢𝐧𝐠", "Sörting", "SORTING", "sort-ing", "“Sorting”", "B. Sorting"]
)
def test_spellings_of_a_method_are_one_method(spelling):
    assert gate(ParsedTuple(("Sorting", spelling), True)).reason == "repeated"


def test_a_method_that_is_only_its_number_is_none():
    assert parse_tuple("1. Method 1\n2. Method 2", 2) == ParsedTuple((), False)
    assert gate(ParsedTuple(("Method 1", "Plan B"), True)).reason == "empty"
    assert gate(ParsedTuple(("1", "2"), True)).reason == "empty"


LEGITIMATE = (
    "2-pointer", "3SUM", "0-1 knapsack", "A* search", "k-d tree", "B-tree", "2.5D sweep", "2 pointers",
    "1:1 mapping", "Algorithm X", "Strategy pattern", "Plan ahead", "Step function", "1-D DP", "2-D DP", "i.e. sort it",
    "-1 as a sentinel", "X-or of all", "1.5-approximation", "Two stacks", "n-th element", "A heap",
    "(max, +) convolution",
)  # fmt: skip


def test_numbers_that_belong_to_a_method_stay():
    for method in LEGITIMATE:
        assert bare(method) == method
        assert bare(f"3. **{method}**") == method and parse_tuple(f"1. {method}", 1).methods == (method,)
    assert gate(ParsedTuple(LEGITIMATE, True)).valid
    assert gate(ParsedTuple(LEGITIMATE[::-1], True)).valid
    different = ("2-pointer", "3-pointer", "two pointers", "pointers")
    assert gate(ParsedTuple(different, True)).valid


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("### 1. Sorting\nSort first.\n### 2. A heap\nPush all.", ("Sorting", "A heap")),
        ("**1. Sorting**\n- sort\n\n**2. A heap**\n- push", ("Sorting", "A heap")),
        ("1. Sorting\n   1. read\n   2. sort\n2. A heap\n   1. push", ("Sorting", "A heap")),
        ("- Sorting\n  - by value\n- A heap\n  - of pairs", ("Sorting", "A heap")),
        ("**Method 1: Sorting**\nSort it.\n\n**Method 2: A heap**", ("Sorting", "A heap")),
        (" 9. Sorting\n10. A heap", ("Sorting", "A heap")),
        ("In 1.5 steps:\n1.5 is the ratio\n1. Sorting\n2. A heap", ("Sorting", "A heap")),
    ],
)
def test_forms_of_a_list(text, methods):
    assert parse_tuple(text, 2) == ParsedTuple(methods, True)


# --- programs -----------------------------------------------------------------------------------

ANSWER = "def f(x):\n    return x"
DOCUMENTED = "def f(x):\n    '''\n    ```\n    f(3)\n    ```\n    '''"
METHOD = "class Solution:\n    def f(self, x):\n        return x"
EXAMPLE, SHELL, TESTS = "```\n3\n```", "```bash\npython solution.py\n```", "```python\nprint(f(3))\n```"


@pytest.mark.parametrize(
    "after", ["", EXAMPLE, SHELL, TESTS, "```text\nf(3)\n```", f"{EXAMPLE}\n{SHELL}\n{TESTS}", "```"]
)
@pytest.mark.parametrize("mark", ["python", "", "py", "Python3", "{.python}"])
@pytest.mark.parametrize(("problem", "program"), [(FUNCTION, ANSWER), (STDIO, READ)], ids=["function", "stdio"])
def test_the_block_that_was_asked_for_is_the_program(problem, program, mark, after):
    reply = f"Like this:\n```{mark}\n{program}\n```\nFor example:\n{after}\nDone."
    assert asked(reply, problem).strip() == program
    fenced = model_style("qwen2_5", "fenced")
    assert fenced.program(problem, f"\n```\n{reply}").strip() == program  # it begins anew


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        (f"```python\ndef f(x): 0\n```\nBetter:\n```python\n{ANSWER}\n```", ANSWER),  # the last of several
        (f"```python\n{ANSWER}\n```\nOr\n```python\ndef f(x):\n    ret", ANSWER),  # before one that is cut off
        (f"```python\n{ANSWER}", ANSWER),  # whole, but for the fence
        (f"First\n```bash\npip install x\n```\nthen\n```python\n{ANSWER}", ANSWER),
        (f"```cpp\nint f;\n```\n```python\n{ANSWER}\n```", ANSWER),
        (f"```ruby\ndef f(x)\nend\n```\n```python\n{ANSWER}\n```\n```ruby\ndef f(x)\nend\n```", ANSWER),
        ("1. Here:\n   ```python\n   def f(x):\n       return x\n   ```", ANSWER),  # in a list
        (f"```python\n{ANSWER}```", ANSWER),  # no line of its own for the fence
        (f"Answer: ```python\n{ANSWER}\n```", ANSWER),
        (f"```python\n{ANSWER}\n```python\nf(3)\n```", ANSWER),
        (f"```python\n{DOCUMENTED}\n```", DOCUMENTED),
        (f"Use ```f(x)``` so:\n```python\n{ANSWER}\n```", ANSWER),
        (f"```python\n{METHOD}\n```\n```python\nSolution().f(3)\n```", METHOD),
        ("```python\nf = abs\n```\n```python\nf(3)\n```", "f = abs"),
        ("no block", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_blocks_as_models_write_them(reply, program):
    assert asked(reply, FUNCTION) == program


def test_any_text_gives_blocks_in_time():
    for text in ("`" * 20_000, "``` " * 5_000, "```\n" * 5_000, "* a *b " * 3_000, "1. " * 5_000, "<think>" * 5_000):
        blocks(text), parse_tuple(text, 4), said(text)


def test_a_whole_program_without_its_last_fence_is_read_in_every_style():
    assert model_style("qwen2_5", "fenced").program(FUNCTION, "    return x") == ANSWER
    assert model_style("qwen2_5").program(FUNCTION, f"```python\n{ANSWER}\n") == f"{ANSWER}\n"


def test_the_published_rule_is_there_under_its_name():
    """LiveCodeBench's: what stands between the last two lines with a fence, whatever it is."""
    reply = f"```python\n{ANSWER}\n```\n{EXAMPLE}"
    published = PromptStyle("instruct", model_style("qwen2_5").tokenizer, "last_fences")
    assert published.program(FUNCTION, reply) == last_fences(reply, FUNCTION) == "3"
    assert published.program(FUNCTION, f"```python\n{ANSWER}") == ""
    assert published.read_by(FUNCTION) == "last_fences" and model_style("qwen2_5").read_by(FUNCTION) == "asked"
    assert PromptStyle("brief", None, "last_fences").read_by(STDIO) == "whole"
