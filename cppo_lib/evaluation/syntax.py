"""The process that parses programs which a model wrote: source text in, numbers out.

    python -I -S syntax.py      JSON strings on standard input, one a line; "ready" and one JSON object each on output

A parser can be made to crash, to loop or to fill memory, and must not take a training run with it. So nobody imports
`describe`: `cppo_lib.evaluation.programs` starts this file as a script, which limits itself and may die. Nothing is run
here, a program is only parsed and compiled. Standard library only.

A program becomes four things. Features are 64-bit hashes; a feature that occurs n times becomes n different ones, so
that sets of them can be compared like bags.

    key         equal for programs that differ in comments, layout, docstrings and the names they choose, only
    subtrees    set of its expressions and statements, chosen names numbered in order of mention
    grams       bag of the pq-grams of its tree (Augsten, Boehlen & Gamper, VLDB 2005; p=2, q=3), which stand in for a
                tree edit distance: a node, its parent and three neighbours among its children. Chosen names are all
                alike, constants have a type but no value, reading and writing a name are the same
    opcodes     bag of runs of three byte-code instructions without arguments (but with operators), docstrings,
                assertions and jump targets. They depend on the version of Python

Builtins, methods, attributes and keywords keep their names: `min` and `max` are different programs. Text that does not
parse (for `opcodes`: compile) is the set of its words.
"""

from __future__ import annotations

import ast
import dis
import gc
import json
import resource
import signal
import sys
import types
import warnings
from collections import Counter
from functools import lru_cache
from hashlib import blake2b

CPU_S = 2.0
"""CPU seconds for one program; who needs more ends the process."""
MEMORY = 1 << 30
"""Bytes of address space."""
DEPTH = 5000
"""Frames of recursion: enough for an `elif` chain of 2000; a deeper tree counts as one that does not parse."""
BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""What parsing or compiling odd text raises."""

_NAMED = {
    "Name": "id", "arg": "arg", "alias": "asname", "ExceptHandler": "name",
    "FunctionDef": "name", "AsyncFunctionDef": "name", "ClassDef": "name",
    "MatchAs": "name", "MatchStar": "name", "MatchMapping": "rest",
    "TypeVar": "name", "ParamSpec": "name", "TypeVarTuple": "name",
}  # fmt: skip
"""The field of each kind of node that holds a name which the program chooses."""
_IN_LABEL = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
_BRANCHES = ("orelse", "finalbody")  # their statements are told from those of the body
_SILENT = {dis.opmap[name] for name in ("CACHE", "EXTENDED_ARG", "NOP", "RESUME") if name in dis.opmap}
_OPERATORS = {dis.opmap[name] for name in ("BINARY_OP", "COMPARE_OP")}


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


_occurrence = lru_cache(1 << 16)(_digest)  # programs share most of their grams and opcodes


def _bag(counts: Counter[tuple[str, ...]]) -> str:
    """Every occurrence of every item as a feature of its own."""
    return "".join(_occurrence(item, number) for item, count in counts.items() for number in range(count))


def words(program: str) -> dict[str, str]:
    """The features of text that does not parse: its words. Safe on any text."""
    features = "".join(sorted({_digest("word", word) for word in program.split()}))
    key = _digest("text", " ".join(program.split()))
    return {"key": key, "subtrees": features, "grams": features, "opcodes": features}


# --- the tree -----------------------------------------------------------------------------------


def _chosen(tree: ast.AST) -> set[str]:
    """Names that the program binds; not those that Python gives a meaning, such as `__init__`."""
    names = set()
    for node in ast.walk(tree):
        field = _NAMED.get(type(node).__name__)
        if field and not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
            names.add(getattr(node, field))
    return {name for name in names if name and not (name.startswith("__") and name.endswith("__"))}


def _is_text(node: object) -> bool:
    """A statement that is only a string, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class _Reader:
    """One walk over a tree, which collects its subtrees and pq-grams."""

    def __init__(self, chosen: set[str]) -> None:
        self.chosen = chosen
        self.numbers: dict[str, str] = {}
        self.subtrees: set[str] = set()
        self.grams: Counter[tuple[str, ...]] = Counter()

    def read(self, node: ast.AST, above: str = "*", branch: str = "") -> tuple[str, str]:
        """Hash of the exact subtree, and the label of its root; `above` is the label of the parent."""
        label, exact, children = self._describe(node)
        label = branch + label
        read = [self.read(child, label, part) for child, part in children]
        below = [child_label for _, child_label in read]
        row = ["*", "*", *below, "*", "*"] if below else ["*"] * 3
        for start in range(len(row) - 2):
            self.grams[above, label, row[start], row[start + 1], row[start + 2]] += 1
        digest = _digest(exact, *(hashed for hashed, _ in read))
        if isinstance(node, (ast.expr, ast.stmt)):
            self.subtrees.add(digest)
        return digest, label

    def _describe(self, node: ast.AST) -> tuple[str, tuple[str, ...], list[tuple[ast.AST, str]]]:
        """A node's label, its exact text with a `()` for each child, and the children with their branch."""
        kind = type(node).__name__
        if isinstance(node, ast.Constant):
            return f"{kind} {type(node.value).__name__}", (kind, repr(node.value), repr(node.kind)), []
        label, exact = [kind], [kind]
        children: list[tuple[ast.AST, str]] = []
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == []:  # newer versions of Python have more fields
                continue
            exact.append(field)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.expr_context):
                    exact.append(type(item).__name__)
                elif isinstance(item, _IN_LABEL):
                    exact.append(type(item).__name__)
                    label.append(exact[-1])
                elif isinstance(item, ast.AST):
                    if not _is_text(item):
                        exact.append("()")
                        children.append((item, f"{field} " if field in _BRANCHES else ""))
                elif item in self.chosen and field in (_NAMED.get(kind), "names"):
                    exact.append(self.numbers.setdefault(item, f"v{len(self.numbers)}"))
                    label.append("_")
                else:
                    exact.append(repr(item))
                    label.append(exact[-1])
        return " ".join(label), tuple(exact), children


