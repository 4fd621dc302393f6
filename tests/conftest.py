"""Shared fixtures: an empty runs folder, and quiet single-threaded libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run; how long they take to make says how busy the machine is.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

# Set before any test imports torch, and inherited by every process that a test starts.
os.environ.update(
    OMP_NUM_THREADS="1",
    PYTHONHASHSEED="0",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
)


# The files that take longest, first: several workers take whole files in this order, and none should end with one.
LONGEST = (
    *("test_smoke", "test_nbval", "test_verifier_life", "test_pretrained", "test_verifier_truth"),
    *("test_backends", "test_series", "test_hostile"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `LONGEST` first; all others keep their order."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder that the library uses for the length of one test."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("CPPO_RUNS", str(folder))
    return folder
