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

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import ParameterError
from cppo_lib.runs.parameters import MODELS, Params, Report

PLUMBING = ("errors", "artefacts", "runs")
"""How runs are checked, filed and ordered: nothing in these changes what a run computes, but for `runs/stages`."""


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

    That is all but the `PLUMBING`, and in a notebook that makes no tables or figures of the paper all but `report`. A
    benchmark is loaded by name, so its module is counted as imported.
    """
    shown = () if issubclass(MODELS[notebook], Report) else ("report",)
    library = paths.root() / "cppo_lib"
    seen: set[str] = set()
    queue = [f"cppo_lib.data.benchmarks.{benchmark}", *_imports(code_of(notebook), "")]
    while queue:
        name = queue.pop()
        path = _module_file(library, name)
        if name in seen or path is None or _package(name) in (*PLUMBING, *shown):
            continue
        seen.add(name)
        queue += _imports(path.read_text(encoding="utf-8"), name)
    files = {_module_file(library, name) for name in seen - {"cppo_lib"}}
    return tuple(sorted(path for path in files if path is not None))


def _package(name: str) -> str:
    """Which package of the library a module belongs to; `runs/stages` is one of its own."""
    parts = name.split(".")[1:3]
    return ".".join(parts) if parts == ["runs", "stages"] else parts[0] if parts else ""


def _module_file(library: Path, name: str) -> Path | None:
    stem = library.parent.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(source: str, module: str) -> Iterator[str]:
    """Names of library modules in `import` statements, and in text such as `-m cppo_lib.x`."""
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse("\n".join(lines))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*parents, node.module or ""]).strip(".")
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        for name in names:
            if name.startswith("cppo_lib."):
                parts = name.split(".")
                yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))


def fingerprint(params: Params, inputs: Iterable[Path] = (), commits: Mapping[str, str] | None = None) -> str:
    """SHA-256 of all that a run's results follow from: parameters, code and inputs.

    Args:
        params: the run's parameters; they name the notebook.
        inputs: files or folders that the run reads, such as the `summary.json` of an earlier one.
        commits: of the hub models that it takes (`cppo_lib.model.policy.commits`).
    """
    code = [params.notebook, code_hash(params.notebook)]
    files = [*modules_of(params.notebook, params.benchmark), *inputs]
    hashes = {paths.show(path): store.file_sha256(path) for path in files}
    known = {"params": params.model_dump(), "code": code, "files": hashes, "commits": dict(commits or {})}
    return store.params_sha256(known)
