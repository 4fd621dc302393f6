"""What is read of a model's reply: nothing of its thoughts, methods without their marks, one of its code blocks.

Thoughts are what a model writes for itself before it answers. A list in them is no plan and a block in them no program:
what follows their end is read, and of a reply whose thoughts do not end, nothing.

Texts are searched and never parsed here: one that crashes a parser must not end a training run. The one rule that has
to parse is in `cppo_lib.rollout.released`, with what bounds it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cppo_lib.rollout import released

if TYPE_CHECKING:
    from cppo_lib.data.problem import Problem

# --- thoughts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thoughts:
    """The marks between which a family of models puts its thoughts."""

    begin: str
    end: str

    def after(self, text: str) -> str:
        """What follows the thoughts in a text: all of it where it has none, nothing where they do not end."""
        if text.lstrip().startswith(self.begin):
            _, ended, text = text.partition(self.end)
            if not ended:
                return ""
        # Marks of further thoughts, or of some whose beginning is not there, stand at the beginning of a line.
        *_, text = re.split(rf"^[ \t]*{re.escape(self.end)}", text, flags=re.MULTILINE)
        return "" if re.search(rf"^[ \t]*{re.escape(self.begin)}", text, re.MULTILINE) else text


THOUGHTS = (
    Thoughts("<think>", "</think>"),  # Qwen, DeepSeek, GLM, Nemotron and most others
    Thoughts("[THINK]", "[/THINK]"),  # Mistral
    Thoughts("<|channel>thought", "<channel|>"),  # Gemma
    Thoughts("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)


def said(reply: str) -> str:
    """What a reply says after its thoughts; empty where these do not end."""
    for thoughts in THOUGHTS:
        reply = thoughts.after(reply)
    return reply


def left_open(prompt: str) -> Thoughts | None:
    """The thoughts that a prompt begins and leaves to the model to end; None where it begins none."""
    return next((each for each in THOUGHTS if prompt.rstrip().endswith(each.begin)), None)


# --- methods ------------------------------------------------------------------------------------

WORDS = r"(?i:method|approach|strategy|idea|option|solution|plan|technique|step|alternative|variant|version|attempt)"
"""What models call a method before they number it."""
_NUMBER = r"\d{1,2}(?:\.\d{1,2})*"
_PLACE = rf"(?:{_NUMBER}|[ivxIVX]{{1,4}}|[a-zA-Z])"
_LABELS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:[-+*>•·◦▪‣–—]+|#+)\s+",  # bullets and headings
        r"[*_]+(?=\w)|[①-⓿❶-➓]\s*",
        rf"[(\[]{_PLACE}[)\]][.:]?\s*",
        rf"#?{_NUMBER}\s*[.):\]]+(?!\d)\s*|#?{_NUMBER}\s+[-–—]\s+",
        rf"{_PLACE}\s*[.):\]]+\s+",
        rf"{WORDS}(?:\s+(?:no\.?\s*|number\s+)?#?{_PLACE})?\s*(?:[.):]+(?!\w)|\s[-–—](?=\s))\s*",
        rf"{WORDS}\s+(?:no\.?\s*|number\s+)?#?(?:{_NUMBER}\b\s*|[A-Z]$)",
    )
)
_EMPHASIS = re.compile(r"(?<!\w)([*_]{1,3})(?=\S)(.{1,200}?)(?<=\S)\1(?!\w)")


def plain(line: str) -> str:
    """A line without Markdown's emphasis."""
    return _EMPHASIS.sub(r"\2", line).replace("**", "")


def bare(method: str) -> str:
    """A method without what only numbers or marks it: `1. Method 1: **Sorting**` is `Sorting`.

    A number that belongs to the method stays: `2-pointer`, `3SUM`, `0-1 knapsack`. A method that is nothing but its
    number is empty.
    """
    text = plain(method).strip()
    while label := next(filter(None, (pattern.match(text) for pattern in _LABELS)), None):
        text = text[label.end() :]
    return text.rstrip(":").strip()


def normalise(method: str) -> str:
    """The form in which two methods are compared: lower case, words only, without numbers and labels in front.

    Spellings of a letter are one (accents, full width, mathematical alphabets), and what is not seen is not there.
    """
    letters = unicodedata.normalize("NFKD", re.sub("[①-⓿❶-➓]", " ", method))
    seen = "".join(each for each in letters if unicodedata.category(each) not in ("Cf", "Mn", "Me"))
    return " ".join(re.findall(r"[^\W_]+", bare(seen).casefold()))


# --- programs -----------------------------------------------------------------------------------

ProgramRule = Literal["asked", "last_fences", "released"]
_FENCE = re.compile(r"(?P<before>.*?)`{3,}[ \t{.]*(?P<mark>[\w+#-]*)[^`]*$")
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\b")


@dataclass(frozen=True)
class Block:
    """A fenced code block: the word at its opening fence in lower case, its text, and whether a fence closes it."""

    mark: str
    text: str
    closed: bool

    @property
    def python(self) -> bool:
        return self.mark.startswith("py")


def blocks(text: str) -> list[Block]:
    """The code blocks of a text in their order; one that the text ends in counts.

    A fence that is deeper than the block by four spaces, as in a docstring, belongs to the code. One that is marked
    as Python opens a block also where none was closed.
    """
    found: list[Block] = []
    mark, depth = "", 0
    code: list[str] | None = None
    for line in text.split("\n"):
        # Code between two fences in one line is no block.
        fence = _FENCE.match(line) if line.count("```") == 1 else None
        indent = len(line) - len(line.lstrip())
        if code is None:
            if fence:
                mark, depth, code = fence["mark"].lower(), 0 if fence["before"].strip() else indent, []
        elif fence and (indent < depth + 4 if not fence["before"].strip() else line.rstrip().endswith("```")):
            code += [fence["before"]] if fence["before"].strip() else []  # a fence at the end of the last line
            found.append(Block(mark, "\n".join(code), closed=True))
            mark = fence["mark"].lower()
            code = [] if mark.startswith("py") else None
        else:
            code.append(re.sub(rf"^ {{0,{depth}}}", "", line))
    return found if code is None else [*found, Block(mark, "\n".join(code), closed=False)]


def asked(text: str, problem: Problem) -> str:
    """The program by what was asked for: the last block that defines the function, or else reads the standard input.

    Only blocks marked as Python, or not marked, count for that. Where none does it, the last block marked as Python is
    the program, then the last without a mark, then the last. In each case a closed block goes before one that the text
    ends in, which is read too: whether that is a whole program, the verifier finds out.
    """
    found = blocks(text)
    name = re.escape(problem.fn_name or "")
    does = re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b|^{name}[ \t]*=", re.MULTILINE) if name else _READS
    orders: tuple[Callable[[Block], bool], ...] = (
        lambda block: (block.python or not block.mark) and bool(does.search(block.text)),
        lambda block: block.python,
        lambda block: not block.mark,
        lambda block: True,
    )
    for fits in orders:
        if fitting := sorted(filter(fits, found), key=lambda block: block.closed):
            return fitting[-1].text
    return ""


def last_fences(text: str, problem: Problem) -> str:
    """The program by LiveCodeBench's published rule: what stands between the last two lines that hold a fence."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else ""


def by_released(text: str, problem: Problem) -> str:
    """The program by the rule of CPPO's authors, whatever was asked for (`cppo_lib.rollout.released`)."""
    return released.program_of(text)


RULES: dict[ProgramRule, Callable[[str, Problem], str]] = {
    "asked": asked,
    "last_fences": last_fences,
    "released": by_released,
}
"""Which part of a reply is the program."""
