"""Load and check parameter files, before any kernel starts and again inside the notebook.

A file `params/<profile>/<notebook>[.<variant>].yaml` holds the fields of its notebook's model in
`cppo_lib.runs.parameters`: all of them, or only those in which it differs from the file beside it that it names in
`like: 03_rl_training.cppo.yaml`. `load_params` checks a file; `from_notebook` checks the values that a running notebook
was given, which papermill injects unchecked. Both fail with one line that names the file, the key, and the nearest
valid key or the allowed range.

    python -m cppo_lib.runs.config check params/tiny/*.yaml
    python -m cppo_lib.runs.config expand params/mine/03_rl_training.own.yaml > full.yaml   # for papermill -f
    python -m cppo_lib.runs.config docs                                                     # writes docs/parameters.md
"""

from __future__ import annotations

import argparse
import difflib
import functools
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cppo_lib.artefacts import paths, store
from cppo_lib.data.registry import BENCHMARKS
from cppo_lib.errors import CPPOError, ParameterError
from cppo_lib.runs.parameters import MODELS, DataPrep, Params
from cppo_lib.runs.published import Published

_Model = TypeVar("_Model", bound=BaseModel)
PUBLISHED = "published.yaml"
LIKE = "like"
_PARAMETERS_CELL = re.compile(r"\A# Parameters|^profile\s*[:=]", re.MULTILINE)  # papermill's own, or the notebook's
_ASSIGNED = re.compile(r"^(\w+)\s*[:=]", re.MULTILINE)


def notebook_of(path: Path) -> str:
    """`03_rl_training` for `03_rl_training.cppo.yaml`; ParameterError when there is no such one."""
    name = path.name.split(".")[0]
    if name not in MODELS:
        raise ParameterError(f"{paths.show(path)}: no notebook is called {name!r}{_nearest(name, MODELS)}")
    return name


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a parameter file. Raises ParameterError naming file and line."""
    return _parsed(path, yaml.SafeLoader)


def _parsed(path: Path, loader: type[yaml.SafeLoader | yaml.BaseLoader]) -> dict[str, Any]:
    where = paths.show(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), loader)  # both make plain values only
    except FileNotFoundError as error:
        raise ParameterError(f"{where}: there is no such parameter file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not UTF-8 text"
        raise ParameterError(f"{where}:{line} is not YAML ({problem})") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{where}: must be a list of `key: value` lines")
    return values


def _as_written(model: type[Params], values: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, with what stands in the file for a key that takes text: YAML reads 2026_10, 007 or no as no text."""

    def text(key: str, value: Any) -> Any:
        schema = _schemas(model).get(str(key), {})
        takes_text = any(kind.get("type") == "string" for kind in schema.get("anyOf", [schema]))
        return written[key] if takes_text and isinstance(value, bool | int | float | date) else value

    return {key: text(key, value) for key, value in values.items()}


def load_params(path: Path | str, **overrides: Any) -> Params:
    """The checked parameters of one run.

    Args:
        path: `params/<profile>/<notebook>[.<variant>].yaml`; the name selects the model.
        overrides: values that replace those of the file, as with `papermill -p`.

    Raises:
        ParameterError: one line with file, key, and the nearest valid key or the allowed range.
    """
    return _load(Path(path), overrides, ())


def _load(path: Path, overrides: Mapping[str, Any], asking: tuple[Path, ...]) -> Params:
    """`load_params`; `asking` are the files that name this one in `like`, the first one first."""
    model = MODELS[notebook_of(path)]
    values = _as_written(model, read_yaml(path), _parsed(path, yaml.BaseLoader))
    if LIKE in values:
        base = _file_beside(path, values.pop(LIKE))
        if base in (chain := (*asking, path)):
            raise ParameterError(
                f"{paths.show(path)}: key 'like' goes in a circle: {' -> '.join(_names(*chain, base))}"
            )
        values = _load(base, {}, chain).model_dump() | values
    params = validate(model, {**values, **overrides}, where=paths.show(path))
    folder, profile = path.resolve().parent, values.get("profile", params.profile)
    if folder.parent == paths.root() / "params" and profile != folder.name:
        raise ParameterError(
            f"{paths.show(path)}: key 'profile' is {profile!r} in the folder of "
            f"{folder.name!r}; write profile: {folder.name}"
        )
    return params


