"""Prompts of planner and solver, and the readers of what comes back.

One problem is asked in three ways: `direct` (write a program), `planner` (name K different methods) and `solver`
(write a program that follows this method; as an ablation, `slot`: write the program of attempt number k); planning
baselines `ask` other things, in words of their own. A style fixes the wording and how a program is taken out of a
completion:

- `brief`: a few words of plain text, for the tiny model; the whole completion is the program.
- `plain`: the words of `instruct` as they are, without a chat template and with a blank line after them, where a base
  model that has none goes on; the reply is read as that of `instruct`.
- `instruct`: a chat message through the tokenizer's own template; the program is a fenced block of the reply, which one
  is a rule with a name (`cppo_lib.rollout.replies`).
- `fenced`: the same message, but the reply to a request for a program is begun in the prompt, with an opened code block
  and the code that the problem gives, and ends with the block (`program_ends`), much as EvalPlus asks chat models. The
  model spends no tokens on repeating what was given. One that should think before it writes needs `instruct`.

Models that think are asked not to: the prompt ends with an empty thought where their template can write one. Where it
leaves a thought open all the same, the reply begins inside it, of which only what follows its end is read.

A plan of K methods is written in one of two formats (`cppo_lib.rollout.plans`), which the style's planner prompt asks
for. The labelled one is what the authors' code asks for (Li et al. 2026, at 2f8eb863): a sentence a method, each a way
of its own to solve this very problem. The wording of all prompts is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from cppo_lib.data.problem import Problem
from cppo_lib.errors import DatasetError, ModelError, ParameterError
from cppo_lib.rollout.plans import (
    MAX_LISTED,
    MOST_WORDS,
    ParsedTuple,
    PlanFormat,
    all_methods,
    first_line,
    labels_of,
    parse_labelled,
    parse_tuple,
    render_labelled,
    render_tuple,
)
from cppo_lib.rollout.replies import RULES, THOUGHTS, ProgramRule, Thoughts, left_open, said

if TYPE_CHECKING:  # a tokenizer is passed in, and notebooks that load none need not wait for transformers
    from transformers import PreTrainedTokenizerBase

StyleName = Literal["brief", "plain", "instruct", "fenced"]
SolverPrompt = Literal["method", "slot"]
"""What a solver of a tuple is told: its method, or (an ablation: no plan text) only its number among the K."""
BRIEF = ("direct", "plan_then_solve", "tuple", "sequential")
"""Procedures that the `brief` style has words for."""
NOT_BRIEF = (
    f"prompt_style: brief is for a model that was taught {', '.join(BRIEF)} alone: choose one of these, or name a chat "
    "model and prompt_style: instruct"
)

_WHOLE_PROGRAM = "Read the input from standard input and print the answer. Reply with one complete Python program"
_FUNCTION = "Reply with one complete Python module that defines the function (repeat the given code)"
_SHORT_FUNCTION = (
    "Reply with one short Python module that defines the function, without its docstring, comments, tests or examples,"
)
_ONE_SENTENCE = "Reply with one short sentence in plain words, without code."
_FENCE = "in a ```python code block."
_BLOCK = "```python\n"
TEMPLATE_DATE = date(2024, 7, 26)
"""What a chat template that writes the date is told, so that prompts are the same every day: Llama's own fallback."""
_LAST_DOCSTRING = re.compile(r"""\s*("{3}|'{3})(?:(?!\1).)*\1$""", re.DOTALL)


