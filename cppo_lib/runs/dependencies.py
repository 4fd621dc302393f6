"""What a notebook's results depend on: its code cells and the library modules that it imports.

Found in the source text, without importing anything. Used twice: the series re-runs a notebook when
one of these has changed, and a run that was interrupted resumes only where none of them has.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.errors import ParameterError
from cppo_lib.runs.parameters import MODELS, Params, Report

NO_RESULT = ("errors", "artefacts", "runs", "report")
"""Packages in which nothing changes what a run computes, but for `runs/stages`: they check, file, order and show."""
Name = tuple[str, ...]  # a dotted name's parts


def notebook_path(notebook: str) -> Path:
    """`notebooks/<notebook>.ipynb`. Raises ParameterError when there is none."""
    path = paths.root() / "notebooks" / f"{notebook}.ipynb"
    if not path.is_file():
        raise ParameterError(f"{paths.show(path)} does not exist")
    return path


def code_of(notebook: str) -> str:
    """The notebook's code cells, joined; Markdown and outputs change no result."""
    path = notebook_path(notebook)
    try:
        # As plain JSON: importing nbformat takes seconds, and every start of the series would pay.
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError) as error:
        raise ParameterError(f"{paths.show(path)} is not a notebook ({error!r})") from error
    return "\n\n".join("".join(source) for source in sources)


def code_hash(notebook: str) -> str:
    """A short SHA-256 of the notebook's code cells."""
    return hashlib.sha256(code_of(notebook).encode()).hexdigest()[:16]


@functools.cache
def modules_of(notebook: str, benchmark: str) -> tuple[Path, ...]:
    """Library files that the notebook imports, directly or not, and that its results follow from.

    That is all but `NO_RESULT`, of which a notebook that makes the paper's tables or figures has `report`. A benchmark
    is loaded by name, so its module is counted as imported.
    """
    library = paths.root() / "cppo_lib"
    left_out = {*NO_RESULT} - ({"report"} if issubclass(MODELS[notebook], Report) else set())
    seen: set[Path] = set()
    queue = [*_files(("cppo_lib", "data", "benchmarks", benchmark)), *imported(code_of(notebook), paths.root())]
    while queue:
        path = queue.pop()
        package, *inner = path.relative_to(library).with_suffix("").parts
        if path not in seen and (package not in left_out or inner[:1] == ["stages"]):
            seen.add(path)
            queue += imported(path.read_text(encoding="utf-8"), path.parent)
    return tuple(sorted(seen - {library / "__init__.py"}))


def imported(source: str, folder: Path) -> Iterator[Path]:
    """Library files that a source in `folder` imports, or names in text such as `-m cppo_lib.x`.

    A name that the front door of a package (`__init__.pyi`) takes from a file counts as that file.
    """
    for node in nodes(source):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _files(tuple(alias.name.split(".")))
            case ast.ImportFrom(names=names):
                for alias in names:
                    yield from _files_behind(_module(node, folder), alias.name)
            case ast.Constant(value=str(text)) if text.startswith("cppo_lib."):
                yield from _files(tuple(text.split(".")))


def nodes(source: str) -> Iterator[ast.AST]:
    """Every node of a source, which may hold IPython's `%` and `!` lines."""
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    return ast.walk(ast.parse("\n".join(lines)))


def _module(node: ast.ImportFrom, folder: Path) -> Name:
    """What a `from` statement in `folder` imports from."""
    above = folder.relative_to(paths.root()).parts if node.level else ()
    return (*above[: len(above) - node.level + 1], *(node.module.split(".") if node.module else ()))


def _files(name: Name) -> Iterator[Path]:
    """The files that are run when a module is imported: its own and the `__init__.py` of each package around it."""
    if name[0] == "cppo_lib":
        for end in range(1, len(name) + 1):
            stem = paths.root().joinpath(*name[:end])
            yield from (path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file())


def _files_behind(module: Name, name: str) -> Iterator[Path]:
    """The files of a module, and that in which a name stands which is imported from it."""
    yield from _files(module)
    if behind := front_door(paths.root().joinpath(*module)).get(name):
        yield from _files_behind(*behind)
    else:
        yield from _files((*module, name))


@functools.cache
def front_door(package: Path) -> dict[str, tuple[Name, str]]:
    """The names that a package's `__init__.pyi` offers, each with the module and the name there; {} without one."""
    stub = package / "__init__.pyi"
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body if stub.is_file() else []
    return {
        alias.asname or alias.name: (_module(node, package), alias.name)
        for node in nodes if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip


def fingerprint(params: Params, inputs: Iterable[Path] = (), commits: Mapping[str, str] | None = None) -> str:
    """The library's layout, and the SHA-256 of all that a run's results follow from: parameters, code and inputs.

    Args:
        params: the run's parameters; they name the notebook.
        inputs: files or folders that the run reads, such as the `summary.json` of an earlier one.
        commits: of the hub models that it takes (`cppo_lib.model.policy.commits`).
    """
    code = [params.notebook, code_hash(params.notebook)]
    files = [*modules_of(params.notebook, params.benchmark), *inputs]
    hashes = {paths.show(path): store.file_sha256(path) for path in files}
    known = {"params": params.model_dump(), "code": code, "files": hashes, "commits": dict(commits or {})}
    return f"{notes.LAYOUT}:{notes.params_sha256(known)}"
