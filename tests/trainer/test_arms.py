"""Every arm and ablation of params/ablations trains end to end, at a few rows a step, and does what its file says."""

from __future__ import annotations

import shutil
from pathlib import Path

import gate_world
import pandas as pd
import pytest
import small_policy

from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import MissingArtefactError, ModelError
from cppo_lib.model import policy as model
from cppo_lib.model.adapters import ROLES, role_policy
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Evaluation, RLTraining
from cppo_lib.runs.stages import data_prep, evaluation
from cppo_lib.runs.stages import rl_training as training

FOLDER = paths.root() / "params" / "ablations"
ARMS = sorted(path.name.split(".")[1] for path in FOLDER.glob("03_*.yaml"))
SMALL = {"steps": 2, "problems_per_step": 2, "checkpoint_every": 2}
SAMPLES = 8  # programs per problem, G * K


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A runs folder with problems and a start policy."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("CPPO_RUNS", str(folder))
        sizes = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
        data_prep.prepare(config.load_params(FOLDER / "01_data_prep.yaml", options=sizes | {"hidden_tests": 2}))
        sft = folder / "ablations" / "02_planner_sft"
        small_policy.save(sft / "sft", also_k=(2, 8), steps=100)
        gate_world.add_gate(folder / "ablations" / "02b_gate", sft / "sft")
        store.write_json(sft / "summary.json", {})
        yield folder


