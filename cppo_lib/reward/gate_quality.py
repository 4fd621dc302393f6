"""How good is the gate? Its decisions on tuples whose validity is known, and the rates that follow from them.

A valid tuple is spoilt in one of four ways (`KINDS`); from both, the trained gate learns what to refuse, and gates are
tested on others.

    repeated       a method stands twice, in the same words: the gate's rules find it
    paraphrased    a method stands twice, the second time in other words
    other_problem  a method is one of another problem
    garbled        a method is no method: its letters are shuffled, or its words are mixed with another's

Wordings of a paraphrase come in two sets, one to learn from and one to be tested on, so that a gate is not praised for
knowing a phrase by heart. Everything is drawn from an explicit seed. The authors' labels are a judge's and are not
public; these are ours.

Tuples to be tested on are, for crossroads, K methods of each development problem's family (`catalogue_tuples`). No
other benchmark knows valid tuples of its development problems; there a fifth of the problems that planner SFT distils
is kept from the gate (`kept_apart`), where a tuple that passed the gate and the tests counts as valid. Of labels that a
user brings, those that the gate was validated with.

02b_gate writes the decisions of the rules and of the gate that it has trained to `gate_decisions.parquet`, and its
command line those of a chat model to `gate_decisions.<model>.parquet` beside it. Columns:

    problem_id  kind (valid or how it was spoilt)  valid (bool)  gate  accepted (bool)  score (null for the rules)

Whether a gate knows in advance what a solver will achieve is another question. `gate_outcomes.parquet` has, for
recorded tuples of the SFT planner, what the SFT solver, which is frozen there, reached with them:

    benchmark  split  problem_id  tuple_index  gate  score (of the rules J; 0 where these refuse)  passed (R_out, bool)
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem
from cppo_lib.errors import ParameterError
from cppo_lib.reward.gate_rules import Candidate, Scorer, gate
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.replies import normalise

RECORDS = "gate_decisions.parquet"
OUTCOMES = "gate_outcomes.parquet"
KEPT = 5  # of so many distilled problems one is kept from the gate
Kind = Literal["valid", "repeated", "paraphrased", "other_problem", "garbled"]
KINDS: tuple[Kind, ...] = ("repeated", "paraphrased", "other_problem", "garbled")
WORDINGS = {
    "learnt": ("the {}", "use {}", "{} again", "{} approach", "by {}", "a {} method", "compute {}", "{}, once more"),
    "held_out": ("take {}", "the same {}", "{} instead", "with {} in mind", "apply {}"),
}
"""Ways to say the same method again."""
MEASURES = ("auc", "average_precision", "balanced_accuracy", "precision", "recall")
Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]
_Methods = Mapping[str, Mapping[str, str]]  # per group its methods, by their normal form


@dataclass(frozen=True)
class Example:
    """A tuple with what is known about it: `kind` is `valid`, or how it was spoilt (`KINDS`, or a judge's word)."""

    candidate: Candidate
    kind: str

    @property
    def valid(self) -> bool:
        return self.kind == "valid"


def group_of(problem: Problem) -> str:
    """What problems share whose methods are interchangeable: a family of crossroads, else the problem alone."""
    return str(problem.meta.get("family", problem.id))


def examples(tuples: Sequence[Candidate], *, seed: int, held_out: bool = False) -> list[Example]:
    """Each tuple as it is, followed by one of each kind of corruption of it.

    Args:
        tuples: valid tuples; those with a single method, which cannot be repeated, are left out.
        seed: of every choice.
        held_out: paraphrase in the words that are kept for tests.

    Raises:
        ParameterError: no tuples of two methods or more, or all of one group, so that there is no other problem.
    """
    many = [one for one in tuples if len(one.methods) > 1]
    groups = {group_of(one.problem) for one in many}
    if len(groups) < 2:
        raise ParameterError(
            f"a gate that is trained needs tuples of two methods or more for two different problems, and there are "
            f"{len(many)} of {len(groups)}: set epochs: 0 in 02b_gate, or gather more tuples"
        )
    wordings = WORDINGS["held_out" if held_out else "learnt"]
    methods: dict[str, dict[str, str]] = {group: {} for group in sorted(groups)}
    for one in many:
        methods[group_of(one.problem)] |= {normalise(method): method for method in one.methods}
    found = []
    for number, one in enumerate(many):
        found.append(Example(one, "valid"))
        for kind in KINDS:
            rng = random.Random(f"{seed}/{number}/{kind}")
            found.append(Example(Candidate(one.problem, _spoil(kind, one, methods, wordings, rng)), kind))
    return found


def _spoil(
    kind: Kind, one: Candidate, methods: _Methods, wordings: Sequence[str], rng: random.Random
) -> tuple[str, ...]:
    source, place = rng.sample(range(len(one.methods)), 2)
    if kind == "repeated":
        return _replaced(one.methods, place, one.methods[source])
    if kind == "paraphrased":
        return _replaced(one.methods, place, rng.choice(wordings).format(one.methods[source]))
    other = _foreign(one, methods, rng)
    return _replaced(one.methods, place, other if kind == "other_problem" else _garble(one.methods[place], other, rng))


def _foreign(one: Candidate, methods: _Methods, rng: random.Random) -> str:
    """A method of another group, that no tuple of this one's group names."""
    known = methods[group_of(one.problem)]
    for group in rng.sample(list(methods), len(methods)):
        foreign = [method for words, method in methods[group].items() if words not in known]
        if foreign:
            return rng.choice(foreign)
    raise ParameterError("all problems have the same methods, so that none is of another problem: set epochs: 0")


def _garble(method: str, other: str, rng: random.Random) -> str:
    """Shuffled letters within words, or the words of two methods in a random order."""
    if rng.random() < 0.5:
        return _changed(method, lambda: " ".join("".join(rng.sample(word, len(word))) for word in method.split()))
    words = [*method.split(), *other.split()]
    return _changed(method, lambda: " ".join(rng.sample(words, max(2, len(words) // 2))))


def _changed(method: str, draw: Callable[[], str]) -> str:
    """The first of a few draws that is another text than the method and is not empty; else its letters reversed."""
    for _ in range(8):
        if normalise(text := draw()) not in ("", normalise(method)):
            return text
    return method[::-1]


def _replaced(methods: tuple[str, ...], place: int, method: str) -> tuple[str, ...]:
    return (*methods[:place], method, *methods[place + 1 :])


# --- tuples to be tested on ---------------------------------------------------------------------


def catalogue_tuples(problems: Iterable[Problem], k: int, seed: int) -> list[Candidate]:
    """K methods of each crossroads problem's family, drawn by seed, in the catalogue's order as plans of the corpus."""
    found = []
    for problem in problems:
        names = [method.name for method in crossroads.family_of(problem).methods]
        chosen = sorted(random.Random(f"{seed}/{problem.id}").sample(range(len(names)), k))
        found.append(Candidate(problem, tuple(names[i] for i in chosen)))
    return found


def kept_apart(tuples: Iterable[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The tuples that the gate may learn from, and those of the problems that are kept from it."""
    parts: tuple[list[Candidate], list[Candidate]] = ([], [])
    for one in tuples:
        parts[zlib.crc32(group_of(one.problem).encode()) % KEPT == 0].append(one)
    return parts


# --- decisions ----------------------------------------------------------------------------------


def passes_rules(candidate: Candidate) -> bool:
    """The rules' answer on a tuple that was read without loss."""
    return gate(ParsedTuple(candidate.methods, complete=True)).valid


def decisions(found: Sequence[Example], name: str, scorer: Scorer | None) -> list[dict[str, Any]]:
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
                "accepted": ok and (score is None or scorer is None or score > scorer.threshold),
                "score": score,
            }
        )
    return records


def frame_of(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table with fixed types, also of no records."""
    columns = {"problem_id": "str", "kind": "str", "valid": "bool", "gate": "str", "accepted": "bool"}
    frame = pd.DataFrame(list(records), columns=[*columns, "score"])
    return frame.astype({**columns, "score": "float64"})


def rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Per gate: its `measures`, and the share of each kind of corruption that it accepts. NaN without such tuples.

    A tuple that the rules refuse has score 0; the score of one that they accept is theirs where the gate has none.
    """
    rows = {}
    for name, part in frame.groupby("gate", sort=False):
        kinds = part[~part["valid"]].groupby("kind", sort=False)["accepted"].mean()
        accepted = part["accepted"].to_numpy(bool)
        scores = part["score"].fillna(part["accepted"].astype(float)).to_numpy(float)
        rows[str(name)] = {
            **measures(part["valid"].to_numpy(bool), scores, accepted),
            **{str(kind): float(share) for kind, share in kinds.items()},
        }
    return pd.DataFrame(rows).T.astype(float)


def measures(valid: Booleans, scores: Floats, accepted: Booleans) -> dict[str, float]:
    """How well scores (n,) tell valid tuples from others, and how well the decisions made of them do.

    Keys `MEASURES`: precision, the share of accepted tuples that are valid; recall, that of valid tuples that are
    accepted; balanced accuracy, the mean of recall and of the share of invalid tuples that are refused; `auc` and
    `average_precision`. NaN where there is nothing to take a share of.
    """
    recall, refused = _mean(accepted[valid]), _mean(~accepted[~valid])
    return {
        "auc": auc(valid, scores),
        "average_precision": average_precision(valid, scores),
        "balanced_accuracy": (recall + refused) / 2,
        "precision": _mean(valid[accepted]),
        "recall": recall,
    }


def _mean(values: Booleans) -> float:
    return float(values.mean()) if len(values) else math.nan


def auc(valid: Booleans, scores: Floats) -> float:
    """How often a valid tuple has a higher score than an invalid one, ties counted half; NaN without such a pair.

    That is the area under the ROC curve (Mann and Whitney's U over the number of pairs).
    """
    pairs = int(valid.sum()) * int((~valid).sum())
    if not pairs:
        return math.nan
    return float(stats.mannwhitneyu(scores[valid], scores[~valid], method="asymptotic").statistic) / pairs


def average_precision(valid: Booleans, scores: Floats) -> float:
    """Mean over the valid tuples of the precision at their score, tuples of equal scores taken together; NaN of none.

    That is the sum over thresholds of precision times the gain in recall, without interpolation.
    """
    if not valid.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # last place of each run of equal scores
    hits = valid[order].cumsum()[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])
