"""Tuples are spoilt as they say; the classifier learns to refuse them, and serves RL and reports."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import gate_world
import pandas as pd
import pytest
from attempt_frames import write_runs

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import MissingArtefactError, ModelError, ParameterError
from cppo_lib.model import policy as model
from cppo_lib.report import render
from cppo_lib.report.results import load_results
from cppo_lib.report.tables.registry import make_table
from cppo_lib.reward import gate_rules as gate
from cppo_lib.reward import score
from cppo_lib.reward.gate_classifier import TrainedGate
from cppo_lib.reward.gate_quality import (
    KINDS,
    RECORDS,
    WORDINGS,
    decisions,
    examples,
    frame_of,
    group_of,
    passes_rules,
    rates,
)
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.plans import ParsedTuple
from cppo_lib.rollout.replies import normalise
from cppo_lib.rollout.two_stage import Member
from cppo_lib.runs import config, trace
from cppo_lib.runs.parameters import PaperTables
from cppo_lib.runs.series.plan import Plan
from cppo_lib.runs.stages import data_prep
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
    with pytest.raises(ParameterError, match="two different problems.*set gate_steps: 0"):
        examples(one, seed=0)
    single = [dataclasses.replace(candidate, methods=candidate.methods[:1]) for candidate in tuples]
    with pytest.raises(ParameterError, match="there are 0 of 0"):
        examples(single, seed=0)


# --- the classifier -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    gate_world.add_policy(folder)
    gate_world.add_classifier(folder, steps=60)
    return folder


def test_the_classifier_refuses_most_of_what_the_rules_cannot_see(stage):
    found = examples(gate_world.tuples(), seed=5, held_out=True)
    scorer = TrainedGate(stage / "gate", "brief")
    records = decisions(found, "rules", None) + decisions(found, "trained", scorer)
    found = rates(frame_of(records))
    assert found.loc["rules", ["recall", "repeated", "garbled"]].tolist() == [1, 0, 1]
    assert found.loc["rules", "precision"] == pytest.approx(1 / 4)
    assert found.loc["trained", "precision"] > 0.35 and found.loc["trained", "recall"] > 0.5
    assert found.loc["trained", "garbled"] < 0.5 and found.loc["trained", "repeated"] == 0


def test_scores_do_not_hang_on_the_company(stage):
    scorer = TrainedGate(stage / "gate", "brief")
    candidates = [one.candidate for one in examples(gate_world.tuples(), seed=0)[:15]]
    together = scorer.scores(candidates)
    assert [scorer.scores([one])[0] for one in candidates] == pytest.approx(together, abs=1e-5)
    assert len(set(together)) > 5 and all(0 < score < 1 for score in together)


def test_an_adapter_is_trained_where_sft_trains_one(stage, tmp_path):
    cfg = gate_world.planner_sft(gate_steps=2).model_copy(update={"lora_rank": 2})
    folder = gate_world.train_classifier(stage / "sft", cfg, tmp_path)
    assert (folder / model.ADAPTER).is_file() and not (folder / "model.safetensors").exists()
    candidates = gate_world.tuples()[:3]
    scores = TrainedGate(folder, "brief").scores(candidates)
    assert scores == TrainedGate(folder, "brief").scores(candidates)
    with pytest.raises(ModelError, match="cannot start from an adapter"):
        gate_world.train_classifier(folder, cfg, tmp_path / "again")


# --- in the series ------------------------------------------------------------------------------


@pytest.fixture
def prepared(runs: Path) -> Path:
    sizes = {"train_per_context": 2, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(SMOKE / "01_data_prep.yaml", options={**sizes, "hidden_tests": 2}))
    return runs / "smoke"


def test_planner_sft_leaves_a_classifier_and_its_decisions(prepared):
    cfg = gate_world.planner_sft(pretrain_steps=1, sft_steps=1, hidden_size=16, gate_steps=2)
    folder = sft.train_planner(cfg)
    names = [Path(name).name for name in store.read_json(folder / "summary.json")["artefacts"]]
    assert names == ["base", "sft", "gate", "gate_decisions.parquet"]
    frame = pd.read_parquet(folder / RECORDS)
    assert list(frame) == ["problem_id", "kind", "valid", "gate", "accepted", "score"]
    assert frame["valid"].dtype == frame["accepted"].dtype == bool and frame["score"].dtype == float
    assert len(frame) == 12 * 5 * 2 and set(frame["gate"]) == {"rules", "trained"}
    assert frame.loc[frame["gate"] == "rules", "score"].isna().all()
    trained = frame[(frame["gate"] == "trained") & (frame["kind"] != "repeated")]
    assert (trained["accepted"] == (trained["score"] > gate.THRESHOLD)).all()
    before = (folder / "sft" / "model.safetensors").read_bytes(), (folder / "gate" / "model.safetensors").read_bytes()
    (folder / "summary.json").unlink()  # killed just before the end: nothing that was finished is made again
    stamp = (folder / "gate").stat().st_mtime_ns
    sft.train_planner(cfg)
    assert (folder / "gate").stat().st_mtime_ns == stamp
    without = sft.train_planner(cfg.model_copy(update={"gate_steps": 0}))
    assert (without / "sft" / "model.safetensors").read_bytes() == before[0] and not (without / "gate").exists()


def test_distilled_problems_are_split_between_learning_and_testing():
    cfg = gate_world.planner_sft().model_copy(update={"benchmark": "leetcode"})
    tuples = [one.candidate for one in examples(gate_world.tuples(), seed=0) if one.valid]
    problems = [dataclasses.replace(one.problem, id=f"p{i}", meta={}) for i, one in enumerate(tuples)]
    rows = [
        sft.SFTRow("plan", "", "1. a way\n2. another", problem) for problem in problems
    ]  # fmt: skip
    learnt, held = ({one.problem.id for one in part} for part in sft.gate_tuples(cfg, rows)[:2])
    assert learnt.isdisjoint(held) and len(learnt | held) == len(rows) and 0 < len(held) < len(learnt)


def test_rl_asks_the_classifier_and_says_how_far_it_drifts(prepared):
    rules = config.load_params(SMOKE / "03_rl_training.cppo.yaml", steps=2)
    cfg = rules.model_copy(update={"gate": "trained"})
    sft_stage = prepared / "02_planner_sft"
    gate_world.add_policy(sft_stage)
    with pytest.raises(MissingArtefactError, match="gate is missing.*set gate_steps above 0"):
        rl.train(cfg)
    gate_world.add_classifier(sft_stage)
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


class _Never:
    def scores(self, candidates: list[Candidate]) -> list[float]:
        self.asked = candidates
        return [0.5] * len(candidates)


def test_only_tuples_that_pass_the_rules_are_asked_about():
    problem, scorer = crossroads.world(1, 1, 1, 1, 1, 0)["train"][0], _Never()
    plans = [ParsedTuple(("a", "b"), True), ParsedTuple(("a", "a"), True), None]
    members = [Member(problem, (), plan, (), (), ()) for plan in plans]
    found = [(one.valid, one.refusal) for one in gate.gated(members, scorer)]
    assert found == [(False, "implausible"), (False, "repeated"), (None, "")]
    assert scorer.asked == [Candidate(problem, ("a", "b"))]
    assert gate.gated(members)[0].valid


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("grpo", {"gate": "trained"}, "gate: trained judges tuples, which grpo has none of"),
        ("cppo", {"gate": "llm"}, "key 'gate_model' is for gate: llm.*name a chat model"),
        ("cppo", {"gate": "trained", "gate_model": "base"}, "this is gate: trained: write null"),
        ("cppo", {"gate": "llm", "gate_model": "base"}, "with prompt_style: brief the model was taught to answer none"),
        ("cppo", {"gate": "none"}, "must be one of rules, llm, trained"),
    ],
)
def test_gates_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ParameterError, match=message):
        config.load_params(SMOKE / f"03_rl_training.{name}.yaml", **changes)


def test_a_plan_with_a_classifier_that_nothing_trains_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "params" / "smoke"
    folder.mkdir(parents=True)
    for path in SMOKE.glob("0[1-3]*.yaml"):
        text = path.read_text().replace("gate_steps: 20", "gate_steps: 0")
        folder.joinpath(path.name).write_text(
            text.replace("gate: rules", "gate: trained") if path.name.endswith("cppo.yaml") else text
        )
    real = paths.root()
    (tmp_path / "notebooks").symlink_to(real / "notebooks")
    (tmp_path / "cppo_lib").symlink_to(real / "cppo_lib")
    monkeypatch.setattr(paths, "root", lambda start=None: tmp_path)
    with pytest.raises(ParameterError, match="gate: trained needs a classifier: set gate_steps"):
        Plan("smoke")


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
    stage = runs / "test" / "02_planner_sft"
    store.write_parquet(stage / RECORDS, frame_of(rows))
    notes.write_meta(stage / RECORDS, gate_world.planner_sft())
    table = make_table("T8_gate", results)
    by_rules = table.numbers.set_index("gate").loc["rules"]
    assert by_rules[["precision", "recall", "repeated", "garbled"]].tolist() == [0.6, 0.75, 0, 0.5]
    assert by_rules["precision_low"] < 0.6 < by_rules["precision_high"] <= 1
    assert table.shown.iloc[1, 1] == "–" and table.shown.iloc[1, 3] == "0.000"
    folder = runs / "test" / "figures"
    written = render.write_table(table, folder)
    assert [path.name for path in written] == [f"T8_gate.{end}" for end in ("csv", "md", "tex", "json")]
    assert trace.main(["T8", "--profile", "test"]) == 0
    assert "gate_decisions.parquet" in capsys.readouterr().out
