"""Prompts of planner and solver, and the readers of what comes back.

One problem is asked in three ways: `direct` (write a program), `planner` (name K different methods) and `solver`
(write a program that follows this method; as an ablation, `slot`: write the program of attempt number k); planning
baselines `ask` other things, in words of their own. A style fixes the wording and how a program is taken out of a
completion:

- `brief`: a few words of plain text, for the tiny model; the whole completion is the program.
- `instruct`: a chat message through the tokenizer's own template; the program is the last fenced block, extracted as
  LiveCodeBench does (text between the last two fence lines).
- `fenced`: the same message, but the reply to a request for a program is begun in the prompt, with an opened code block
  and the code that the problem gives, and ends with the block (`program_ends`), much as EvalPlus asks chat models. The
  model spends no tokens on repeating what was given. One that should think before it writes needs `instruct`.

The wording is not stated in the abstract; it is our default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from cppo_lib.benchmarks import livecodebench_output
from cppo_lib.errors import DatasetError, ModelError, ParameterError
from cppo_lib.problems import Problem
from cppo_lib.procedures import NOT_BRIEF

if TYPE_CHECKING:  # a tokenizer is passed in, and notebooks that load none need not wait for transformers
    from transformers import PreTrainedTokenizerBase

StyleName = Literal["brief", "instruct", "fenced"]
SolverPrompt = Literal["method", "slot"]
"""What a solver of a tuple is told: its method, or (an ablation: no plan text) only its number among the K."""

_WHOLE_PROGRAM = "Read the input from standard input and print the answer. Reply with one complete Python program"
_FUNCTION = "Reply with one complete Python module that defines the function (repeat the given code)"
_SHORT_FUNCTION = (
    "Reply with one short Python module that defines the function, without its docstring, comments, tests or examples,"
)
_ONE_SENTENCE = "Reply with one short sentence in plain words, without code."
_FENCE = "in a ```python code block."
_BLOCK = "```python\n"
MAX_LISTED = 64  # more than any tuple has
_NUMBERED = re.compile(r"^\s*\d+\s*[.):]\s*(?P<method>.*\S)\s*$")
_LAST_DOCSTRING = re.compile(r"""\s*("{3}|'{3})(?:(?!\1).)*\1$""", re.DOTALL)
_MARKS = re.compile(r"^\s*(?:[-*#>]+|\d+[.):])\s+")
_BULLETED = re.compile(r"^\s*[-*]\s*(?P<method>.*\S)\s*$")


@dataclass(frozen=True)
class ParsedTuple:
    """What was read from a planner completion: the listed methods in order, and whether exactly K were listed."""

    methods: tuple[str, ...]
    complete: bool


def parse_tuple(completion: str, k: int) -> ParsedTuple:
    """Read the numbered lines of a plan, or its bulleted ones where none is numbered.

    Other lines are ignored, such as bullets that explain a numbered method; markdown emphasis and a colon at the end
    are dropped. A plan with more or fewer than `k` items is incomplete; its first `k` items can still be attempted.
    """
    lines = completion.splitlines()
    found = list(filter(None, map(_NUMBERED.match, lines))) or list(filter(None, map(_BULLETED.match, lines)))
    methods = tuple(text for item in found if (text := item["method"].replace("**", "").rstrip(":").strip()))
    return ParsedTuple(methods[:k], len(methods) == k)


def first_line(text: str) -> str | None:
    """The first line that says something, without marks; announcements (ending in a colon) and code fences do not."""
    for line in text.splitlines():
        plain = _MARKS.sub("", line.replace("**", "")).strip()
        if re.search(r"\w", plain) and not plain.endswith(":") and "```" not in plain:
            return plain
    return None


def render_tuple(methods: tuple[str, ...] | list[str]) -> str:
    """The planner completion that lists these methods; `parse_tuple` reads it back."""
    return "\n".join(f"{number}. {method}" for number, method in enumerate(methods, start=1))


@dataclass(frozen=True)
class PromptStyle:
    """Turns problems into prompt texts and completions into programs.

    Args:
        name: `brief`, `instruct` or `fenced`.
        tokenizer: encodes prompts and renders the chat template. Rendering in the `brief` style needs none, so that a
            tokenizer can be trained on rendered prompts.
    """

    name: StyleName
    tokenizer: PreTrainedTokenizerBase | None

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
        """The prompt for a tuple of k methods."""
        if self.name == "brief":
            return f"{problem.statement}\n{k} methods: "
        return self.ask(problem, _ask_methods(k))

    def next_method(self, problem: Problem, named: list[str], k: int) -> str:
        """The prompt for one more of k methods; in the `brief` style the list that is to be continued."""
        if self.name == "brief":
            return self.planner(problem, k) + (f"{render_tuple(named)}\n{len(named) + 1}. " if named else "")
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
            return parse_tuple(f"{after + 1}. {reply}" if after else reply, 1).methods
        listed = parse_tuple(reply, MAX_LISTED).methods
        line = first_line(reply)
        return listed or (() if line is None else (line,))

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
        if self.name == "fenced":
            completion = self._begun(problem) + completion
        if problem.reply == "assertion":
            return livecodebench_output.wrap_answer(completion)
        if self.name == "brief":
            return completion
        lines = completion.split("\n")
        fences = [number for number, line in enumerate(lines) if "```" in line]
        block = "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else ""
        given = _before_function(problem)
        return block if not block or given.strip() in block else given + block

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
        return whole.removeprefix(begun)

    @cached_property
    def program_ends(self) -> tuple[int, ...]:
        """Tokens besides the model's own that end a reply to the direct or solver prompt: in the `fenced` style those
        with a fence in them. A fence that is spelt in smaller tokens does not end it, and `program` reads it anyway.
        """
        if self.name != "fenced":
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
        """The given code without the docstring it ends with, which the message has, in an open block."""
        if self.name != "fenced":
            return ""
        given = _LAST_DOCSTRING.sub("", problem.starter_code.strip())
        return f"{_BLOCK}{given}\n" if given else _BLOCK

    def _chat(self, content: str) -> str:
        if not self._tokenizer.chat_template:
            raise ModelError("the model has no chat template: set prompt_style: brief or name a chat model")
        messages = [{"role": "user", "content": content}]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(rendered)

    def encode(self, prompts: list[str]) -> list[list[int]]:
        """Token ids of rendered prompts; the style has already placed every special token."""
        ids = self._tokenizer(prompts, add_special_tokens=False)["input_ids"]
        return [list(row) for row in ids]

    def decode(self, completions: list[list[int]]) -> list[str]:
        """Texts of completions, special tokens left out."""
        return list(self._tokenizer.batch_decode(completions, skip_special_tokens=True))

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ModelError(f"prompt style {self.name!r} was made without a tokenizer, which this step needs")
        return self.tokenizer


def _ask_methods(k: int) -> str:
    if k == 1:
        return f"Which algorithm or idea would solve it? {_ONE_SENTENCE}"
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
