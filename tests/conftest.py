"""Shared fixtures: an empty runs folder, and quiet single-threaded libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before any test imports torch, and inherited by every process that a test starts.
os.environ.update(
    OMP_NUM_THREADS="1",
    PYTHONHASHSEED="0",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder that the library uses for the length of one test."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("CPPO_RUNS", str(folder))
    return folder
