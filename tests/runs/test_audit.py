"""The audit of a policy before a joint run, end to end: a random planner, a gate that refuses all, and neither."""

from __future__ import annotations

import pandas as pd
import pytest
import small_policy
import torch

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import AuditError
from cppo_lib.reward.density import density, verdict
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Audit
from cppo_lib.runs.series.plan import Plan
from cppo_lib.runs.stages import audit as stage
from cppo_lib.runs.stages import data_prep

FOLDER = paths.root() / "params" / "tiny"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A runs folder with problems and a planner."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("CPPO_RUNS", str(folder))
        sizes = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
        data_prep.prepare(config.load_params(FOLDER / "01_data_prep.yaml", options=sizes | {"hidden_tests": 2}))
        sft = folder / "tiny" / "02_planner_sft"
        small_policy.save(sft / "sft", steps=300)
        store.write_json(sft / "summary.json", {})
        yield folder


def settings(**changes: object) -> Audit:
    given = {"policy": "sft", "problems": 6, "go_on": False} | changes
    cfg = config.load_params(FOLDER / "03a_audit.yaml", **given)
    assert isinstance(cfg, Audit)
    return cfg


def test_rates_are_those_of_the_recorded_tuples_and_a_finished_audit_is_kept(runs, capfd):
    folder = stage.audit(settings(go_on=True))
    summary = store.read_json(folder / "summary.json")
    attempts = pd.read_parquet(folder / "attempts.parquet")
    assert len(attempts) == 6 * 8 * 4
    tuples = attempts.groupby("member", sort=True).first()
    shape = (6, 8)
    facts = [tuples["r_plan"], tuples["valid"].astype(float), (tuples["refusal"] != "incomplete").astype(float)]
    rates = density(*(torch.tensor(fact.to_numpy()).view(shape) for fact in facts))
    assert summary["rates"] == pytest.approx(rates)
    assert (summary["verdict"], summary["reasons"]) == (verdict(rates).word, list(verdict(rates).reasons))
    before = (folder / "attempts.parquet").stat().st_mtime_ns
    stage.audit(settings(go_on=True))
    assert (folder / "attempts.parquet").stat().st_mtime_ns == before


def test_random_plans_are_a_no_go_which_can_be_overruled(runs):
    given = {"temperature": 2.0, "planner_temperature": 2.0}
    with pytest.raises(AuditError, match=r"^no-go: .*paid_tuples is 0\.0.*read_tuples is .*go_on: true$"):
        stage.audit(settings(**given))
    folder = paths.runs_root() / "tiny" / "03a_audit" / "s0"
    assert not (folder / "summary.json").exists()
    assert store.read_json(folder / "rates.json")["verdict"] == "no-go"
    assert len(pd.read_parquet(folder / "attempts.parquet")) == 6 * 8 * 4
    assert store.read_json(stage.audit(settings(**given, go_on=True)) / "summary.json")["verdict"] == "no-go"


def test_arms_wait_for_the_audit_of_their_seed_and_it_for_the_warm_up():
    plan = Plan("tiny", seeds=2)
    assert "03a_audit.s1" in [run.name for run in plan.before(plan.runs["03_rl_training.cppo.s1"])]
    waits = [run.name for run in plan.before(plan.runs["03a_audit.s1"])]
    assert "03_rl_training.warmup.s1" in waits and "03_rl_training.warmup.s0" not in waits
    free = plan.before(plan.runs["03_rl_training.cppo_faithful.s1"])
    assert not any(run.notebook == "03a_audit" for run in free)