# --- byte code ----------------------------------------------------------------------------------


def _runs(code: types.CodeType) -> Counter[tuple[str, ...]]:
    """Runs of three instructions, with one blank before the first and after the last of each function."""
    runs: Counter[tuple[str, ...]] = Counter()
    todo = [code]
    while todo:
        code = todo.pop()
        todo += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        row = [""]
        for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
            if operation in _OPERATORS:
                row.append(f"{dis.opname[operation]} {argument}")
            elif operation not in _SILENT:
                row.append(dis.opname[operation])
        row.append("")
        runs.update(zip(row, row[1:], row[2:], strict=False))
    return runs


def describe(program: str) -> dict[str, str]:
    """Key and features of a program, each feature 16 hex digits. Parses: for the process of its own only."""
    program = program.removeprefix("\ufeff")  # as Python does with a file, and the verifier
    try:
        tree = ast.parse(program)
        reader = _Reader(_chosen(tree))
        key, _ = reader.read(tree)
        found = {"key": key, "subtrees": "".join(reader.subtrees), "grams": _bag(reader.grams)}
    except BROKEN:
        return words(program)
    try:
        return found | {"opcodes": _bag(_runs(compile(program, "", "exec", optimize=2)))}
    except BROKEN:
        return found | {"opcodes": words(program)["opcodes"]}


def _limit(which: int, amount: int) -> None:
    hard = resource.getrlimit(which)[1]
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(which, (amount, amount))


def main() -> None:
    """Describe the programs on standard input, one after the other."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)  # the answers go into a pipe
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    sys.setrecursionlimit(DEPTH)
    gc.disable()  # trees hold no cycles
    warnings.simplefilter("ignore")  # odd escapes in a program are no news
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        print(json.dumps(describe(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
