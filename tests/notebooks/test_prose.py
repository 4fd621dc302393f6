"""The numbers in the notebooks' prose: sums that are worked out by hand are right, and the others stand in a cell.

A decimal number in a sentence is checked in one of two ways. Where the sentence works something out, as `0.6 + 0.3 =
0.9`, every side of the equation is computed. Elsewhere the number must stand, to as many digits, in the code or the
output of a cell of the same notebook, which `test_nbval` holds to what the notebook prints today.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest
from test_notebooks import ALL, code_cells, load, outputs, texts

DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?!\.?\d)")
NAMES = {"arXiv 2605.27000", "3.11", "3.13"}
_FRACTIONS = {"½": "(1/2)", "¼": "(1/4)", "¾": "(3/4)"}
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
# What an equation in a sentence is made of; a comma only between the two numbers of C(n, k).
_EQUATION = re.compile(
    r"(?:(?<!\w)(?!C\()(?P<before>[^\W\d])(?!\w)\s*)?"  # a variable before the first side
    r"(?P<sides>(?:C\(\d+,\s*\d+\)|ln\b|[-\d.\s+·/()√^½¼¾⁰¹²³⁴-⁹=])+)"
)


def computed(side: str) -> float | None:
    """The value of an arithmetic expression as it is written in prose; None where it is none."""
    text = side.strip(" .\n")
    text = re.sub(r"C\((\d+),\s*(\d+)\)", lambda found: str(math.comb(int(found[1]), int(found[2]))), text)
    text = re.sub(r"[⁰¹²³⁴-⁹]+", lambda found: "**" + found[0].translate(_POWERS), text)
    for sign, value in _FRACTIONS.items():
        text = text.replace(sign, value)
    text = text.replace("·", "*").replace("^", "**")
    text = re.sub(r"ln (\d+)", r"log(\1)", text).replace("√", "sqrt")
    text = re.sub(r"(?<=[\d)])\s+(?=[(ls])", "*", text)  # 0.6 (1 - 1/9), (4/3) ln 2
    try:
        return float(eval(text, {"__builtins__": {}, "log": math.log, "sqrt": math.sqrt}))
    except (SyntaxError, TypeError, NameError):
        return None


def equations(prose: str) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Each equation of a text with the sides that can be computed; a variable before the first side leaves it out."""
    for found in _EQUATION.finditer(prose):
        sides = found["sides"].split("=")
        if len(sides) > 1 and found["before"]:
            sides = sides[1:]
        values = [(side, value) for side in sides if (value := computed(side)) is not None]
        if len(values) > 1:
            yield found["sides"].strip(), values


def half_a_digit(side: str) -> float:
    """How far a side may be off by rounding: half of its last decimal where it is one number, else nothing."""
    plain = side.strip(" .\n")
    return 0.5 * 10.0 ** -len(plain.partition(".")[2]) if re.fullmatch(r"\d+\.\d+", plain) else 0.0


def prose(name: str) -> Iterator[str]:
    """The texts of a notebook but its exercises, whose numbers are for the reader to choose."""
    for cell in load(name).cells:
        if cell.cell_type == "markdown" and cell.id != "exercises":
            yield re.sub(r"^> ?", "", cell.source, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_equations_in_prose_hold(name: str) -> None:
    for text in prose(name):
        for shown, values in equations(text):
            rounding = sum(half_a_digit(part) for side, _ in values for part in re.split(r"[+·]", side))
            assert max(v for _, v in values) - min(v for _, v in values) <= rounding + 1e-9, shown


@pytest.mark.parametrize("name", ALL)
def test_other_numbers_in_prose_stand_in_a_cell(name: str) -> None:
    notebook = load(name)
    cells = [cell.source for cell in code_cells(notebook)] + [t for _, out in outputs(notebook) for t in texts(out)]
    known = [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", "\n".join(cells))]
    for text in prose(name):
        known += [float(a) / float(b) for a, b in re.findall(r"(?<![\d/])(\d+)/([1-9]\d*)", text)]
        worked_out = "".join(shown for shown, _ in equations(text))
        for number in DECIMAL.findall(text):
            rounding = 0.5 * 10.0 ** -len(number.partition(".")[2]) + 1e-9
            shown = number in worked_out or any(abs(value - float(number)) <= rounding for value in known)
            assert shown or any(number in word for word in NAMES), number


def test_the_equations_are_found() -> None:
    found = [shown for name in ALL for text in prose(name) for shown, _ in equations(text)]
    assert len(found) >= 15, found


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("By hand: 0.6 · 0.19 + 0.3 (1 - 4/9) = 0.281.", [0.28066666, 0.281]),
        ("so c (2 + 10/3 + 5) = 2 gives", []),  # c is unknown
        ("(ln 2 + ln 4 + ln 2)/3 = (4/3) ln 2 = 0.924", [0.924196, 0.924196, 0.924]),
        ("C(5,4) = 5 of the C(8,4) = 71, and 2 (1 + 9) / 2⁹ = 20/512", [5, 5, 70, 71, 0.0390625, 0.0390625]),
        ("std √(¼ + ¼) = 0.707, which is 4 / 3^(3/4) = 1.75.", [0.7071068, 0.707, 1.754765, 1.75]),
    ],
)
def test_an_equation_is_computed(text: str, values: list[float]) -> None:
    assert [value for _, sides in equations(text) for _, value in sides] == pytest.approx(values, rel=1e-6)
