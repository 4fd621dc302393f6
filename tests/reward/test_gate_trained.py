"""Tuples are spoilt as they say; a gate learns to refuse them, is accepted or refused, and serves RL and reports."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import gate_world
import numpy as np
import pandas as pd
import pytest
from attempt_frames import write_runs

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.model import policy as model
from cppo_lib.report import render
from cppo_lib.report.results import load_results
from cppo_lib.report.tables.registry import make_table
from cppo_lib.reward import gate_rules as gate
from cppo_lib.reward import score
from cppo_lib.reward.gate_quality import (
    KINDS,
    OUTCOMES,
    RECORDS,
    WORDINGS,
    auc,
    average_precision,
    decisions,
    examples,
    frame_of,
    group_of,
    measures,
    passes_rules,
    rates,
)
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.reward.gate_verbaliser import VerbaliserGate
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.replies import normalise
from cppo_lib.rollout.two_stage import Member
from cppo_lib.runs import config, trace
from cppo_lib.runs.parameters import PaperTables
from cppo_lib.runs.series.plan import Plan
from cppo_lib.runs.stages import data_prep, gate_training
from cppo_lib.runs.stages import planner_sft as sft
from cppo_lib.runs.stages import rl_training as rl

SMOKE = paths.root() / "params" / "smoke"
NAMES = {
    family.name: {method.name for method in family.methods}
    for family in crossroads.FAMILIES
}  # fmt: skip


# --- corruptions --------------------------------------------------------------------------------


def test_each_tuple_is_followed_by_one_of_each_corruption():
    found = examples(gate_world.tuples(), seed=0)
    assert [one.kind for one in found[:5]] == ["valid", *KINDS] and len(found) % 5 == 0
    for valid, *spoilt in zip(*[iter(found)] * 5, strict=True):
        own = NAMES[group_of(valid.candidate.problem)]
        assert set(valid.candidate.methods) <= own and valid.valid
        for one in spoilt:
            assert not one.valid and one.candidate.problem is valid.candidate.problem
            changed = [m for m, n in zip(one.candidate.methods, valid.candidate.methods, strict=True) if m != n]
            assert len(changed) == 1
            assert passes_rules(one.candidate) == (one.kind != "repeated")
            if one.kind == "repeated":
                assert changed[0] in valid.candidate.methods
            else:
                assert changed[0] not in own
            if one.kind == "other_problem":
                assert any(changed[0] in names for names in NAMES.values())


def test_corruptions_follow_from_their_seed_and_tests_have_their_own_words():
    tuples = gate_world.tuples()
    assert examples(tuples, seed=1) == examples(tuples, seed=1) != examples(tuples, seed=2)
    assert not set(WORDINGS["learnt"]) & set(WORDINGS["held_out"])
    for held_out, key in ((False, "learnt"), (True, "held_out")):
        found = [one for one in examples(tuples, seed=1, held_out=held_out) if one.kind == "paraphrased"]
        known = {normalise(text.format(m)) for text in WORDINGS[key] for one in found for m in one.candidate.methods}
        assert all(known & {normalise(m) for m in one.candidate.methods} for one in found)


def test_tuples_of_one_problem_cannot_be_spoilt():
    tuples = gate_world.tuples()
    one = [candidate for candidate in tuples if group_of(candidate.problem) == "middle"]
    with pytest.raises(ParameterError, match="two different problems.*set epochs: 0"):
        examples(one, seed=0)
    single = [dataclasses.replace(candidate, methods=candidate.methods[:1]) for candidate in tuples]
    with pytest.raises(ParameterError, match="there are 0 of 0"):
        examples(single, seed=0)


# --- measures -----------------------------------------------------------------------------------


def test_measures_are_those_of_their_definitions():
    """AUC over all pairs, average precision at every place, also where scores are equal."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        valid = np.array([True, False, *(rng.random(9) < 0.5)])
        scores = rng.integers(0, 5, len(valid)) / 4
        pairs = [float(a > b) + 0.5 * float(a == b) for a in scores[valid] for b in scores[~valid]]
        assert auc(valid, scores) == pytest.approx(np.mean(pairs))
        above = [scores >= mark for mark in scores[valid]]
        assert average_precision(valid, scores) == pytest.approx(np.mean([valid[kept].mean() for kept in above]))
    told = measures(np.array([True, True, False]), np.array([0.9, 0.2, 0.1]), np.array([True, False, False]))
    assert told == {"auc": 1, "average_precision": 1, "balanced_accuracy": 0.75, "precision": 1, "recall": 0.5}
    nothing = measures(np.array([True]), np.array([0.5]), np.array([False]))
    assert math.isnan(nothing["auc"]) and math.isnan(nothing["precision"]) and nothing["recall"] == 0


