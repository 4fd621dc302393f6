"""Ask a chat model about a profile's held-out tuples, for its row in the table of gates (T8).

    python -m cppo_lib.runs.stages.gate_ask --profile laptop --gate-model Qwen/Qwen2.5-Coder-0.5B-Instruct

It costs minutes where 02_planner_sft costs nothing, so no run of the series does it. Writes
`gate_decisions.<model>.parquet` beside that stage's own decisions; a new run of the stage takes it away.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.errors import CPPOError, ParameterError
from cppo_lib.model import policy as models
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.reward.gate_quality import decisions, held_out_examples
from cppo_lib.runs import config
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages.gate_records import frame_of, rates
from cppo_lib.runs.stages.planner_sft import training_rows


def ask_model(cfg: PlannerSFT, gate_model: str, limit: int) -> Path:
    """Write the decisions of a chat model on the profile's held-out tuples; returns the file.

    Args:
        limit: first problems to use; 0: all.

    Raises:
        ParameterError: the profile has no held-out tuples.
        MissingArtefactError, ModelError: 02_planner_sft has not finished, or the model cannot be asked.
    """
    summary = paths.require(
        paths.runs_root() / cfg.profile / "02_planner_sft" / "summary.json", notebook="02_planner_sft"
    )
    rows, inputs = training_rows(cfg)
    found = held_out_examples(cfg, rows)
    if not found:
        raise ParameterError(f"profile {cfg.profile} has no held-out tuples: distil more tuples, of several problems")
    kept = list(dict.fromkeys(example.candidate.problem.id for example in found))[: limit or None]
    found = [example for example in found if example.candidate.problem.id in kept]
    source = store.policy_source(cfg.profile, gate_model, cfg.seed)
    scorer = LLMGate(source)
    scorer.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    name = Path(gate_model).name
    path = summary.with_name(f"gate_decisions.{name}.parquet")
    store.write_parquet(path, frame_of(decisions(found, f"llm ({name})", scorer)))
    computed = models.weights_type(source, models.sampling_dtype())
    known = {"gate_model": gate_model, "commits": models.commits(source), "weights": computed}
    notes.write_meta(path, cfg, [*inputs, summary], **known)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cppo_lib.runs.stages.gate_ask",
        description="Ask a chat model about the profile's held-out tuples.",
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--gate-model", required=True, help="base, sft, a model folder or a hub id")
    parser.add_argument("--limit", type=int, default=0, help="first problems to use; 0: all")
    options = parser.parse_args(arguments)
    try:
        cfg = config.load_params(paths.root() / "params" / options.profile / "02_planner_sft.yaml")
        assert isinstance(cfg, PlannerSFT)
        path = ask_model(cfg, options.gate_model, options.limit)
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(rates(store.read_parquet(path)).round(3).to_string())
    print(paths.show(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
