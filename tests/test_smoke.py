"""The real notebooks as a series: the smoke profile from nothing, through Snakemake and papermill."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from cppo_lib import store
from cppo_lib.plan import Plan


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """(runs folder, first call, second call) of the smoke series in a folder of its own."""
    runs = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "cppo_lib.series", "reproduce", "--profile", "smoke"]
    calls = [
        subprocess.run(
            command,
            cwd=store.root(),
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
    assert second.stdout.startswith("nothing to do: all 14 steps of smoke are up to date")
