"""Tables as files, numbers as text, and where a table or figure comes from.

A table becomes `<name>.csv` (numbers in full), `.md` and `.tex` (rounded for reading), and `.json`: sources with their
SHA-256, the runs behind them with parameter file, seed and commit, parameters, seeds, command and caption.
`cppo_lib.runs.trace` follows the chain from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.report.results import Results
from cppo_lib.runs.provenance import ParameterFile, origin_of, parameter_file

WIDE = 9
"""More columns than this do not fit beside each other on the page of a notebook."""
_LATEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#"})


@dataclass(frozen=True)
class Table:
    """A table in full (`numbers`) and as it is read (`shown`, all text).

    Attributes:
        made_of: the records behind it, its notebook's own first.
        name: of its files; `cppo_lib.report.tables.registry` gives it.
    """

    title: str
    caption: str
    numbers: pd.DataFrame
    shown: pd.DataFrame
    made_of: Sequence[Results]
    name: str = ""

    def markdown(self) -> str:
        """The table as Markdown, numbers right-aligned."""
        sides = ["left", *["right"] * (self.shown.shape[1] - 1)]
        return str(self.shown.to_markdown(index=False, disable_numparse=True, colalign=sides))

    def page(self) -> str:
        """Markdown as a notebook shows it: with its caption, and turned where a page is too narrow for its columns."""
        turned = self.shown.set_index(self.shown.columns[0]).T.rename_axis(None).reset_index(names="")
        table = self if self.shown.shape[1] <= WIDE else replace(self, shown=turned)
        return f"{table.markdown()}\n\n{self.full_caption}"

    def latex(self) -> str:
        """The table as a LaTeX float (needs booktabs)."""
        style = self.shown.style.hide(axis="index").format(escape="latex")
        style = style.format_index(escape="latex", axis=1)
        caption = self.full_caption.translate(_LATEX)
        sides = "l" + "r" * (self.shown.shape[1] - 1)
        text = style.to_latex(
            hrules=True,
            caption=caption,
            label=f"tab:{self.name}",
            column_format=sides,
            position_float="centering",
        )
        return str(text).replace("<", "$<$")

    @property
    def full_caption(self) -> str:
        """Title and caption in one."""
        return f"{self.title}. {self.caption}"


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write `<name>.csv`, `.md`, `.tex` and `.json`; returns their paths."""
    path, text = folder / table.name, f"{table.markdown()}\n\n{table.full_caption}\n"
    record = sidecar(table.name, table.full_caption, table.made_of)
    return [
        store.write_text(path.with_suffix(".csv"), table.numbers.to_csv(index=False)),
        store.write_text(path.with_suffix(".md"), text),
        store.write_text(path.with_suffix(".tex"), table.latex()),
        store.write_json(path.with_suffix(".json"), record),
    ]


def sidecar(name: str, caption: str, made_of: Sequence[Results]) -> dict[str, Any]:
    """Where a table or figure comes from, as JSON values."""
    results = made_of[0]
    sources = dict.fromkeys(path for each in made_of for path in each.sources)
    written = notes.provenance(results.params, sources)
    limit = paths.first_look()
    return {
        "name": name,
        "caption": caption,
        "command": f"make reproduce PROFILE={results.params.profile} SEEDS={results.params.seeds}"
        + (f" LIMIT={limit}" if limit else ""),
        "policies": results.attempts.groupby("method")["policy"].first().map(paths.show_model).to_dict(),
        "notebook": f"notebooks/{results.params.notebook}.ipynb",
        "parameters": written["params"],
        "params_sha256": written["params_sha256"],
        "parameter_file": _shown(parameter_file(results.params.notebook, written["params"])),
        "seeds": sorted(int(seed) for seed in results.attempts["seed"].unique()),
        "runs": [run for path in sources if (run := _run_of(path)) is not None],
        "sources": written["inputs"],
        "layout": written["layout"],
        "commit": written["commit"],
        "dirty": written["dirty"],
        "packages": written["packages"],
    }


def _run_of(path: Path) -> dict[str, Any] | None:
    """The run that wrote a source, for the sidecar."""
    if (run := origin_of(path)) is None:
        return None
    return {
        "run_id": run.run_id,
        "parameter_file": _shown(run.file),
        "seed": run.params.get("seed"),
        "commit": run.commit,
        "dirty": run.dirty,
        "gpu": run.gpu,
        "wrote": paths.show(path),
    }


def _shown(file: ParameterFile | None) -> str | None:
    return None if file is None else paths.show(file.path)


# --- numbers as text ----------------------------------------------------------------------------

Form = Callable[[Any], str]
Columns = Mapping[str, tuple[str | tuple[str, str], Form]]
"""By title: a column of numbers and its form, or both ends of an interval and theirs."""


share = "{:.3f}".format  # a rate between 0 and 1, or seconds
signed = "{:+.3f}".format  # a difference
tenths = "{:.1f}".format  # a mean count
hundredths = "{:.2f}".format  # a mean count of a few
count = "{:,.0f}".format  # a whole number


def percent(x: float) -> str:
    """A rate in percent."""
    return f"{100 * x:.1f}"


def p_value(x: float) -> str:
    """A p-value; very small ones by their bound."""
    return "<0.001" if x < 0.001 else f"{x:.3f}"


def p_in_words(x: float) -> str:
    """A p-value in a sentence."""
    return f"p {p_value(x)}" if x < 0.001 else f"p = {p_value(x)}"


def show(values: Iterable[Any], form: Form) -> list[str]:
    """A column as text; a dash where there is nothing."""
    return ["–" if pd.isna(value) else form(value) for value in values]


def pairs(numbers: pd.DataFrame, low: str, high: str, form: Form) -> list[str]:
    """Two columns as intervals."""
    ends = zip(show(numbers[low], form), show(numbers[high], form), strict=True)
    return ["–" if a == "–" else f"[{a}, {b}]" for a, b in ends]


def with_ends(values: Iterable[str], ends: Iterable[str]) -> list[str]:
    """Numbers as text, each followed by its interval if it has one."""
    return [value if end == "–" else f"{value} {end}" for value, end in zip(values, ends, strict=True)]


def as_text(numbers: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Columns of a table as they are read; those that the numbers lack are left out."""
    shown = {}
    for title, (name, form) in columns.items():
        if isinstance(name, tuple) and name[0] in numbers:
            shown[title] = pairs(numbers, *name, form)
        elif name in numbers:
            shown[title] = show(numbers[name], form)
    return pd.DataFrame(shown)