def _file_beside(path: Path, name: object) -> Path:
    """The parameter file of the same notebook that `like` names. Raises ParameterError when there is none."""
    beside = path.parent / str(name)
    mine = _names(*sorted(other for other in path.parent.glob(f"{notebook_of(path)}*.yaml") if other.name != path.name))
    if beside.name == name and beside.is_file() and notebook_of(beside) == notebook_of(path):
        return beside
    known = _nearest(str(name), mine) or (f"; there are {', '.join(mine)}" if mine else "; there is none")
    raise ParameterError(
        f"{paths.show(path)}: key 'like' is {name!r}; it must be a file of {notebook_of(path)} beside it{known}"
    )


def _names(*files: Path) -> list[str]:
    return [file.name for file in files]


def given_values(items: Iterable[str], path: Path | str) -> dict[str, Any]:
    """Values from `KEY=VALUE` words of a command line, read as in the parameter file `path`; nothing is empty text.

    Raises ParameterError when no notebook is called as the file is.
    """
    words = {key: value for key, _, value in (item.partition("=") for item in items)}
    values = {key: yaml.safe_load(value) if value else "" for key, value in words.items()}
    return _as_written(MODELS[notebook_of(Path(path))], values, words)


def load_published(path: Path | None = None) -> Published:
    """The paper's published figures, by default `params/paper/published.yaml`."""
    path = path or paths.root() / "params" / "paper" / PUBLISHED
    try:
        return Published.model_validate(read_yaml(path))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise ParameterError(f"{paths.show(path)}: key {key!r}: {fault['msg']}") from None


def from_notebook(notebook: str, namespace: Mapping[str, Any]) -> Params:
    """The checked parameters of a running notebook; call it right after the parameters cell.

    Args:
        notebook: the notebook's name, such as `03_rl_training`.
        namespace: the notebook's `globals()`. In a kernel, the names assigned by the parameters
            cell and by the cell papermill injects must all be parameters; elsewhere, every plain
            value (number, text, list, mapping, None) must be.

    Raises:
        ParameterError: as `load_params`, naming the notebook instead of a file.
    """
    model = MODELS[notebook]
    if "In" in namespace:  # not the whole namespace: a cell re-run by hand is not to blame for what later cells made
        named = {name for cell in namespace["In"] if _PARAMETERS_CELL.search(cell) for name in _ASSIGNED.findall(cell)}
    else:
        plain = (bool, int, float, str, list, dict, type(None))
        named = {name for name, value in namespace.items() if name[:1] != "_" and isinstance(value, plain)}
    values = {name: namespace[name] for name in sorted(named | set(model.model_fields)) if name in namespace}
    if LIKE in values:
        raise ParameterError(
            f"notebook {notebook}: papermill does not follow like: {values[LIKE]}; give it the whole file, which "
            "`python -m cppo_lib.runs.config expand FILE` prints"
        )
    return validate(model, values, where=f"notebook {notebook}")


def validate(model: type[Params], values: Mapping[str, Any], *, where: str) -> Params:
    """`values` as `model`. Raises ParameterError with one line about the first fault."""
    params = _checked(model, values, where)
    if isinstance(params, DataPrep):
        _checked(BENCHMARKS[params.benchmark].options, params.options, f"{where}: options of {params.benchmark}")
    return params


