"""How a plan of K methods is written and read: as a numbered list (ours) or as labelled lines (Li et al. 2026).

    numbered    1. a heap                   labelled    A: a heap keyed by ...
                2. two pointers                         B: two pointers that ...

Numbered plans are phrases, and an incomplete list is read as far as it goes. Labelled ones are the contract of the
authors' code (github.com/jimmy-yilong-li/CPPO at 2f8eb863): a sentence of at most 45 words behind each label, and K
labels or nothing. `tests/fixtures/released_cppo.json` holds what their readers make of plans; ours make the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase as LABELS
from typing import Literal, NamedTuple

from cppo_lib.errors import ParameterError
from cppo_lib.rollout.replies import WORDS, bare, plain, said

PlanFormat = Literal["numbered", "labelled"]
MOST_WORDS: dict[PlanFormat, int] = {"numbered": 40, "labelled": 45}
"""Words of a method beyond which it is no method but a worked solution; of numbered plans our default."""
MAX_LISTED = 64  # more than any tuple has


@dataclass(frozen=True)
class ParsedTuple:
    """What was read from a planner completion: the listed methods in order, and whether exactly K were listed.

    `most_words`: as many as a method of the plan's format may have.
    """

    methods: tuple[str, ...]
    complete: bool
    most_words: int = field(default=MOST_WORDS["numbered"], compare=False)


# --- numbered -----------------------------------------------------------------------------------

_START = r"^(?P<indent>\s*)(?:[-+*•#>]+\s+)*"
_ITEMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_START}[(\[#]*\d+\s*[.):\]]+(?!\d)\s*(?P<method>.*\S)\s*$",
        rf"{_START}{WORDS}\s+#?\d+\s*[.):]+\s*(?P<method>.*\S)\s*$",
        r"^(?P<indent>\s*)[-*•]\s*(?P<method>.*\S)\s*$",
    )
)
"""Lines of a list: numbered, numbered after a word (`Method 1: ...`), bulleted."""


def parse_tuple(completion: str, k: int) -> ParsedTuple:
    """Read the numbered lines of a plan, or its bulleted ones where none is numbered.

    Thoughts and other lines are ignored, such as bullets that explain a numbered method, and items of a list in the
    list; marks, numbers and labels in front of a method and a colon at its end are dropped (`replies.bare`). A plan
    with more or fewer than `k` items is incomplete; its first `k` items can still be attempted.
    """
    lines = said(completion).splitlines()
    # Emphasis hides a number (`**1. A heap**`), but its mark is a bullet to some models.
    numbered, worded, bulleted = _ITEMS
    found = _items(numbered, map(plain, lines)) or _items(worded, map(plain, lines)) or _items(bulleted, lines)
    methods = tuple(filter(None, map(bare, found)))
    return ParsedTuple(methods[:k], len(methods) == k)


def _items(form: re.Pattern[str], lines: Iterable[str]) -> list[str]:
    """What follows the marks of the lines of a form; those that are two spaces deeper than others are left out."""
    found = list(filter(None, map(form.match, lines)))
    depths = [len(item["indent"].expandtabs(4)) for item in found]
    return [item["method"] for item, depth in zip(found, depths, strict=True) if depth < min(depths) + 2]


def first_line(text: str) -> str | None:
    """The first line that says something, without marks; announcements (ending in a colon) and code fences do not."""
    for line in said(text).splitlines():
        if re.search(r"\w", bare(line)) and not plain(line).rstrip().endswith(":") and "```" not in line:
            return bare(line)
    return None


def render_tuple(methods: Sequence[str]) -> str:
    """The planner completion that lists these methods; `parse_tuple` reads it back."""
    return "\n".join(f"{number}. {method}" for number, method in enumerate(methods, start=1))


# --- labelled -----------------------------------------------------------------------------------

_LABEL = re.compile(r"^[ \t>#*_+\-•]*+(?P<label>[A-Z])[*_]*+(?::|[.)](?=[\s*_]|$))[ \t]*+[*_]*+", re.MULTILINE)
"""A label at the beginning of a line, with what Markdown puts around it."""


class Labelled(NamedTuple):
    """A label of a text, what follows it up to the next label of the plan, and the place where it begins."""

    label: str
    method: str
    start: int


def labelled(text: str, labels: str = LABELS) -> list[Labelled]:
    """Every place of `labels` in a text, in order. A line that begins with no label continues the method before it."""
    found = [match for match in _LABEL.finditer(text) if match["label"] in labels]
    ends = [*(match.start() for match in found), len(text)][1:]
    return [
        Labelled(match["label"], text[match.end() : end].strip().rstrip("*").rstrip(), match.start())
        for match, end in zip(found, ends, strict=True)
    ]


def labels_of(k: int) -> str:
    """The labels of a plan of `k` methods. Raises ParameterError where the alphabet has not so many letters."""
    if k > len(LABELS):
        raise ParameterError(f"a labelled plan has at most {len(LABELS)} methods: lower k or set plan_format: numbered")
    return LABELS[:k]


def parse_labelled(text: str, k: int) -> ParsedTuple:
    """Read a labelled plan forgivingly; a plan without all of its `k` labels has no methods at all.

    The order of the labels is free, and of a label that comes twice the first counts. What follows the last label
    belongs to it, further labels too; words before the first are ignored. A method may be empty, which the gate
    refuses. Thoughts are not looked for: `PromptStyle.read_tuple` does that.

    Raises:
        ParameterError: more methods than there are letters.
    """
    labels = labels_of(k)
    found: dict[str, str] = {}
    for label, method, _ in labelled(text, labels):
        found.setdefault(label, method)
    complete = len(found) == k
    methods = tuple(found[label] for label in labels) if complete else ()
    return ParsedTuple(methods, complete, MOST_WORDS["labelled"])


def is_canonical(text: str, k: int) -> bool:
    """Does a plan have exactly its `k` labels, each once and in order, and nothing before them?

    The form that the authors ask of tuples for the gate, after which `parse_labelled` cannot go wrong.

    Raises:
        ParameterError: more methods than there are letters.
    """
    found = labelled(text)
    return [each.label for each in found] == list(labels_of(k)) and not text[: found[0].start].strip()


def all_methods(plan: str, plan_format: PlanFormat) -> tuple[str, ...]:
    """The methods of a plan of any size, without empty ones."""
    if plan_format == "numbered":
        return parse_tuple(plan, MAX_LISTED).methods
    return tuple(filter(None, (each.method for each in labelled(said(plan)))))


def read_either(plan: str) -> tuple[str, ...]:
    """The methods of a plan in a file: labelled where it begins with the label A, else numbered."""
    first = _LABEL.match(plan.strip())
    return all_methods(plan, "labelled" if first and first["label"] == "A" else "numbered")


def render_labelled(methods: Sequence[str]) -> str:
    """The planner completion that lists these methods; `parse_labelled` reads it back. Raises as `labels_of`."""
    return "\n".join(f"{label}: {method}" for label, method in zip(labels_of(len(methods)), methods, strict=True))
