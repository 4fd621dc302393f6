"""Hygiene of the committed notebooks: read as files, without starting a kernel.

Rules for every notebook; the numbered ones (00 to 07) are committed with the outputs of the smoke profile, and 01 to
07 are run by papermill with a parameter file each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

from cppo_lib.artefacts import paths
from cppo_lib.runs.parameters import MODELS

FOLDER = paths.root() / "notebooks"
SMOKE = paths.root() / "params" / "smoke"
ALL = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
NUMBERED = [name for name in ALL if name.startswith("0")]
VARIANT = {"03_rl_training": "cppo", "04_evaluation": "cppo"}  # whose values the notebook's defaults are
MAX_LINES, MAX_COLUMNS, MAX_DEF_LINES, MAX_BYTES = 30, 88, 15, 400 * 1024
TITLE_ROWS = ("Reads", "Writes", "Paper items", "Needs first")
MACHINE_PATH = re.compile(r"(?<![\w.<])/(?:home|root|Users|tmp|work|usr|var|opt|mnt|private)/|[A-Z]:\\Users\\")
NESTED_SCOPES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def load(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def outputs(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell.id, output


def texts(output: NotebookNode) -> Iterator[str]:
    """Every text that an output shows."""
    yield output.get("text", "")
    yield "\n".join(output.get("traceback", []))
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield data


def names_bound(tree: ast.AST) -> Iterator[str]:
    """Names that a cell's own scope assigns: by statements and loops, not inside functions and comprehensions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, NESTED_SCOPES):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.id
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        yield from names_bound(node)


def parameters_of(cell: NotebookNode) -> dict[str, object]:
    """The literals of a parameters cell; SyntaxError or ValueError for anything else in it."""
    values = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name), ast.unparse(statement)
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    return values


def smoke_values(name: str) -> dict[str, object]:
    """The smoke profile's values, numbers such as 2e-3 (text to YAML) read as the model reads them."""
    variant = f".{VARIANT[name]}" if name in VARIANT else ""
    values = yaml.safe_load((SMOKE / f"{name}{variant}.yaml").read_text(encoding="utf-8"))
    return MODELS[name].model_validate(values).model_dump()


def test_every_step_of_the_series_has_its_notebook():
    assert set(MODELS) <= set(NUMBERED)


@pytest.mark.parametrize("name", ALL)
def test_metadata_is_a_plain_python3_notebook(name):
    notebook = load(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, cell.id


@pytest.mark.parametrize("name", ALL)
def test_cell_ids_are_unique_words(name):
    ids = [cell.id for cell in load(name).cells]
    assert len(set(ids)) == len(ids)
    for ident in ids:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", ident), ident
        assert not re.fullmatch(r"(?=.*\d)[0-9a-f]{8}", ident), f"{ident} looks generated"


@pytest.mark.parametrize("name", ALL)
def test_code_cells_are_short_and_narrow(name):
    for cell in code_cells(load(name)):
        lines = cell.source.splitlines()
        most = 100 if "parameters" in cell.metadata.get("tags", []) else MAX_LINES  # a line for each key
        assert 0 < len(lines) <= most, cell.id
        assert max(map(len, lines)) <= MAX_COLUMNS, cell.id
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_DEF_LINES, f"{cell.id}: {node.name}"


@pytest.mark.parametrize("name", ALL)
def test_no_shell_installation_or_relative_path(name):
    for cell in code_cells(load(name)):
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), cell.id
        assert not re.search(r"""["']\.{1,2}/|os\.chdir|sys\.path""", cell.source), cell.id


@pytest.mark.parametrize("name", ALL)
def test_outputs_name_no_machine_and_no_user(name):
    own = {str(Path.home()), str(paths.root())} - {"/"}
    for ident, output in outputs(load(name)):
        for text in texts(output):
            found = MACHINE_PATH.search(text)
            assert not found, f"{ident}: {text[max(0, found.start() - 20) : found.end() + 40]}"
            assert not any(path in text for path in own), ident


@pytest.mark.parametrize("name", ALL)
def test_no_errors_no_warnings_and_no_widgets_in_outputs(name):
    for ident, output in outputs(load(name)):
        assert output.output_type != "error", ident
        assert output.get("name") != "stderr", f"{ident}: {output.text[:200]}"
        assert not any("widget" in kind for kind in output.get("data", {})), ident


@pytest.mark.parametrize("name", ALL)
def test_file_is_small(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("name", NUMBERED)
def test_executed_once_from_top_to_bottom(name):
    counts = [cell.execution_count for cell in code_cells(load(name))]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NUMBERED)
def test_at_least_three_cells_are_checked(name):
    checked = tagged(load(name), "nbval-check-output")
    assert len(checked) >= 3
    for cell in checked:
        assert cell.outputs, f"{cell.id} is checked but prints nothing"


@pytest.mark.parametrize("name", NUMBERED)
def test_title_says_what_is_read_and_written(name):
    title = load(name).cells[0]
    assert title.cell_type == "markdown" and title.source.startswith(f"# {name.partition('_')[0]} · ")
    for row in TITLE_ROWS:
        assert re.search(rf"^\| {row} \| .+\|$", title.source, re.MULTILINE), row


@pytest.mark.parametrize("name", sorted(MODELS))
def test_parameters_are_those_of_the_smoke_profile(name):
    (cell,) = tagged(load(name), "parameters")
    # Walked by hand, 04 evaluates methods beside CPPO; the series has a run for each of them.
    others = {"others": ["direct", "plan_then_solve", "sft"]} if name == "04_evaluation" else {}
    assert parameters_of(cell) == smoke_values(name) | others
    assert all("#" in line for line in cell.source.splitlines()), "every parameter has a comment"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_config_is_checked_right_after_the_parameters(name):
    cells = code_cells(load(name))
    position = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    assert f'config.from_notebook("{name}", globals())' in cells[position + 1].source


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_parameter_is_assigned_again(name):
    notebook = load(name)
    (parameters,) = tagged(notebook, "parameters")
    keys = set(parameters_of(parameters))
    for cell in code_cells(notebook):
        if cell.id != parameters.id:
            again = keys & set(names_bound(ast.parse(cell.source)))
            assert not again, f"cell {cell.id} assigns {sorted(again)}"


def test_a_reassigned_parameter_is_seen():
    code = """for k in (1, 2):
    pass
def f():
    seed = 1
[steps for steps in ()]
import arm
with f() as (beta, _):
    pass"""
    assert set(names_bound(ast.parse(code))) & {"k", "seed", "steps", "arm", "beta"} == {"k", "arm", "beta"}
