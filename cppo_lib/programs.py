"""When are two programs the same? Equality and similarity up to the names of variables.

Both work on the syntax tree without docstrings, comments and layout, in which every name that the
program itself binds is replaced by a number. Builtins, methods and constants stay: `min` and `max`
or `[0]` and `[-1]` are different programs. Text that does not parse is compared word by word.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import warnings


class _Rename(ast.NodeTransformer):
    """Drop docstrings and give every name that the program binds a number, in order of mention."""

    def __init__(self, bound: set[str]) -> None:
        self.bound = bound
        self.numbers: dict[str, str] = {}

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("id", "arg", "name", "asname"):
            value = getattr(node, name, None)
            if isinstance(value, str) and value in self.bound and not isinstance(node, ast.keyword):
                setattr(node, name, self.numbers.setdefault(value, f"v{len(self.numbers)}"))
        return super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)


def _bound(node: ast.AST) -> str | None:
    """The name a node binds: a variable, an argument, a function or class, an import's `as`."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
        return node.name
    return node.asname if isinstance(node, ast.alias) else None


def _normal_tree(program: str) -> tuple[ast.AST, str] | None:
    """The tree without docstrings and chosen names, and its text; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a candidate are no news
            tree = ast.parse(program)
        bound = {name for node in ast.walk(tree) if (name := _bound(node)) is not None}
        renamed = _Rename(bound).visit(tree)
        return renamed, ast.dump(renamed)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.cache
def program_parts(program: str) -> frozenset[str]:
    """All subtrees of the normalised program, or its words where it does not parse."""
    normal = _normal_tree(program)
    if normal is None:
        return frozenset(program.split())
    nodes = (node for node in ast.walk(normal[0]) if isinstance(node, (ast.expr, ast.stmt)))
    return frozenset(ast.dump(node) for node in nodes)


@functools.cache
def program_key(program: str) -> str:
    """A hash that equal programs share, whatever they call their variables."""
    normal = _normal_tree(program)
    text = " ".join(program.split()) if normal is None else normal[1]
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@functools.cache
def program_similarity(a: str, b: str) -> float:
    """Share of subtrees in common (Jaccard), 1 for equal programs; a positive definite kernel."""
    left, right = program_parts(a), program_parts(b)
    return len(left & right) / len(left | right) if left or right else 1.0
