"""Recorded decisions of gates on tuples whose validity is known, and the rates that follow from them.

`runs/<profile>/02_planner_sft/gate_decisions.parquet` holds those of the rules and of the classifier, files beside it
(`gate_decisions.*.parquet`) those of chat models. Columns:

    problem_id  kind (valid or how it was spoilt)  valid (bool)  gate  accepted (bool)  score (null for the rules)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths

FILE = "gate_decisions.parquet"


def frame_of(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table with fixed types, also of no records."""
    columns = {"problem_id": "str", "kind": "str", "valid": "bool", "gate": "str", "accepted": "bool"}
    frame = pd.DataFrame(list(records), columns=[*columns, "score"])
    return frame.astype({**columns, "score": "float64"})


def files(profile: str) -> list[Path]:
    """The files of decisions that a profile has, the series' own first."""
    return sorted((paths.runs_root() / profile / "02_planner_sft").glob("gate_decisions*.parquet"))


def rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Per gate: precision, recall and the share of each kind of corruption that it accepts. NaN without such tuples."""
    rows = {}
    for name, part in frame.groupby("gate", sort=False):
        accepted = part[part["accepted"]]
        kinds = part[~part["valid"]].groupby("kind", sort=False)["accepted"].mean()
        rows[str(name)] = {
            "precision": accepted["valid"].mean(),
            "recall": part.loc[part["valid"], "accepted"].mean(),
            **{str(kind): float(share) for kind, share in kinds.items()},
        }
    return pd.DataFrame(rows).T.astype(float)