# --- the trained gate ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    gate_world.add_policy(folder)
    gate_world.train_gate(folder / "sft", folder, epochs=4, steps=20)
    return folder


def test_the_gate_refuses_most_of_what_the_rules_cannot_see(stage):
    found = examples(gate_world.tuples(), seed=5, held_out=True)
    scorer = VerbaliserGate(stage / "gate", "brief", 256, 0.5)
    records = decisions(found, "rules", None) + decisions(found, "trained", scorer)
    found = rates(frame_of(records))
    assert found.loc["rules", ["recall", "repeated", "garbled"]].tolist() == [1, 0, 1]
    assert found.loc["rules", "precision"] == pytest.approx(1 / 4)
    assert found.loc["rules", "auc"] == pytest.approx(5 / 8)  # the three kinds that they cannot see are ties
    assert found.loc["trained", "precision"] > 0.35 and found.loc["trained", "recall"] > 0.5
    assert found.loc["trained", "garbled"] < 0.5 and found.loc["trained", "repeated"] == 0
    assert found.loc["trained", "auc"] > 0.75


def test_scores_do_not_hang_on_the_company(stage):
    scorer = VerbaliserGate(stage / "gate", "brief", 256, 0.5)
    candidates = [one.candidate for one in examples(gate_world.tuples(), seed=0)[:15]]
    together = scorer.scores(candidates)
    assert [scorer.scores([one])[0] for one in candidates] == pytest.approx(together, abs=1e-5)
    assert len(set(together)) > 5 and all(0 < score < 1 for score in together)


def test_an_adapter_is_trained_where_a_rank_is_given_and_may_be_trained_further(stage, tmp_path):
    folder = gate_world.train_gate(stage / "sft", tmp_path, lora_rank=2, epochs=1)
    assert (folder / model.ADAPTER).is_file() and not (folder / "model.safetensors").exists()
    candidates = gate_world.tuples()[:3]
    scores = VerbaliserGate(folder, "brief", 256, 0.5).scores(candidates)
    again = gate_world.train_gate(folder, tmp_path / "again", lora_rank=2, epochs=1)
    assert VerbaliserGate(again, "brief", 256, 0.5).scores(candidates) != scores


# --- in the series ------------------------------------------------------------------------------


@pytest.fixture
def prepared(runs: Path) -> Path:
    sizes = {"train_per_context": 2, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(SMOKE / "01_data_prep.yaml", options={**sizes, "hidden_tests": 2}))
    return runs / "smoke"


def labelled(**changes: object):
    return gate_world.gate_params(epochs=1, **changes)


def test_the_stage_leaves_a_gate_its_labels_and_its_decisions(prepared):
    sft.train_planner(gate_world.planner_sft(pretrain_steps=1, sft_steps=1, hidden_size=16))
    problems = data_prep.read_split("smoke", "crossroads", "test")
    names = ["mean", "mode", "range", "peak"]
    attempts = [
        {"problem_id": one.id, "tuple_index": 0, "slot": slot, "strategy": names[slot]}
        | {"valid": place > 0, "passed": slot == place}
        for place, one in enumerate(problems)
        for slot in range(4)
    ]
    evaluated = prepared / "04_evaluation" / "crossroads.test.sft.s0.parquet"
    store.write_parquet(evaluated, attempts)
    notes.write_meta(evaluated, gate_world.planner_sft())
    cfg = labelled(learning_rate=1e-9)
    folder = gate_training.train(cfg)
    names = [Path(name).name for name in store.read_json(folder / "summary.json")["artefacts"]]
    assert names == ["labels.jsonl", "gate", RECORDS, OUTCOMES]
    frame = pd.read_parquet(folder / RECORDS)
    assert list(frame) == ["problem_id", "kind", "valid", "gate", "accepted", "score"]
    assert frame["valid"].dtype == frame["accepted"].dtype == bool and frame["score"].dtype == float
    assert len(frame) == 12 * 5 * 2 and set(frame["gate"]) == {"rules", "trained"}
    assert frame.loc[frame["gate"] == "rules", "score"].isna().all()
    trained = frame[(frame["gate"] == "trained") & (frame["kind"] != "repeated")]
    assert (trained["accepted"] == (trained["score"] > cfg.tau)).all()
    outcomes = pd.read_parquet(folder / OUTCOMES).set_index(["gate", "problem_id"])
    assert outcomes["passed"].groupby("gate").sum().tolist() == [4, 4]
    assert outcomes.loc[("trained", problems[0].id), "score"] == 0 < outcomes.loc[("trained", problems[1].id), "score"]
    rows = store.read_jsonl(folder / "labels.jsonl")
    assert {row["source"] for row in rows} >= {"catalogue", "corruption"}
    assert len({row["problem_id"] for row in rows}) == 48
    # Killed just before the end: nothing that was finished is made again.
    (folder / "summary.json").unlink()
    stamp = (folder / "gate").stat().st_mtime_ns
    gate_training.train(cfg)
    assert (folder / "gate").stat().st_mtime_ns == stamp
    # The labels that it has written may be given back.
    again = paths.runs_root() / "own.jsonl"
    again.write_bytes((folder / "labels.jsonl").read_bytes())
    told = store.read_json(gate_training.train(labelled(labels=str(again), sampled=0)) / "summary.json")
    assert told["labels"] == len(rows) and "labels.jsonl" not in str(told["artefacts"])


