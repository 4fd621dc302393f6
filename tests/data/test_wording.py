"""What a statement's words say about how an answer is compared: the contest sites' phrases, and texts like them."""

from __future__ import annotations

import pytest

from cppo_lib.data.benchmarks.wording import stdio_comparator
from cppo_lib.verifier import compare

ANY_CASE = [
    "Print YES or NO. You can print each letter in any case (upper or lower).",
    "You may print every letter in any case you want (so, for example, yEs and Yes are both right).",
    "You can print each letter in any register (upper or lower).",
    'You may print every letter in any register: "easy" and "EaSY" will be processed correctly.',
    "You can output the answer in any case (uppercase or lowercase).",
    'You can output "YES" and "NO" in any case (for example, "yEs" is a positive response).',
    r"You can output $\texttt{YES}$ and $\texttt{NO}$ in any case.",
    "You can print each letter in an arbitrary case (upper or lower).",
    "You can print the words in any case (either lowercase, uppercase or mixed).",
    "For each test case, first print either YES or NO (in any case), whether there is such a tree.",
    "The letters in the words YES and NO can be printed in any case.",
    "The output letters can be in any case.",
    "You can output each letter in upper or lower case.",
    "You may print each character of the string in either uppercase or lowercase (yEs and Yes are identical).",
    "Note that the checker is case-insensitive: you can print letters in both uppercase and lowercase.",
    "The judge is case-insensitive; if the answer is Fennec, fEnNeC is accepted too.",
    "The output is case insensitive.",
    "The answer is not case-sensitive.",
    "For each test case, print YES (case-insensitive) if it can be done.",
]
STRICT = [
    "Print YES or NO.",
    "Note that the output is case-sensitive.",
    "In any case, print the number of moves.",
    "If there is no path, print -1; in any case, print the length first.",
    "Print the string in lower case.",
    "Print a string of n uppercase or lowercase letters.",
    "Print the number of letters in upper case and lower case.",
    "The words of the input are case-insensitive. Print the longest.",
    "Print the names in case-insensitive alphabetical order.",
    "The input has letters in upper and lower case. Print them in reverse.",
    "Print the value of the register. A program writes to any register.",
    "Write a letter for any case that is closed.",
]


@pytest.mark.parametrize("statement", ANY_CASE)
def test_a_statement_may_allow_any_letter_case(statement: str) -> None:
    assert stdio_comparator(f"Count the trees.\n\nOutput\n\n{statement}\n\nExample") == "tokens_any_case"
    assert compare.resolve("stdio", stdio_comparator(statement))("", "Yes\n", "YES")


@pytest.mark.parametrize("statement", STRICT)
def test_without_such_words_case_matters(statement: str) -> None:
    assert stdio_comparator(f"Count the trees.\n\nOutput\n\n{statement}\n\nExample") == "tokens"
    assert not compare.resolve("stdio", stdio_comparator(statement))("", "Yes\n", "YES")
