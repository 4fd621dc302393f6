"""T8: how well each gate tells valid tuples from spoilt ones, on tuples that no gate has learnt from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.evaluation.bootstrap import limits, resampled_means
from cppo_lib.report import render
from cppo_lib.report.render import Columns, Table
from cppo_lib.report.results import Results
from cppo_lib.reward import gate_quality

LEVEL = 0.95


def gate_table(results: Results) -> Table | None:
    """Gates x how well they rank and decide, what is accepted by kind; None where a profile has no such records."""
    stage = paths.runs_root() / results.params.profile / "02b_gate"
    files = sorted(stage.glob("gate_decisions*.parquet"))
    frames = [frame for frame in map(store.read_parquet, files) if len(frame)]
    if not frames:
        return None
    decisions = pd.concat(frames, ignore_index=True)
    shares, achieved = gate_quality.rates(decisions), _achieved(stage / gate_quality.OUTCOMES)
    rows = []
    for name, part in decisions.groupby("gate", sort=False):
        row = {"gate": name, **{column: float(shares[column][str(name)]) for column in shares.columns}}
        rows.append(row | {"auc_outcome": achieved.get(str(name), np.nan)} | _intervals(part, results.params.resamples))
    numbers = pd.DataFrame(rows)
    kinds = [name for name in shares.columns if name not in gate_quality.MEASURES]
    columns: Columns = {
        "Gate": ("gate", str),
        "AUC": ("auc", render.share),
        "average precision": ("average_precision", render.share),
        "balanced accuracy": ("balanced_accuracy", render.share),
        "precision": ("precision", render.share),
        "95 % interval of precision": (("precision_low", "precision_high"), render.share),
        "recall": ("recall", render.share),
        "95 % interval of recall": (("recall_low", "recall_high"), render.share),
        "AUC of R_out": ("auc_outcome", render.share),
        **{f"accepts {kind.replace('_', ' ')}": (kind, render.share) for kind in kinds},
        "problems": ("problems", render.count),
    }
    caption = (
        f"{results.params.benchmark}, profile {results.params.profile}: tuples that no gate has learnt from, "
        f"{decisions['valid'].mean():.1%} of them valid, the precision of a gate that accepts all. Paraphrases "
        "are in words that the gate has not read. AUC: how often a valid tuple has a higher score than another one; a "
        "tuple that the rules refuse has score 0, and one that they alone accept 1. Precision, recall and balanced "
        "accuracy: of the decisions, at the gate's tau. AUC of R_out: how well the score tells with which recorded "
        "tuples of planner SFT its frozen solver had success. Percentile bootstrap over problems, "
        f"{results.params.resamples} resamples. A dash: nobody asked, or nothing was accepted."
    )
    sources = dataclasses.replace(results, sources=tuple(files))
    return Table("Quality of the gate", caption, numbers, render.as_text(numbers, columns), [sources])


def _achieved(path: Path) -> dict[str, float]:
    """Per gate the AUC of its scores against R_out; {} where no evaluation was there to compare with."""
    if not path.is_file():
        return {}
    return {
        str(name): gate_quality.auc(part["passed"].to_numpy(bool), part["score"].to_numpy(float))
        for name, part in store.read_parquet(path).groupby("gate")
    }


def _intervals(part: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Ends of the intervals of one gate: problems are drawn again, with all their tuples."""
    hit = part["accepted"] & part["valid"]
    counts = pd.DataFrame({"hit": hit, "accepted": part["accepted"], "valid": part["valid"]}).astype(float)
    sums = counts.groupby(part["problem_id"]).sum()
    tables = [sums[[name]].to_numpy().T for name in sums.columns]
    means = resampled_means(tables, resamples=resamples, rng=np.random.default_rng(0))
    found: dict[str, Any] = {"problems": len(sums), "tuples": len(part)}
    for name, below in (("precision", 1), ("recall", 2)):
        known = means[means[:, below] > 0]
        low, high = limits(known[:, 0] / known[:, below], LEVEL) if len(known) else (np.nan, np.nan)
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found
