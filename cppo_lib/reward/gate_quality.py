"""How good is the gate? Its decisions on held-out tuples whose validity is known.

The tuples: for crossroads, K methods of each development problem's family, drawn by seed. No other benchmark knows
valid tuples of its development problems; there a fifth of the problems that planner SFT distils is kept from the
classifier and used here (a tuple that passed the gate and the tests counts as valid). Each comes with one corruption of
every kind, paraphrased in words that the classifier has not read.

02_planner_sft writes these decisions for the rules and its classifier, `cppo_lib.runs.stages.gate_ask` those of a chat
model.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cppo_lib.artefacts import paths
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.reward import gate_rules as gate
from cppo_lib.reward.corruptions import Example, examples, group_of, passes_rules
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import MAX_LISTED, parse_tuple
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages import data_prep
from cppo_lib.trainer.sft_rows import SFTRow

KEPT = 5  # of so many distilled problems one is kept from the classifier


def held_out_files(cfg: PlannerSFT) -> list[Path]:
    """What the held-out tuples are made of beside the rows of planner SFT."""
    dev = paths.runs_root() / cfg.profile / "01_data_prep" / cfg.benchmark / "dev.jsonl"
    return [dev] if cfg.benchmark == "crossroads" else []


def planned_tuples(rows: Sequence[SFTRow]) -> list[Candidate]:
    """The valid tuples of planner SFT's rows, in their order."""
    return [
        Candidate(row.problem, parse_tuple(row.completion, MAX_LISTED).methods) for row in rows if row.kind == "plan"
    ]


def learnt_tuples(cfg: PlannerSFT, rows: Sequence[SFTRow]) -> list[Candidate]:
    """Those that the classifier may learn from."""
    tuples = planned_tuples(rows)
    return tuples if cfg.benchmark == "crossroads" else [one for one in tuples if not _kept(one)]


def held_out_tuples(cfg: PlannerSFT, rows: Sequence[SFTRow]) -> list[Candidate]:
    """Valid tuples that it has not learnt from; see the module's docstring.

    Raises:
        MissingArtefactError: the development problems are not there.
    """
    if cfg.benchmark != "crossroads":
        return [one for one in planned_tuples(rows) if _kept(one)]
    found = []
    for problem in data_prep.read_split(cfg.profile, cfg.benchmark, "dev"):
        names = [method.name for method in crossroads.family_of(problem).methods]
        rng = random.Random(f"{cfg.seed}/{problem.id}")
        chosen = sorted(rng.sample(range(len(names)), cfg.k))  # in the catalogue's order, as plans of the corpus
        found.append(Candidate(problem, tuple(names[i] for i in chosen)))
    return found


def _kept(candidate: Candidate) -> bool:
    return zlib.crc32(group_of(candidate.problem).encode()) % KEPT == 0


def held_out_examples(cfg: PlannerSFT, rows: Sequence[SFTRow]) -> list[Example]:
    """Held-out tuples with their corruptions; none where there is nothing to make them of. Raises as above."""
    tuples = held_out_tuples(cfg, rows)
    enough = cfg.k > 1 and len({group_of(one.problem) for one in tuples}) > 1
    return examples(tuples, seed=cfg.seed, held_out=True) if enough else []


def decisions(found: Sequence[Example], name: str, scorer: gate.Scorer | None) -> list[dict[str, Any]]:
    """What one gate says of each tuple, one record each. A scorer is asked about those that pass the rules."""
    passed = [passes_rules(example.candidate) for example in found]
    asked = [example.candidate for example, ok in zip(found, passed, strict=True) if ok]
    scores = iter(scorer.scores(asked) if scorer is not None and asked else [])
    records = []
    for example, ok in zip(found, passed, strict=True):
        score = next(scores) if scorer is not None and ok else None
        records.append(
            {
                "problem_id": example.candidate.problem.id,
                "kind": example.kind,
                "valid": example.valid,
                "gate": name,
                "accepted": ok and (score is None or score > gate.THRESHOLD),
                "score": score,
            }
        )
    return records