def arm(name: str, **changes: object) -> RLTraining:
    file = FOLDER / f"03_rl_training.{name}.yaml"
    given = config.load_params(file)
    assert isinstance(given, RLTraining)
    cfg = config.load_params(file, group_size=max(2, SAMPLES // given.k), **{**SMALL, **changes})
    assert isinstance(cfg, RLTraining)
    return cfg


def trained(name: str, runs: Path, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and the attempts of the last step of an arm that was trained anew."""
    shutil.rmtree(runs / "ablations" / "03_rl_training" / f"{name}.s0", ignore_errors=True)
    folder = training.train(arm(name, **changes))
    metrics = pd.DataFrame(store.read_jsonl(folder / "metrics.jsonl"))
    return metrics, pd.read_parquet(sorted((folder / "rollouts").glob("*.parquet"))[-1])


@pytest.mark.parametrize("name", ARMS)
def test_arm_trains_and_spends_the_common_budget(name, runs):
    cfg = arm(name)
    metrics, attempts = trained(name, runs)
    assert metrics["step"].tolist() == [1, 2]
    planned = cfg.algorithm == "cppo"
    assert metrics["programs"].max() <= 2 * cfg.group_size * cfg.k and (planned or metrics["programs"].nunique() == 1)
    assert metrics[["r_out", "r_solver", "loss", "grad_norm", "solver_entropy"]].notna().all(axis=None)
    for column in ("j", "r_plan", "planner_entropy", "distinct_methods"):
        assert metrics[column].notna().all() == planned
    assert (metrics["planner_tokens"] > 0).all() == planned
    assert attempts.groupby("member")["slot"].apply(list).tolist() == [list(range(cfg.k))] * 2 * cfg.group_size
    folder = runs / "ablations" / "03_rl_training" / f"{name}.s0"
    for role in ROLES:
        model.load_policy(role_policy(str(folder / "policy"), role))
    assert store.read_json(folder / "summary.json")["steps"] == 2


def test_training_says_that_replies_are_cut_and_which_problems_it_draws_from(runs, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(log, "info", lines.append)
    metrics, _ = trained("cppo", runs, max_plan_tokens=3, max_program_tokens=3)
    assert (metrics["plans_cut"] > 0.5).all() and metrics["programs_cut"].between(0, 1).all()
    assert any("% of the plans of step 1 were cut at max_plan_tokens=3: raise it" in line for line in lines)
    assert sum("plans_cut" in line for line in lines) == 2
    summary = store.read_json(runs / "ablations" / "03_rl_training" / "cppo.s0" / "summary.json")
    in_split = len(data_prep.read_split("ablations", "crossroads", "train"))
    draws = 2 * arm("cppo").problems_per_step
    assert summary["problems"] == {"drawn_from": in_split, "in_split": in_split, "draws": draws}
    assert summary["prompts"] == {"thoughts_left_open": False, "template_date": None}


def test_every_arm_is_evaluated_under_one_budget_as_it_was_trained():
    for name in ARMS:
        full = config.load_params(FOLDER / f"03_rl_training.{name}.yaml")
        cfg = config.load_params(FOLDER / f"04_evaluation.{name}.yaml")
        assert isinstance(cfg, Evaluation) and isinstance(full, RLTraining)
        assert (cfg.method, cfg.policy, cfg.k, cfg.solver_prompt) == (name, f"arm:{name}", full.k, full.solver_prompt)
        assert cfg.procedure == ("tuple" if full.algorithm == "cppo" else "direct")
        assert (cfg.k * cfg.tuples, full.k * full.group_size) == (16, 32)
        assert (full.steps, full.problems_per_step) == (60, 12)


def test_ablations_differ_from_cppo_in_what_they_are_named_for():
    cppo = config.load_params(FOLDER / "03_rl_training.cppo.yaml").model_dump()
    changed = {}
    for name in ARMS:
        values = config.load_params(FOLDER / f"03_rl_training.{name}.yaml").model_dump()
        if values["algorithm"] == "cppo":
            changed[name] = {key for key in cppo if values[key] != cppo[key]} - {"arm"}
    assert changed.pop("cppo") == set()
    assert changed.pop("slot_only") == {"solver_prompt", "credit", "solver_grouping"}
    assert changed.pop("k8") == {"k", "group_size", "max_plan_tokens"}
    assert changed.pop("one_adapter") == {"lora_rank", "learning_rate", "microbatches", "beta"}
    assert changed.pop("two_adapters") == {"lora_rank", "learning_rate", "microbatches", "beta", "sharing"}
    assert changed.pop("temperature_one") == {"temperature", "planner_temperature"}
    assert {"credit", "solver_grouping", "group_rule", "loss_mean", "beta"} < changed.pop("cppo_faithful")
    assert all(len(keys) == 1 for name, keys in changed.items() if not name.startswith("k"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reward_sum", lambda step: step["j"] + step["r_out"]),
        ("reward_outcome", lambda step: step["r_out"]),
        ("reward_gate", lambda step: step["j"]),
    ],
)
def test_planner_is_paid_what_the_file_says(name, expected, runs):
    metrics, _ = trained(name, runs)
    assert metrics["r_plan"].tolist() == pytest.approx(expected(metrics).tolist(), abs=1e-6)
    assert metrics["j"].max() > 0


def test_a_policy_whose_template_begins_a_thought_is_refused(runs, tmp_path):
    shutil.copytree(runs / "ablations" / "02_planner_sft" / "sft", tmp_path / "thinks")
    (tmp_path / "thinks" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}\n<think>\n")
    with pytest.raises(ModelError, match="begins a thought although it is asked not to.*: name a model whose template"):
        trained("cppo", runs, policy=str(tmp_path / "thinks"), prompt_style="instruct")


def test_an_arm_starts_from_another_arm_and_its_own_seed(runs):
    trained("cppo", runs)
    cfg = arm("no_kl", policy="arm:cppo")
    folder = training.train(cfg)
    read = store.read_json(folder / "summary.json")["provenance"]["inputs"]
    assert any(name.endswith("cppo.s0/summary.json") for name in read)
    with pytest.raises(MissingArtefactError, match=r"cppo\.s1"):
        training.train(arm("no_kl", policy="arm:cppo", seed=1))


def test_k_is_annealed_over_the_run(runs):
    metrics, _ = trained("pkpo_annealed", runs, steps=4, checkpoint_every=4)
    assert metrics["rule_k"].tolist() == [4, 3, 2, 1]


def test_shares_of_tests_are_real_ones(runs):
    """Two hidden tests and the sample: a program for another method passes the sample alone."""
    metrics, attempts = trained("tests_fraction", runs, credit="own", solver_grouping="problem")
    found = set(attempts["credit"].round(4))
    assert 0.3333 in found and found <= {0.0, 0.3333, 0.6667, 1.0}
    assert (attempts["credit"] == 1).tolist() == attempts["passed"].tolist()
    assert metrics["public_only"].iloc[-1] == pytest.approx((attempts["credit"].between(0.3, 0.4)).mean())


def test_a_solver_that_is_told_its_slot_follows_nothing(runs):
    metrics, attempts = trained("slot_only", runs)
    assert attempts["strategy"].isna().all() and metrics["followed"].isna().all()
    assert attempts["plan"].notna().all() and metrics["distinct_methods"].notna().all()


def test_evaluation_of_slots_gives_no_strategy_and_judges_the_plans(runs):
    trained("slot_only", runs)
    cfg = config.load_params(FOLDER / "04_evaluation.slot_only.yaml", limit=2, tuples=1)
    assert isinstance(cfg, Evaluation)
    records = pd.read_parquet(evaluation.evaluate(cfg))
    assert records["strategy"].isna().all() and records["valid"].notna().all()
