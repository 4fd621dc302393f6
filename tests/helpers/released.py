"""What pure functions of the authors' code return, on inputs of ours: `tests/fixtures/released_cppo.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROWS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).resolve().parents[1] / "fixtures" / "released_cppo.json").read_text(encoding="utf-8")
)


def named(key: str) -> list[Any]:
    """The rows of a key as parameters of a test, each under its name."""
    return [pytest.param(row, id=str(row.get("name", number))) for number, row in enumerate(ROWS[key])]