def test_a_gate_that_misses_a_threshold_is_refused_and_serves_nobody(prepared):
    """Hardly trained it is refused; where that is asked for it serves all the same, as with thresholds of 0."""
    sft.train_planner(gate_world.planner_sft(pretrain_steps=1, sft_steps=1, hidden_size=16))
    arm = config.load_params(SMOKE / "03_rl_training.cppo.yaml", gate="trained", steps=1)
    with pytest.raises(MissingArtefactError, match=r"02b_gate/summary.json is missing: run notebooks/02b_gate.ipynb"):
        rl.open_scorer(arm)
    folder = gate_training.train(labelled(sampled=0, min_auc=1.0, learning_rate=1e-9))
    found = store.read_json(folder / "summary.json")["gate"]
    assert not found["accepted"] and "auc" in found["missed"] and (folder / "gate").is_dir()
    assert gate_training.sentence(found).startswith("refused: auc 0.")
    with pytest.raises(ParameterError, match=r"gate was refused.*its auc is 0\.\d+ and must be at least 1.*accept"):
        rl.open_scorer(arm)
    gate_training.train(labelled(sampled=0, min_auc=1.0, learning_rate=1e-9, accept_refused=True, tau=0.25))
    assert rl.open_scorer(arm).threshold == 0.25
    assert rl.open_scorer(arm.model_copy(update={"tau": 0.75})).threshold == 0.75
    none = {"min_auc": 0, "min_balanced_accuracy": 0, "min_precision": 0, "min_recall": 0}
    folder = gate_training.train(labelled(sampled=0, tau=0.0, **none))
    assert store.read_json(folder / "summary.json")["gate"]["accepted"] and rl.open_scorer(arm).threshold == 0
    gate_training.train(labelled(sampled=0).model_copy(update={"epochs": 0}))
    with pytest.raises(MissingArtefactError, match="gate is missing.*set epochs above 0"):
        rl.open_scorer(arm)


def test_distilled_problems_are_split_between_learning_and_testing(prepared, monkeypatch):
    tuples = [one.candidate for one in examples(gate_world.tuples(), seed=0) if one.valid]
    problems = [dataclasses.replace(one.problem, id=f"p{i}", meta={}) for i, one in enumerate(tuples)]
    rows = [sft.SFTRow("plan", "", "1. a way\n2. another\n3. a third\n4. last", problem) for problem in problems]
    monkeypatch.setattr(gate_training, "_planner", lambda profile: gate_world.planner_sft())
    monkeypatch.setattr(sft, "training_rows", lambda planner: (rows, []))
    monkeypatch.setattr(gate_training.gate_quality, "examples", lambda found, **_: found)
    _, learnt, held = gate_training._tuples(gate_world.gate_params(benchmark="leetcode", sampled=0))
    learnt, held = ({one.problem.id for one in part} for part in (learnt, held))
    assert learnt.isdisjoint(held) and len(learnt | held) == len(rows) and 0 < len(held) < len(learnt)


