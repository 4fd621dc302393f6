"""Mutants of reference solutions, and what plain Python says of them.

A mutant is a module with one small fault put into its syntax tree: an operator, a comparison, a constant, a condition,
a statement, an argument or a return value changed. Some mutants still pass their check, because the fault does not
matter or the check is too weak. Which ones is found out by running the check once in plain Python, far from the
verifier: `run_in_plain_python` starts this file as a script that forks once per mutant. Mutants come from trusted code,
so limits on CPU time and memory are all the guard they get; one that exceeds them has failed.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Any, NamedTuple

Edit = tuple[str, dict[str, Any]]
"""Kind of fault, and the fields of one syntax node that make it."""

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitXor: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
NAMES = {"min": "max", "max": "min", "all": "any", "any": "all", "sum": "len", "sorted": "list"}
MEMORY = 1 << 30
"""Address space of a mutant, in bytes."""
ENDS = {0: "passed", 1: "assertion", 2: "exception", -signal.SIGXCPU: "CPU time", -signal.SIGKILL: "CPU time"}


class Truth(NamedTuple):
    """What plain Python says of a program: whether it passed, why not, and the CPU seconds it took."""

    passed: bool
    why: str
    cpu_s: float


def mutants(source: str, most: int) -> list[tuple[str, str]]:
    """At most `most` mutants of a module as (kind, source), all different, spread over the kinds of fault."""
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if ast.get_docstring(function):
            del function.body[0]
    seen, by_kind = {ast.unparse(tree)}, defaultdict(list)
    for function in functions:
        for node in ast.walk(function):
            for kind, fields in edits(node):
                before = {field: getattr(node, field) for field in fields}
                vars(node).update(fields)
                mutant = ast.unparse(tree)
                vars(node).update(before)
                if mutant not in seen:
                    seen.add(mutant)
                    by_kind[kind].append((kind, mutant))
    in_turn = chain.from_iterable(zip_longest(*by_kind.values()))
    return [mutant for mutant in in_turn if mutant is not None][:most]


def edits(node: ast.AST) -> Iterator[Edit]:
    """Every fault that one node of a syntax tree can be given."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield "operator", {"op": OPERATORS[type(op)]()}
            yield "operands swapped", {"left": right, "right": left}
        case ast.AugAssign(_, op) | ast.BoolOp(op) if type(op) in OPERATORS:
            yield "operator", {"op": OPERATORS[type(op)]()}
        case ast.Compare(_, [op, *rest]) if type(op) in OPERATORS:
            yield "comparison", {"ops": [OPERATORS[type(op)](), *rest]}
        case ast.Constant(bool(value)):
            yield "constant", {"value": not value}
        case ast.Constant(int(value)):
            yield "off by one", {"value": value + 1}
            yield "off by one", {"value": value - 1}
        case ast.Constant(str(value)):
            yield "constant", {"value": value + "x"}
        case ast.If() | ast.While() | ast.IfExp():
            yield "negation", {"test": ast.UnaryOp(ast.Not(), node.test)}
        case ast.comprehension(_, _, [test, *rest]):
            yield "negation", {"ifs": [ast.UnaryOp(ast.Not(), test), *rest]}
        case ast.Return(ast.expr()):
            yield "return", {"value": ast.Constant(None)}
        case ast.Call(_, [first, second, *rest]):
            yield "arguments swapped", {"args": [second, first, *rest]}
        case ast.Name(name) if name in NAMES:
            yield "name", {"id": NAMES[name]}
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            for place, statement in enumerate(block):
                if not isinstance(statement, ast.Return | ast.FunctionDef | ast.Pass):
                    yield "statement dropped", {field: [*block[:place], ast.Pass(), *block[place + 1 :]]}


def run_in_plain_python(jobs: list[tuple[str, str, str]], cpu_s: int) -> list[Truth]:
    """Run each (program, check, function) once, each in a fresh fork of one plain interpreter.

    A job is what an `assert` problem of the library says: `check` is the source that defines `check(candidate)` and
    whatever it needs, in a namespace of its own; `function` is the name in the program's that is handed to it.
    """
    command = [sys.executable, "-P", __file__, str(cpu_s)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # the order of a set is part of a program's behaviour
    done = subprocess.run(command, input=json.dumps(jobs), env=environment, capture_output=True, text=True, check=True)
    return [Truth(*row) for row in json.loads(done.stdout)]


def _guarded(program: str, check: str, function: str, cpu_s: int) -> Truth:
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            status = _checked(program, check, function)
        finally:
            os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return Truth(code == 0, ENDS.get(code, f"status {code}"), usage.ru_utime + usage.ru_stime)


def _checked(program: str, check: str, function: str) -> int:
    random.seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    test: dict[str, Any] = {"__name__": "check"}
    try:
        exec(compile(program, "solution.py", "exec", dont_inherit=True), names)
        exec(compile(check, "check.py", "exec", dont_inherit=True), test)
        test["check"](names[function])
    except AssertionError:
        return 1
    except BaseException:
        return 2
    return 0


def _main(cpu_s: int) -> None:
    jobs = json.load(sys.stdin)
    results, quiet = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    truths = [_guarded(program, check, function, cpu_s) for program, check, function in jobs]
    with os.fdopen(results, "w") as out:
        json.dump(truths, out)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
