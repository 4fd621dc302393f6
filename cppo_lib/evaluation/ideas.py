"""Do two attempts try the same idea, and which attempts could not add a success?

Whether two programs implement one idea is for a judge to say. In crossroads the records hold the method that each
program implements, found by running it (`MethodProbe`). Elsewhere a judge must be given, a function of pairs of
programs; without one the answer is null, never a guess. Following PlanSearch (2409.03733), a judge is asked about
pairs; it is asked once for each, whatever the order and the names of variables, and not about a program and itself.

An attempt is wasted if it could not add a success to those before it in its block: it repeats a program, or it fails
with an idea that has failed before. Two failures with an idea and a success with it are one wasted attempt: whoever
succeeds with an idea did not waste it. The number does not depend on the order of the attempts. Where only some pairs
are judged (a crossroads program may implement no method) the share is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.estimators import KEY, Floats, check_attempts
from cppo_lib.evaluation.programs import program_keys


class IdeaPair(NamedTuple):
    """Two different programs for one problem; `first` < `second`."""

    problem_id: str
    first: str
    second: str


IdeaJudge = Callable[[Sequence[IdeaPair]], Sequence[bool | None]]
"""Same idea? One answer for each pair; None where the judge cannot tell."""


def same_ideas(attempts: pd.DataFrame, judge: IdeaJudge | None = None) -> Floats:
    """Do the attempts of a block share an idea? 1 yes, 0 no, NaN not judged.

    Args:
        attempts: the records of one method.
        judge: asked about pairs of programs; None takes the methods in the records, if there are any.

    Returns:
        (blocks, K, K), symmetric; blocks in the order of seed, problem and tuple.

    Raises:
        ParameterError: records that do not fit (`estimators.check_attempts`), or a judge that leaves pairs out.
    """
    size = check_attempts(attempts)
    rows = attempts.sort_values(KEY)
    if judge is not None:
        return _asked(rows, size, judge)
    codes = np.asarray(pd.factorize(rows["program_method"])[0]).reshape(-1, size)
    known = (codes >= 0)[:, :, None] & (codes >= 0)[:, None, :]
    return np.where(known, codes[:, :, None] == codes[:, None, :], np.nan)


def _asked(rows: pd.DataFrame, size: int, judge: IdeaJudge) -> Floats:
    problems = rows["problem_id"].to_numpy()[::size]
    programs = rows["program"].to_numpy().reshape(-1, size)
    keys = np.array(program_keys(rows["program"]), dtype=object).reshape(-1, size)
    wording = dict(zip(keys.flat, programs.flat, strict=True))  # one text for all that are the same up to names
    pairs = {
        (block, i, j): IdeaPair(problems[block], *sorted((wording[keys[block, i]], wording[keys[block, j]])))
        for block in range(len(programs))
        for i in range(size)
        for j in range(i)
        if keys[block, i] != keys[block, j]
    }
    wanted = list(dict.fromkeys(pairs.values()))
    answers = judge(wanted)
    if len(answers) != len(wanted):
        raise ParameterError(f"the judge of ideas gave {len(answers)} answers for {len(wanted)} pairs: one for each")
    answer = dict(zip(wanted, answers, strict=True))
    same = np.ones((len(programs), size, size))
    for (block, i, j), pair in pairs.items():
        said = answer[pair]
        same[block, i, j] = same[block, j, i] = np.nan if said is None else float(said)
    return same


def same_idea_rate(same: Floats) -> Floats:
    """Share of the judged pairs of a block that share an idea, (blocks, K, K) -> (blocks,); NaN where none is."""
    pairs = same[:, *np.triu_indices(same.shape[-1], k=1)]
    return pd.DataFrame(pairs).mean(axis=1).to_numpy(dtype=np.float64)


def wasted_attempts(same: Floats, programs: NDArray[np.int64], passed: NDArray[np.bool_]) -> Floats:
    """Share of the attempts of a block that could not add a success; all NaN where no pair at all is judged.

    Args:
        same: (blocks, K, K), see `same_ideas`.
        programs: (blocks, K), equal numbers for equal programs.
        passed: (blocks, K), the verdicts.

    Returns:
        (blocks,).
    """
    size = same.shape[-1]
    if np.isnan(same[:, *np.triu_indices(size, k=1)]).all():
        return np.full(len(same), np.nan)
    both_failed = ~passed[:, :, None] & ~passed[:, None, :]
    idle = (programs[:, :, None] == programs[:, None, :]) | ((same == 1) & both_failed)
    before = np.tri(size, k=-1, dtype=bool)  # [i, j]: j comes before i
    return np.asarray((idle & before).any(axis=2).mean(axis=1), dtype=np.float64)