def test_rl_asks_the_gate_and_says_how_far_it_drifts(prepared):
    rules = config.load_params(SMOKE / "03_rl_training.cppo.yaml", steps=2)
    cfg = rules.model_copy(update={"gate": "trained"})
    sft_stage = prepared / "02_planner_sft"
    gate_world.add_policy(sft_stage)
    gate_world.add_gate(prepared / "02b_gate", sft_stage / "sft")
    folder = rl.train(cfg)
    rows = store.read_jsonl(folder / "metrics.jsonl")
    assert len(rows) == 2 and all(row["j"] <= row["j_rules"] for row in rows)
    attempts = pd.read_parquet(folder / "rollouts" / "step_00001.parquet")
    told = attempts.drop_duplicates("member")
    assert rows[0]["j"] == pytest.approx(told["valid"].mean())
    expected = (told["valid"] | (told["refusal"] == gate.IMPLAUSIBLE)).mean()
    assert rows[0]["j_rules"] == pytest.approx(expected)
    by_rules = store.read_jsonl(rl.train(rules.model_copy(update={"arm": "rules"})) / "metrics.jsonl")
    assert by_rules[0]["j"] == by_rules[0]["j_rules"] == rows[0]["j_rules"], "the same first draws"


def test_precision_is_known_for_crossroads_and_for_accepted_tuples_only():
    problem = crossroads.world(1, 1, 1, 1, 1, 0)["train"][0]
    names = sorted(NAMES[problem.meta["family"]])[:2]

    def member(methods, valid, at=problem):
        class Told:  # the attributes of rollout.Member that are read
            parsed, refusal = ParsedTuple(tuple(methods), True), ""

        Told.problem, Told.valid = at, valid
        return Told

    good, bad = member(names, True), member([names[0], "no such method"], True)
    assert score._gate_precision([good, bad, member(["x", "y"], False)]) == 0.5
    assert math.isnan(score._gate_precision([member(names, False)]))
    assert math.isnan(score._gate_precision([member(names, True, dataclasses.replace(problem, meta={}))]))


class _Half:
    threshold = 0.5

    def scores(self, candidates: list[Candidate]) -> list[float]:
        self.asked = candidates
        return [0.5] * len(candidates)


def test_only_tuples_that_pass_the_rules_are_asked_about():
    problem, scorer = crossroads.world(1, 1, 1, 1, 1, 0)["train"][0], _Half()
    plans = [ParsedTuple(("a", "b"), True), ParsedTuple(("a", "a"), True), None]
    members = [Member(problem, (), plan, (), (), ()) for plan in plans]
    found = [(one.valid, one.refusal) for one in gate.gated(members, scorer)]
    assert found == [(False, "implausible"), (False, "repeated"), (None, "")]
    assert scorer.asked == [Candidate(problem, ("a", "b"))]
    assert gate.gated(members)[0].valid
    scorer.threshold = 0.17
    assert gate.gated(members, scorer)[0].valid


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("grpo", {"gate": "trained"}, "gate: trained judges tuples, which grpo has none of"),
        ("cppo", {"gate": "llm"}, "key 'gate_model' is for gate: llm.*name a chat model"),
        ("cppo", {"gate": "trained", "gate_model": "base"}, "this is gate: trained: write null"),
        ("cppo", {"gate": "llm", "gate_model": "base"}, "with prompt_style: brief the model was taught to answer none"),
        ("cppo", {"tau": 0.5}, "key 'tau' is about the score of a model, and gate: rules has none: write null"),
        ("cppo", {"gate": "trained", "tau": 1.5}, "key 'tau' is 1.5; it must be a number, at least 0, at most 1"),
        ("cppo", {"gate": "none"}, "must be one of rules, llm, trained"),
    ],
)
def test_gates_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ParameterError, match=message):
        config.load_params(SMOKE / f"03_rl_training.{name}.yaml", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": 1.2}, "key 'tau' is 1.2; it must be a number, at least 0, at most 1"),
        ({"tau": -0.1}, "key 'tau' is -0.1; it must be a number, at least 0, at most 1"),
        ({"min_auk": 0.5}, "unknown key 'min_auk'; did you mean 'min_auc'"),
        ({"microbatches": 3}, "microbatches=3 must divide batch=32"),
        ({"labels": "own.jsonl"}, "sampled plans are labelled by crossroads' truth.*set sampled: 0"),
    ],
)
def test_parameters_of_the_gate_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        gate_world.gate_params(**changes)


