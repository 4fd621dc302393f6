"""The program of a reply by the rule of Li et al. 2026 (authors' code, github.com/jimmy-yilong-li/CPPO at 2f8eb863).

The longest closed block that is marked as Python or not marked; else the whole reply if it compiles; else the reply
from the first line on that looks like code and from which the rest compiles; else the whole reply. A closed block in
another language makes it go wrong: its closing fence counts as the opening of a block without a mark, as with them.
`tests/fixtures/released_cppo.json` holds replies with what their code takes from them.

Departures: "compiles" is "parses" here, so that no code object is made of what a model wrote; and parsing is bounded
(`parses`, STARTS), since a reply must neither crash a training run nor hold it up.
"""

from __future__ import annotations

import ast
import re
import warnings

LONGEST = 20_000
"""Characters of the longest text that is parsed: a program of 2048 tokens has less than half of them."""
DEEPEST = 100
"""Brackets inside each other up to which a text is parsed; Python's own parser takes 200."""
STARTS = 20
"""Lines that look like code from which the rest is tried."""
_BLOCK = re.compile(r"```[ \t]*+(?:py\w*+[ \t]*+)?+\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(
    r"(?:import|from|def|class|async|for|while|if|try|with|return|print)\b|@\w|#|[A-Za-z_][\w.]*(?:\(|\[|\s*=|\s*,.*=)"
)
_BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)  # what parsing odd text raises
_STEPS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def longest_block(text: str) -> str | None:
    """The longest closed block that is marked as Python or not marked (the first of several); None: there is none."""
    found = [match[1].strip() for match in _BLOCK.finditer(text)]
    return max(found, key=len) if found else None


def program_of(text: str) -> str:
    """The program of a reply (above), without blank lines around it."""
    block = longest_block(text)
    if block is not None:
        return block
    text = text.strip()
    if parses(text):
        return text
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _CODE.match(line)]
    rests = ("\n".join(lines[number:]) for number in starts[:STARTS])
    return next(filter(parses, rests), text)


def parses(text: str) -> bool:
    """Is a text a Python program, as far as its grammar goes? Not where it is too long or too deep to be looked at.

    Nothing is compiled or run. Python's parser limits its own depth and the digits of a number, and raises what is
    caught here.
    """
    if len(text) > LONGEST or _depth(text) > DEEPEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a program are no news
            ast.parse(text)
    except _BROKEN:
        return False
    return True


def _depth(text: str) -> int:
    """How many brackets are open at once, at most; those in strings and comments count too."""
    deepest = depth = 0
    for character in text:
        depth = max(0, depth + _STEPS.get(character, 0))
        deepest = max(deepest, depth)
    return deepest
