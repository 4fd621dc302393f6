"""The real notebooks as a series: the smoke profile from nothing, through Snakemake and papermill."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from cppo_lib.artefacts import paths, store
from cppo_lib.runs.series import runner
from cppo_lib.runs.series.plan import Plan

MARK = "hostile-mark"
HOSTILE = f'<img src="{MARK}" onerror="x"><script>{MARK}</script> $\\frac{{{MARK}$ print(x<y) {MARK}'
WRITTEN = ("program", "plan", "strategy", "reason", "refusal", "program_method")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """(runs folder, first call, second call) of the smoke series in a folder of its own."""
    runs = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "cppo_lib.runs.series", "reproduce", "--profile", "smoke"]
    calls = [
        subprocess.run(
            command,
            cwd=paths.root(),
            env=os.environ | {"CPPO_RUNS": str(runs)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        for _ in range(2)
    ]
    return runs / "smoke", *calls


def test_series_runs_through_and_prints_the_main_table(smoke):
    _, first, _ = smoke
    assert first.returncode == 0, first.stdout + first.stderr
    assert "| " in first.stdout.split("smoke: done in")[1]


def test_every_declared_file_is_there_and_no_half_written_one(smoke):
    folder, _, _ = smoke
    assert [done for done in Plan("smoke").targets if not (folder / done).is_file()] == []
    assert [path for path in folder.rglob("*.partial*") if ".snakemake" not in path.parts] == []


def test_executed_notebooks_hold_no_error(smoke):
    folder, _, _ = smoke
    for path in (folder / "nb").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            errors = [out for out in cell.get("outputs", []) if out.output_type == "error"]
            assert not errors, f"{path.name}: {errors[0].ename}"


def test_every_method_spends_exactly_k_programs_per_problem_and_tuple(smoke):
    folder, _, _ = smoke
    files = sorted((folder / "04_evaluation").glob("*.parquet"))
    assert len(files) == 6
    for path in files:
        rows = pd.read_parquet(path)
        counts = rows.groupby(["problem_id", "tuple_index"])["slot"].apply(sorted)
        assert all(slots == list(range(4)) for slots in counts), path.name
        assert path.with_name(path.name + ".meta.json").is_file()


def test_second_call_does_nothing(smoke):
    _, _, second = smoke
    assert second.returncode == 0
    assert second.stdout.startswith("nothing to do: all 17 steps of smoke are up to date")


class Rendered(HTMLParser):
    """A page's elements that hold the mark in an attribute or a script, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.live, self.text, self._inside = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        data = tag == "script" and "json" in (dict(attrs).get("type") or "")  # a widget's state, which nothing runs
        self._inside.append("data" if data else tag)
        if any(MARK in (value or "") for _, value in attrs):
            self.live.append(self.get_starttag_text())

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() not in (tag, "data"):
            pass

    def handle_data(self, data):
        if "script" in self._inside and MARK in data:
            self.live.append(data)
        self.text += data


@pytest.fixture(scope="module")
def hostile(smoke):
    """The runs folder of the smoke run, in which all that models wrote is markup from here on, as if recorded so."""
    folder, _, _ = smoke
    for path in [*folder.glob("04_evaluation/*.parquet"), *folder.glob("03_rl_training/*/rollouts/*.parquet")]:
        rows = pd.read_parquet(path)
        for name in set(WRITTEN) & set(rows):
            rows[name] = rows[name].where(rows[name].isna(), HOSTILE)
        store.write_parquet(path, rows)
        if (note := paths.meta_path(path)).exists():
            recorded = store.read_json(note)
            [shown], [name] = recorded["artefacts"], recorded["bytes"]
            changed = {"artefacts": {shown: store.file_sha256(path)}, "bytes": {name: path.stat().st_size}}
            store.write_json(note, recorded | changed)
    return folder.parent


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("03_rl_training", True),
        ("04_evaluation", True),
        ("05_paper_tables", False),  # from here on programs are counted, and none is shown
        ("06_figures", False),
        ("07_strategy_diversity", False),
        ("90_explore", True),
    ],
)
def test_what_a_model_wrote_is_shown_as_text(hostile, monkeypatch, name, shows):
    """Rendered as JupyterLab renders a trusted notebook, without a sanitiser."""
    for key, value in (runner.KERNEL_ENV | {"CPPO_RUNS": str(hostile)}).items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(paths.root() / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": paths.root() / "notebooks"}}).execute()
    page, _ = HTMLExporter().from_notebook_node(notebook)
    rendered = Rendered(page)
    assert rendered.live == []
    assert ("print(x<y)" in rendered.text) == shows