def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, epochs: int, without: str = "") -> Plan:
    """The smoke profile with an arm that trains with the gate."""
    folder = tmp_path / "params" / "smoke"
    folder.mkdir(parents=True)
    for path in SMOKE.glob("0[1-4]*.yaml"):
        text = path.read_text().replace("epochs: 2", f"epochs: {epochs}")
        if path.name != without:
            arm = path.name == "03_rl_training.cppo.yaml"
            folder.joinpath(path.name).write_text(text.replace("gate: rules", "gate: trained") if arm else text)
    real = paths.root()
    (tmp_path / "notebooks").symlink_to(real / "notebooks")
    (tmp_path / "cppo_lib").symlink_to(real / "cppo_lib")
    monkeypatch.setattr(paths, "root", lambda start=None: tmp_path)
    return Plan("smoke")


def test_the_gate_comes_after_planner_sft_and_its_evaluation_and_before_the_arms_that_use_it(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, monkeypatch, epochs=2)
    before = {name: [run.name for run in plan.before(run)] for name, run in plan.runs.items()}
    sft = "04_evaluation.crossroads.test.sft.s0"
    assert before["02b_gate"] == ["01_data_prep.crossroads", "02_planner_sft", sft]
    assert before["03_rl_training.cppo.s0"][:3] == ["01_data_prep.crossroads", "02_planner_sft", "02b_gate"]
    assert "02b_gate" not in before["03_rl_training.grpo.s0"]
    limited = Plan("smoke", limit=2, model="/models/coder").runs["02b_gate"].given
    assert limited == {"epochs": 1, "sampled": 0, "accept_refused": True}, "MODEL leaves the gate's own model alone"


def test_a_plan_with_a_gate_that_nothing_trains_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ParameterError, match="needs a gate that is trained: set epochs in .*02b_gate.yaml above 0"):
        plan_of(tmp_path / "none", monkeypatch, epochs=0)
    monkeypatch.undo()
    with pytest.raises(ParameterError, match="needs a gate that is trained: write a 02b_gate.yaml beside it"):
        plan_of(tmp_path / "missing", monkeypatch, epochs=2, without="02b_gate.yaml")


# --- T8 -----------------------------------------------------------------------------------------


def test_t8_has_a_row_for_each_gate_and_leads_back_to_its_records(runs, tmp_path, capsys):
    write_runs(runs, problems=4)
    values = {"profile": "test", "benchmark": "crossroads", "split": "test", "seeds": 1, "resamples": 200}
    results = load_results(PaperTables(**values, figures_dir="", seed=0, further_cells=[]))
    assert make_table("T8_gate", results) is None
    rows = [
        {"problem_id": f"p{i}", "kind": kind, "valid": kind == "valid", "gate": "rules", "score": None}
        | {"accepted": kind == "valid" and i > 0 or kind == "garbled" and i < 2}
        for i in range(4)
        for kind in ("valid", "repeated", "garbled")
    ]
    rows += [row | {"gate": "trained", "accepted": False, "score": 0.1} for row in rows]
    stage = runs / "test" / "02b_gate"
    store.write_parquet(stage / RECORDS, frame_of(rows))
    notes.write_meta(stage / RECORDS, gate_world.gate_params())
    achieved = [{"gate": "trained", "score": i / 4, "passed": i == 2} for i in range(4)]
    store.write_parquet(stage / OUTCOMES, achieved)
    table = make_table("T8_gate", results)
    by_rules = table.numbers.set_index("gate").loc["rules"]
    assert by_rules[["precision", "recall", "repeated", "garbled"]].tolist() == [0.6, 0.75, 0, 0.5]
    assert by_rules["precision_low"] < 0.6 < by_rules["precision_high"] <= 1
    trained = table.shown.set_index("Gate").loc["trained"]
    assert trained["precision"] == "–" and trained["recall"] == "0.000" and trained["AUC"] == "0.500"
    # R_out: of the three tuples without success, two have a lower score.
    assert trained["AUC of R_out"] == "0.667" and table.shown.set_index("Gate").loc["rules", "AUC of R_out"] == "–"
    folder = runs / "test" / "figures"
    written = render.write_table(table, folder)
    assert [path.name for path in written] == [f"T8_gate.{end}" for end in ("csv", "md", "tex", "json")]
    assert trace.main(["T8", "--profile", "test"]) == 0
    assert "gate_decisions.parquet" in capsys.readouterr().out
