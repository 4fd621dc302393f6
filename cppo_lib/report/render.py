"""Tables as files, numbers as text, and where a table or figure comes from.

A table becomes `<name>.csv` (numbers in full), `.md` and `.tex` (rounded for reading), and `.json`: sources with their
SHA-256, the runs behind them with parameter file, seed and commit, parameters, seeds, command and caption.
`cppo_lib.runs.trace` follows the chain from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.report.results import Results
from cppo_lib.runs import provenance as origins

WIDE = 9
"""More columns than this do not fit beside each other on the page of a notebook."""
_LATEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#"})


@dataclass(frozen=True)
class Table:
    """A table in full (`numbers`) and as it is read (`shown`, all text)."""

    name: str
    title: str
    caption: str
    numbers: pd.DataFrame
    shown: pd.DataFrame

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


def write_table(table: Table, folder: Path, results: Results, *others: Results) -> list[Path]:
    """Write `<name>.csv`, `.md`, `.tex` and `.json`; returns their paths.

    Args:
        results: what the table is made of, its notebook's own records first.
        others: further records, of other benchmarks or profiles.
    """
    path, text = folder / table.name, f"{table.markdown()}\n\n{table.full_caption}\n"
    record = sidecar(table.name, table.full_caption, results, *others)
    return [
        store.write_text(path.with_suffix(".csv"), table.numbers.to_csv(index=False)),
        store.write_text(path.with_suffix(".md"), text),
        store.write_text(path.with_suffix(".tex"), table.latex()),
        store.write_json(path.with_suffix(".json"), record),
    ]


def sidecar(name: str, caption: str, results: Results, *others: Results) -> dict[str, Any]:
    """Where a table or figure comes from, as JSON values."""
    sources = dict.fromkeys(path for each in (results, *others) for path in each.sources)
    origin = notes.provenance(results.params, sources)
    return {
        "name": name,
        "caption": caption,
        "command": f"make reproduce PROFILE={results.params.profile} SEEDS={results.params.seeds}"
        + (f" LIMIT={limit}" if (limit := paths.first_look()) else ""),
        "policies": results.attempts.groupby("method")["policy"].first().map(paths.show_model).to_dict(),
        "notebook": f"notebooks/{results.params.notebook}.ipynb",
        "parameters": origin["params"],
        "params_sha256": origin["params_sha256"],
        "parameter_file": _file_of(origins.parameter_file(results.params.notebook, origin["params"])),
        "seeds": sorted(int(seed) for seed in results.attempts["seed"].unique()),
        "runs": [run for path in sources if (run := _run_of(path)) is not None],
        "sources": origin["inputs"],
        "layout": origin["layout"],
        "commit": origin["commit"],
        "dirty": origin["dirty"],
        "packages": origin["packages"],
    }


def _run_of(path: Path) -> dict[str, Any] | None:
    """The run that wrote a source, for the sidecar."""
    origin = origins.origin_of(path)
    if origin is None:
        return None
    return {
        "run_id": origin.run_id,
        "parameter_file": _file_of(origin.file),
        "seed": origin.params.get("seed"),
        "commit": origin.commit,
        "dirty": origin.dirty,
        "gpu": origin.gpu,
        "wrote": paths.show(path),
    }


def _file_of(file: origins.ParameterFile | None) -> str | None:
    return None if file is None else paths.show(file.path)


# --- numbers as text ----------------------------------------------------------------------------

Form = Callable[[float], str]


def share(x: float) -> str:
    """A rate between 0 and 1."""
    return f"{x:.3f}"


def signed(x: float) -> str:
    """A difference, with its sign."""
    return f"{x:+.3f}"


def tenths(x: float) -> str:
    """A mean count."""
    return f"{x:.1f}"


def milli(x: float) -> str:
    """Seconds, or another small number."""
    return f"{x:.3f}"


def hundredths(x: float) -> str:
    """A mean count of a few."""
    return f"{x:.2f}"


def count(x: float) -> str:
    """A whole number."""
    return f"{x:,.0f}"


def percent(x: float) -> str:
    """A rate in percent."""
    return f"{100 * x:.1f}"


def p_value(x: float) -> str:
    """A p-value; very small ones by their bound."""
    return "<0.001" if x < 0.001 else f"{x:.3f}"


def show(values: pd.Series[Any], form: Form) -> list[str]:
    """A column as text; a dash where there is no number."""
    return ["–" if pd.isna(value) else form(float(value)) for value in values]


def pairs(numbers: pd.DataFrame, low: str, high: str, form: Form) -> list[str]:
    """Two columns as intervals."""
    ends = zip(show(numbers[low], form), show(numbers[high], form), strict=True)
    return ["–" if a == "–" else f"[{a}, {b}]" for a, b in ends]