@dataclass(frozen=True)
class PromptStyle:
    """Turns problems into prompt texts and completions into programs.

    Args:
        name: `brief`, `plain`, `instruct` or `fenced`.
        tokenizer: encodes prompts and renders the chat template. Rendering in the `brief` style needs none, so that a
            tokenizer can be trained on rendered prompts.
        rule: which part of a reply is the program, in the other styles.
        plan_format: how plans of K methods are asked for, written and read; of one method they are asked for alike.
    """

    name: StyleName
    tokenizer: PreTrainedTokenizerBase | None
    rule: ProgramRule = "asked"
    plan_format: PlanFormat = "numbered"

    def direct(self, problem: Problem, *, before: str = "", after: str = "") -> str:
        """The prompt for one program, with no method named; `before` and `after` the problem may stand other words.

        Raises:
            ParameterError: other words in the `brief` style.
        """
        if self.name == "brief":
            if before or after:
                raise ParameterError(NOT_BRIEF)
            return f"{problem.statement}\nprogram:\n"
        return self._request(problem, after, before=before)

    def planner(self, problem: Problem, k: int) -> str:
        """The prompt for a tuple of k methods.

        Raises:
            ParameterError: more methods than a labelled plan has labels.
        """
        if self.name == "brief":
            return f"{problem.statement}\n{k} methods: "
        return self.ask(problem, _ask_methods(k, self.plan_format))

    def next_method(self, problem: Problem, named: list[str], k: int) -> str:
        """The prompt for one more of k methods; in the `brief` style the list that is to be continued."""
        if self.name == "brief":
            begun = f"{self.listed(named)}\n{self._mark(len(named))} " if named else ""
            return self.planner(problem, k) + begun
        if not named:
            return self.planner(problem, 1)
        return self.ask(
            problem,
            f"Suppose that it cannot be solved in these ways:\n{render_tuple(named)}\n\n"
            f"Which other algorithm or idea would solve it instead? {_ONE_SENTENCE}",
        )

    def methods(self, reply: str, after: int = 0) -> tuple[str, ...]:
        """The methods in a reply to a request for one: listed items, else the first line that says something.

        In the `brief` style items alone are read, and the reply continues a list of `after` items.
        """
        if self.name == "brief":
            return all_methods(f"{self._mark(after)} {reply}" if after else reply, self.plan_format)[:1]
        listed = parse_tuple(reply, MAX_LISTED).methods
        line = first_line(reply)
        return listed or (() if line is None else (line,))

    def read_tuple(self, reply: str, k: int) -> ParsedTuple:
        """The tuple of k methods in a reply to the planner prompt.

        Of a labelled plan what follows a thought is tried first and then the whole reply, as the authors' code does.

        Raises:
            ParameterError: more methods than a labelled plan has labels.
        """
        if self.plan_format == "numbered":
            return parse_tuple(reply, k)
        answered = parse_labelled(said(reply), k)
        return answered if answered.complete else parse_labelled(reply, k)

    def listed(self, methods: Sequence[str]) -> str:
        """The methods as a plan lists them. Raises ParameterError where labels do not suffice."""
        return render_tuple(methods) if self.plan_format == "numbered" else render_labelled(methods)

    def _mark(self, number: int) -> str:
        """What stands before method number `number`, counted from 0."""
        return f"{number + 1}." if self.plan_format == "numbered" else f"{labels_of(number + 1)[-1]}:"

    def plan(self, methods: Sequence[str]) -> str:
        """The completion of the planner prompt that lists these methods. Raises as `listed`."""
        return self.no_thoughts + self.listed(methods)

    def ask(self, problem: Problem, request: str) -> str:
        """The prompt that asks something else about the problem.

        Raises:
            ParameterError: in the `brief` style, whose model was taught nothing else.
        """
        if self.name == "brief":
            raise ParameterError(NOT_BRIEF)
        return self._chat(f"Here is a programming problem.\n\n{problem.statement}\n\n{request}")

    def solver(self, problem: Problem, method: str) -> str:
        """The prompt for a program that follows the given method."""
        if self.name == "brief":
            return f"{problem.statement}\nmethod: {method}\nprogram:\n"
        return self._request(problem, f"Use this method: {method}")

    def slot(self, problem: Problem, number: int) -> str:
        """The prompt for the program of a slot (1 to K), which is told nothing but that number."""
        if self.name == "brief":
            return f"{problem.statement}\n{number}. program:\n"
        return self._request(problem, f"This is attempt number {number}.")

    def program(self, problem: Problem, completion: str) -> str:
        """The program in a completion of the direct or solver prompt (empty when there is none).

        Chat models often reply with the asked function alone. What the given code has before that function (imports,
        helpers) is put in front of a reply that does not repeat it, as the usual HumanEval harnesses do. An assertion
        becomes a program that returns its right side.
        """
        if self.name == "brief" and problem.reply == "program":
            return completion
        text = self._begun(problem) + said(completion)
        if problem.reply == "assertion":
            from cppo_lib.data.benchmarks import livecodebench_output  # brings the hub's libraries, half a second

            return livecodebench_output.wrap_answer(text)
        block = RULES[self.rule](text, problem)
        given = _before_function(problem)
        return block if not block or given.strip() in block else given + block

    def read_by(self, problem: Problem) -> str:
        """The name of the rule by which `program` reads: the style's `rule`, or else `whole` or `assertion`."""
        if problem.reply == "assertion":
            return problem.reply
        return "whole" if self.name == "brief" else self.rule

    def reply(self, problem: Problem, program: str) -> str:
        """A completion of the direct or solver prompt that `program` reads back.

        Raises:
            DatasetError: in the `fenced` style, a program that does not begin with the code that the problem gives.
        """
        if self.name == "brief":
            return program
        whole = f"{_BLOCK}{program.strip()}\n```"
        begun = self._begun(problem)
        if not whole.startswith(begun):
            raise DatasetError(
                f"a program for {problem.id} does not begin with the given code, as those of prompt_style: fenced do: "
                "take the prompt_style of the run that wrote it"
            )
        return self.no_thoughts + whole.removeprefix(begun)

    @cached_property
    def program_ends(self) -> tuple[int, ...]:
        """Tokens besides the model's own that end a reply to the direct or solver prompt: in the `fenced` style those
        with a fence in them. A fence that is spelt in smaller tokens does not end it, and `program` reads it anyway.
        """
        if self.name != "fenced" or self._open:
            return ()
        return tuple(sorted(number for token, number in self._tokenizer.get_vocab().items() if "```" in token))

    def _request(self, problem: Problem, word: str, *, before: str = "") -> str:
        """The chat message that asks for a program, with a word of its own on how, and the reply as far as begun.

        The `fenced` style says before the problem what to reply, so that the K prompts of a tuple share all but their
        ends, which are most of what is read.
        """
        first = f"{before} Solve this programming problem.".strip()
        if self.name == "fenced":
            parts = [f"{first} {_reply(problem, _SHORT_FUNCTION)}", problem.statement, word]
        else:
            parts = [first, problem.statement, word, _reply(problem, _FUNCTION)]
        return self._chat("\n\n".join(filter(None, parts))) + self._begun(problem)

    def _begun(self, problem: Problem) -> str:
        """The given code without the docstring it ends with, which the message has, in an open block.

        Nothing where the model thinks first: the block would be a part of its thoughts.
        """
        if self.name != "fenced" or self._open:
            return ""
        given = _LAST_DOCSTRING.sub("", problem.starter_code.strip())
        return f"{_BLOCK}{given}\n" if given else _BLOCK

    def _chat(self, content: str) -> str:
        if self.name == "plain":
            return f"{content}\n\n"
        if not self._tokenizer.chat_template:
            raise ModelError(
                "the model has no chat template: set prompt_style: brief (the tiny model) or plain (a base model), or "
                "name a chat model"
            )
        messages = [{"role": "user", "content": content}]
        # Templates take what they know and ignore the rest: two names of the same switch, and a clock that stands.
        given: dict[str, Any] = {"enable_thinking": False, "thinking": False, "strftime_now": TEMPLATE_DATE.strftime}
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given)
        return str(rendered)

    @property
    def _templated(self) -> bool:
        return self.name in ("instruct", "fenced")

    @cached_property
    def _open(self) -> Thoughts | None:
        """The thoughts that the template leaves open although it is asked not to."""
        return left_open(self._chat("?")) if self._templated else None

    @cached_property
    def no_thoughts(self) -> str:
        """What a reply begins with that ends at once the thoughts which its prompt has left open; mostly nothing."""
        return f"\n{self._open.end}\n\n" if self._open else ""

    def record(self) -> dict[str, Any]:
        """What a record of replies should say of their prompts: do they leave thoughts open, and the date they hold."""
        dated = self._templated and "strftime_now" in str(self._tokenizer.chat_template)
        date_told = TEMPLATE_DATE.isoformat() if dated else None
        return {"thoughts_left_open": self._open is not None, "template_date": date_told}

    def encode(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of rendered prompts.

        A chat template has placed every special token; a `plain` prompt begins with those that the tokenizer begins any
        text with, as in the model's pretraining.
        """
        ids = self._tokenizer(prompts, add_special_tokens=self.name == "plain")["input_ids"]
        return [list(row) for row in ids]

    def decode(self, completions: list[list[int]]) -> list[str]:
        """Texts of completions, special tokens left out but for the marks of thoughts.

        Thoughts that the prompt has begun are begun in the text.
        """
        if self.name == "brief":
            return list(self._tokenizer.batch_decode(completions, skip_special_tokens=True))
        begun = self._open.begin if self._open else ""
        return [begun + text for text in map(self._decoded, completions)]

    def _decoded(self, completion: list[int]) -> str:
        plainly = str(self._tokenizer.decode(completion, skip_special_tokens=True))
        whole = str(self._tokenizer.decode(completion))
        if not any(mark in whole and mark not in plainly for each in THOUGHTS for mark in (each.begin, each.end)):
            return plainly
        # Some tokenizers call the marks special.
        kept = "".join(each.begin + each.end for each in THOUGHTS)
        hidden = [token for token in self._tokenizer.all_special_tokens if token not in kept]
        return re.sub("|".join(map(re.escape, hidden)), "", whole) if hidden else whole

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ModelError(f"prompt style {self.name!r} was made without a tokenizer, which this step needs")
        return self.tokenizer


def _ask_methods(k: int, plan_format: PlanFormat) -> str:
    if k == 1:
        return f"Which algorithm or idea would solve it? {_ONE_SENTENCE}"
    if plan_format == "labelled":
        labels = labels_of(k)
        return (
            f"Plan {k} attempts at it, so that at least one is likely to be right. Write exactly {k} lines, beginning "
            f"with {labels[0]}: to {labels[-1]}: in this order, and nothing before, between or after them. Behind each "
            f"label comes one sentence of at most {MOST_WORDS[plan_format]} words that names one way to solve this "
            "problem from beginning to end. Say what it hinges on here: which state is kept, what stays true, by which "
            "key things are sorted, or the like. Each way stands alone: it is no step of another and does not refer to "
            "one. Ways may share an idea where they differ in something that can decide between right and wrong, such "
            "as the implementation, its running time or the cases that could break it; the same program in other words "
            "does not count. Give no code and no answers."
        )
    return (
        f"Name {k} different high-level methods to solve it, so that at least one is likely to be right. Reply with "
        f"a numbered list of exactly {k} lines. Each line names one method in a short phrase of plain words, without "
        "code."
    )


def _reply(problem: Problem, function: str) -> str:
    if problem.reply == "assertion":
        return "Reply with the completed assertion " + _FENCE
    return f"{_WHOLE_PROGRAM if problem.mode == 'stdio' else function} {_FENCE}"


def _before_function(problem: Problem) -> str:
    """The part of the starter code before the top-level function that is to be written (empty without one)."""
    head = re.search(rf"^def {re.escape(problem.fn_name or '')}\(", problem.starter_code, re.MULTILINE)
    return problem.starter_code[: head.start()] if head else ""