def _checked(model: type[_Model], values: Mapping[str, Any], where: str) -> _Model:
    odd = sorted(str(key) for key in values if key not in model.model_fields)
    if odd:
        near = _nearest(odd[0], [key for key in model.model_fields if key not in values])
        near = near or _nearest(odd[0], model.model_fields)
        known = near or f"; the keys are {', '.join(model.model_fields) or 'none'}"
        raise ParameterError(f"{where}: unknown key {odd[0]!r}{known}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError(f"{where}: {_first_fault(model, error)}") from None


def _first_fault(model: type[BaseModel], error: ValidationError) -> str:
    fault = error.errors()[0]
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    key, *inner = fault["loc"]
    if fault["type"] == "missing":
        return f"key {key!r} is missing; it must be {allowed(model, str(key))}"
    verb = "holds" if any(isinstance(place, int) for place in inner) else "is"  # an item of a list, else the value
    return f"key {key!r} {verb} {fault['input']!r}; it must be {allowed(model, str(key))}"


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def allowed(model: type[BaseModel], key: str) -> str:
    """The values of a key in words, such as `a whole number, at least 1`."""
    return _in_words(_schemas(model)[key])


@functools.cache
def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of each key."""
    return model.model_json_schema()["properties"]


def _in_words(schema: Mapping[str, Any]) -> str:
    if kinds := schema.get("anyOf"):
        form = {"form": schema["form"]} if "form" in schema else {}
        return ", or ".join(_in_words({**kind, **form}) for kind in kinds)
    if choices := schema.get("enum"):
        return f"one of {', '.join(choices)}"
    if schema["type"] == "array":
        return f"a list, each item {_in_words(schema['items'])}"
    bounds = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    kinds_of = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "object": "a mapping ({} when empty)",
        "null": "null",
    }
    parts = [kinds_of[schema["type"]]]
    parts += [f"{word} {schema[bound]}" for bound, word in bounds if bound in schema]
    if "pattern" in schema:
        parts.append(schema.get("form", "letters, digits, - and _ only"))
    return ", ".join(parts)


# --- commands ---------------------------------------------------------------------------------


def check(files: Iterable[Path]) -> None:
    """Print a line per good file. Raises ParameterError at the first bad one."""
    from cppo_lib.runs import profiles  # which reads files by this module

    for path in files:
        if path.name == PUBLISHED:
            load_published(path)
        elif path.name == profiles.FILE:
            profiles.read(path)
        else:
            load_params(path)
        print(f"{paths.show(path)}: ok")


def docs() -> str:
    """docs/parameters.md: a table per notebook, from the models."""
    lines = [
        "# Parameters",
        "",
        "Written by `python -m cppo_lib.runs.config docs` from `cppo_lib/runs/parameters.py` and",
        "`cppo_lib/data/registry.py`; not by hand. Every key is required in a parameter file, and no",
        "other key is accepted. A file may instead say `like: 03_rl_training.cppo.yaml`, a file of the same",
        "notebook beside it, and hold the keys in which it differs. `python -m cppo_lib.runs.config expand FILE`",
        "prints such a file in full, as `papermill -f` wants it.",
    ]
    for name, model in MODELS.items():
        title = (model.__doc__ or "").removeprefix(f"{name}: ").strip()
        lines += ["", f"## {name}", "", title[0].upper() + title[1:], "", *_table(model)]
        if model is DataPrep:
            for benchmark, options in ((name, each.options) for name, each in BENCHMARKS.items()):
                lines += ["", f"### `options` of {benchmark}", "", *(_table(options) or ["None: `{}`."])]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel]) -> list[str]:
    rows = [f"| `{key}` | {allowed(model, key)} | {field.description} |" for key, field in model.model_fields.items()]
    return ["| key | value | meaning |", "|---|---|---|", *rows] if rows else []


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 after a one-line error on stderr."""
    parser = argparse.ArgumentParser(prog="python -m cppo_lib.runs.config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="check parameter files")
    checking.add_argument("files", nargs="+", type=Path)
    expanding = commands.add_parser("expand", help="print a parameter file in full, what it takes by `like` included")
    expanding.add_argument("file", type=Path)
    commands.add_parser("docs", help="write docs/parameters.md")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            check(options.files)
        elif options.command == "expand":
            print(yaml.safe_dump(load_params(options.file).model_dump(), sort_keys=False, allow_unicode=True), end="")
        else:
            print(paths.show(store.write_text(paths.root() / "docs" / "parameters.md", docs())))
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
