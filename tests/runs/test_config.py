"""Parameter files: every shipped one loads, and every kind of fault names file, key and fix."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from pydantic import ValidationError

from cppo_lib.artefacts import paths
from cppo_lib.errors import ParameterError
from cppo_lib.reward.rewards import SOLVER_CREDITS
from cppo_lib.runs import config, dependencies, profiles, provenance
from cppo_lib.runs.parameters import MODELS, Evaluation, RLTraining
from cppo_lib.runs.series import stamps
from cppo_lib.runs.series.plan import Plan
from cppo_lib.trainer.advantages import ADVANTAGE_RULES, BINARY_RULES, PLANNED

PARAMS = paths.root() / "params"
FILES = sorted(path for path in PARAMS.glob("*/*.yaml") if path.name not in (config.PUBLISHED, profiles.FILE))
NOTEBOOKS = sorted((paths.root() / "notebooks").glob("0[1-7]*_*.ipynb"))
CPPO = PARAMS / "tiny" / "03_rl_training.cppo.yaml"


def edited(tmp_path: Path, **changes: object) -> Path:
    """A copy of the tiny CPPO file with some keys changed; None removes a key."""
    values = {**yaml.safe_load(CPPO.read_text()), **changes}
    path = tmp_path / CPPO.name
    removed = {key for key, value in changes.items() if value is None}
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if key not in removed}))
    return path


@pytest.mark.parametrize("path", FILES, ids=paths.show)
def test_shipped_file_loads_and_names_its_own_profile(path):
    assert config.load_params(path).profile == path.parent.name


def test_smoke_and_tiny_hold_the_same_runs():
    smoke, tiny = ({path.name for path in (PARAMS / profile).iterdir()} for profile in ("smoke", "tiny"))
    assert smoke < tiny
    assert {name.split(".")[1] for name in tiny - smoke} == {"cppo_8_steps", "cppo_faithful"}
    assert {name.split(".")[0] for name in smoke} == set(MODELS)


def test_a_slot_is_a_slot_of_a_tuple():
    file = PARAMS / "tiny" / "04_evaluation.direct.yaml"
    with pytest.raises(ParameterError, match="set procedure: tuple"):
        config.load_params(file, solver_prompt="slot")


@pytest.mark.parametrize("profile", ["smoke", "tiny"])
def test_all_methods_are_evaluated_under_one_budget(profile):
    runs = [config.load_params(path) for path in (PARAMS / profile).glob("04_evaluation.*.yaml")]
    assert {(run.split, run.k, run.tuples, run.limit, run.benchmark) for run in runs} == {
        (runs[0].split, runs[0].k, runs[0].tuples, runs[0].limit, runs[0].benchmark)
    }
    arms = [config.load_params(path) for path in (PARAMS / profile).glob("03_rl_training.*.yaml")]
    shorter = ("warmup", "cppo_8_steps")  # before the arms, and on the released schedule
    budgets = {(a.steps, a.problems_per_step, a.group_size, a.k) for a in arms if a.arm not in shorter}
    assert len(budgets) == 1 and len(arms) > len(shorter)


def test_values_on_a_command_line_are_read_as_in_a_file():
    words = ["figures_dir=", "steps=3", "limit=0", "policy=a=b", "tune_temperatures=[0.5, 1]", "tune_on=null"]
    assert config.given_values(words, "04_evaluation.yaml") == {
        "figures_dir": "", "steps": 3, "limit": 0, "policy": "a=b", "tune_temperatures": [0.5, 1], "tune_on": None
    }  # fmt: skip


@pytest.mark.parametrize("name", ["2026_10", "007", "1e3", "1.0e+3", "0x10", "2026-10-01", "12:30", "no"])
def test_names_that_yaml_reads_as_something_else_are_names(tmp_path, name):
    assert config.given_values([f"policy={name}"], "03_rl_training.yaml") == {"policy": name}
    path = tmp_path / "03_rl_training.yaml"
    path.write_text((PARAMS / "tiny" / "03_rl_training.cppo.yaml").read_text() + f"policy: {name}  # the last counts\n")
    assert config.load_params(path).policy == name


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    path = edited(tmp_path, learning_rate="5e-4")
    assert yaml.safe_load("learning_rate: 5e-4") == {"learning_rate": "5e-4"}  # YAML: a string
    params = config.load_params(path)
    assert isinstance(params, RLTraining)
    assert params.learning_rate == 5e-4


def test_unknown_key_names_file_and_nearest_key(tmp_path):
    path = edited(tmp_path, learning_rte=1e-4)
    with pytest.raises(ParameterError) as caught:
        config.load_params(path)
    assert str(caught.value) == (f"{path}: unknown key 'learning_rte'; did you mean 'learning_rate'?")


def test_renamed_key_is_matched_to_the_one_it_replaced(tmp_path):
    path = edited(tmp_path, steps=None, step=100)
    with pytest.raises(ParameterError, match="unknown key 'step'; did you mean 'steps'"):
        config.load_params(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "key 'steps' is missing; it must be a whole number, at least 1"),
        ({"steps": 0}, "key 'steps' is 0; it must be a whole number, at least 1"),
        ({"steps": 1.5}, "key 'steps' is 1.5; it must be a whole number"),
        ({"steps": True}, "key 'steps' is True; it must be a whole number"),
        ({"steps": "12"}, "key 'steps' is '12'; it must be a whole number"),
        ({"temperature": "warm"}, "key 'temperature' is 'warm'; it must be a number, above 0"),
        ({"temperature": 2.5}, "a number, above 0, at most 2"),
        ({"temperature": ".nan"}, "key 'temperature' is '.nan'"),
        ({"learning_rate": float("nan")}, "key 'learning_rate' is nan"),
        ({"credit": "none"}, "'none'; it must be one of own, tuple, "),
        ({"benchmark": "crossroad"}, "must be one of crossroads, humaneval"),
        ({"profile": "../up"}, "letters, digits, - and _ only"),
        ({"policy": ""}, "key 'policy' is ''"),
        ({"k": 4, "group_size": 8, "pkpo_k": 33}, "pkpo_k=33 must be at most group_size * k = 32"),
        ({"pkpo_k_end": 64}, "pkpo_k_end=64 must be at most group_size * k = 32"),
        (
            {"solver_prompt": "slot", "credit": "followed"},
            "slot names no method to follow: set credit to own, tuple, marginal or frozen",
        ),
        ({"solver_prompt": "slot", "algorithm": "grpo"}, "set algorithm: cppo"),
        ({"sharing": "base", "beta": 0.0}, "set lora_rank above 0 and microbatches to 2 or more"),
        (
            {"sharing": "base", "lora_rank": 4, "beta": 0.1},
            "sharing: base gives planner and solver an adapter each: set beta: 0",
        ),
        ({"algorithm": "grpo"}, "algorithm grpo draws no plans: set planner_temperature: null"),
        (
            {"logprobs_at": "sampling"},
            "logprobs_at: sampling needs one temperature, and plans are drawn at 0.9, programs at 0.7: set "
            "logprobs_at: one, or planner_temperature: null",
        ),
        (
            {"logprobs_at": "sampling", "planner_temperature": 0.7, "top_k": 20},
            "of the whole vocabulary: set top_p: 1.0",
        ),
        ({"max_total_tokens": 400}, "leaves no room behind a prompt of max_prompt_tokens=400 tokens"),
        ({"algorithm": "planner"}, "algorithm: planner trains plans alone, for J: set reward: gate"),
        ({"patience": 3}, "patience is for algorithm: planner, whose reward is J: write null"),
        ({"gate": "trained", "tau": 1.5}, "key 'tau' is 1.5; it must be a number, at least 0, at most 1"),
        ({"tau": 0.5}, "key 'tau' is about the score of a model, and gate: rules has none: write null"),
        ({"outcome_reward": "fraction", "algorithm": "nsr"}, "takes rewards 0 and 1 only"),
        ({"reward": "prod"}, "key 'reward' is 'prod'; it must be one of product, sum, outcome, gate"),
        ({"entropy_coef": -1.0}, "key 'entropy_coef' is -1.0; it must be a number, at least 0"),
    ],
)
def test_bad_value_is_one_line_with_the_allowed_range(tmp_path, changes, message):
    with pytest.raises(ParameterError) as caught:
        config.load_params(edited(tmp_path, **changes))
    assert message in str(caught.value)
    assert CPPO.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "k: [1,\n", "k: 1\nk\n"])
def test_file_that_is_no_flat_mapping_is_named(tmp_path, text):
    path = tmp_path / CPPO.name
    path.write_text(text)
    with pytest.raises(ParameterError, match="03_rl_training.cppo.yaml"):
        config.load_params(path)


def test_unknown_notebook_and_missing_file_are_named(tmp_path):
    with pytest.raises(ParameterError, match="did you mean '03_rl_training'"):
        config.load_params(tmp_path / "03_rl_trainin.cppo.yaml")
    with pytest.raises(ParameterError, match="no such parameter file"):
        config.load_params(tmp_path / "03_rl_training.none.yaml")


# --- files that name only what differs ----------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with the tiny CPPO arm and its evaluation, and an arm like it."""
    for name in (CPPO.name, "04_evaluation.cppo.yaml"):
        (tmp_path / name).write_text((CPPO.parent / name).read_text())
    (tmp_path / "03_rl_training.own.yaml").write_text("like: 03_rl_training.cppo.yaml\narm: own\ncredit: own\n")
    return tmp_path


def test_a_file_like_another_is_that_file_with_its_differences(mine):
    own = config.load_params(mine / "03_rl_training.own.yaml", seed=4)
    assert own == config.load_params(CPPO, arm="own", credit="own", seed=4)
    (mine / "03_rl_training.third.yaml").write_text("arm: 007\nlike: 03_rl_training.own.yaml\nlearning_rate: 1e-3\n")
    third = config.load_params(mine / "03_rl_training.third.yaml")
    assert third == config.load_params(CPPO, arm="007", credit="own", learning_rate=1e-3)


def test_where_a_value_stands_changes_no_fingerprint_and_an_expanded_file_is_the_same(mine, tmp_path):
    path = mine / "03_rl_training.own.yaml"
    command = [sys.executable, "-m", "cppo_lib.runs.config", "expand", path]
    full = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "like" not in full and full.startswith("profile: tiny\nbenchmark: crossroads\n")
    (tmp_path / "full").mkdir()
    expanded = tmp_path / "full" / path.name
    expanded.write_text(full)
    params = [config.load_params(each) for each in (path, expanded)]
    assert params[0] == params[1]
    assert dependencies.fingerprint(params[0]) == dependencies.fingerprint(params[1])
    assert stamps.begun(params[0], tmp_path, []) == stamps.begun(params[1], tmp_path, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("like: 03_rl_training.cpo.yaml", "key 'like' is '03_rl_training.cpo.yaml'; it must be a file of "
         "03_rl_training beside it; did you mean '03_rl_training.cppo.yaml'?"),
        ("like: 04_evaluation.cppo.yaml", "'04_evaluation.cppo.yaml'; it must be a file of 03_rl_training beside it; "),
        ("like: ../tiny/03_rl_training.cppo.yaml", "it must be a file of 03_rl_training beside it; did you mean"),
        ("like: 3", "key 'like' is 3; it must be a file of 03_rl_training beside it; there are 03_rl_training.cppo"),
        ("like: 03_rl_training.own.yaml", "key 'like' goes in a circle: 03_rl_training.own.yaml -> 03_rl_training.own"),
        ("like: 03_rl_training.cppo.yaml\nstep: 3", "unknown key 'step'; did you mean 'steps'?"),
        ("like: 03_rl_training.cppo.yaml\nsteps: 0", "key 'steps' is 0; it must be a whole number, at least 1"),
        ("like: 03_rl_training.cppo.yaml\npkpo_k: 33", "pkpo_k=33 must be at most group_size * k = 32"),
    ],
)  # fmt: skip
def test_a_fault_of_a_file_like_another_names_that_file(mine, text, said):
    path = mine / "03_rl_training.own.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError) as caught:
        config.load_params(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_longer_circle_and_a_fault_of_the_other_file_are_named(mine):
    (mine / "03_rl_training.a.yaml").write_text("like: 03_rl_training.b.yaml")
    (mine / "03_rl_training.b.yaml").write_text("like: 03_rl_training.a.yaml")
    circle = "03_rl_training.a.yaml -> 03_rl_training.b.yaml -> 03_rl_training.a.yaml"
    with pytest.raises(ParameterError, match=f"b.yaml: key 'like' goes in a circle: {circle}$"):
        config.load_params(mine / "03_rl_training.a.yaml")
    (mine / CPPO.name).write_text("steps: many")
    with pytest.raises(ParameterError, match=f"^{mine / CPPO.name}: key "):
        config.load_params(mine / "03_rl_training.own.yaml")


def test_an_ablation_is_two_files_of_three_lines(tmp_path, monkeypatch):
    folder = tmp_path / "params" / "tiny"
    shutil.copytree(CPPO.parent, folder)
    (folder / "03_rl_training.mine.yaml").write_text("like: 03_rl_training.cppo.yaml\narm: mine\ncredit: own\n")
    (folder / "04_evaluation.mine.yaml").write_text("like: 04_evaluation.cppo.yaml\nmethod: mine\npolicy: arm:mine\n")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    plan = Plan("tiny", seeds=2)
    evaluation = plan.runs["04_evaluation.crossroads.test.mine.s1"]
    assert [run.name for run in plan.before(evaluation)] == ["01_data_prep.crossroads", "03_rl_training.mine.s1"]
    arm, cppo = plan.runs["03_rl_training.mine.s1"], plan.runs["03_rl_training.cppo.s1"]
    assert arm.params.model_dump() == cppo.params.model_dump() | {"arm": "mine", "credit": "own"}
    found = provenance.parameter_file(arm.params.run_id, arm.params.model_dump(mode="json"))
    assert (found.path, found.changed) == (folder / "03_rl_training.mine.yaml", ())


def test_papermill_that_was_given_a_file_like_another_says_how_to_expand_it():
    values = yaml.safe_load(CPPO.read_text())
    cell = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    injected = "# Parameters\nlike = '03_rl_training.cppo.yaml'\narm = 'own'\n"
    namespace = {**values, "like": "03_rl_training.cppo.yaml", "arm": "own", "In": ["", cell, injected]}
    with pytest.raises(
        ParameterError, match="give it the whole file, which `python -m cppo_lib.runs.config expand FILE`"
    ):
        config.from_notebook("03_rl_training", namespace)


def test_shipped_files_are_whole_so_that_plain_papermill_reads_them():
    assert not [path for path in FILES if config.LIKE in yaml.safe_load(path.read_text())]


# --- overrides and notebooks --------------------------------------------------------------------


def test_overrides_are_checked_like_the_file():
    assert config.load_params(CPPO, seed=3).seed == 3
    with pytest.raises(ParameterError, match="unknown key 'seeds'; did you mean 'seed'"):
        config.load_params(CPPO, seeds=3)


def test_params_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        config.load_params(CPPO).seed = 1


def test_notebook_values_are_checked_and_other_names_left_alone():
    values = yaml.safe_load(CPPO.read_text())
    cell = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    later = {"rows": [1, 2], "best_step": 3, "config": config}
    history = ["", "import os", cell, "params = from_notebook(...)", "rows = [1, 2]"]
    params = config.from_notebook("03_rl_training", {**values, **later, "In": history})
    assert params == config.load_params(CPPO)


def test_name_injected_by_papermill_that_is_no_parameter_is_an_error():
    values = yaml.safe_load(CPPO.read_text())
    cell = "\n".join(f"{key}: object = {value!r}" for key, value in values.items())
    namespace = {**values, "stepz": 5, "In": ["", cell, "# Parameters\nstepz = 5\n"]}
    with pytest.raises(ParameterError, match="notebook 03_rl_training: unknown key 'stepz'"):
        config.from_notebook("03_rl_training", namespace)


def test_outside_a_kernel_every_plain_value_must_be_a_parameter():
    values = yaml.safe_load(CPPO.read_text())
    namespace = {**values, "config": config, "_hidden": 1, "Path": Path}
    assert config.from_notebook("03_rl_training", namespace).arm == "cppo"
    with pytest.raises(ParameterError, match="unknown key 'stepz'"):
        config.from_notebook("03_rl_training", {**namespace, "stepz": 5})


def parameters_cell(path: Path) -> dict[str, object]:
    """The literals that a notebook's cell tagged `parameters` assigns."""
    notebook = nbformat.read(path, as_version=4)
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, f"{path.name} must have one cell tagged `parameters`"
    values = {}
    for node in ast.parse(cells[0].source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        values[target.id] = ast.literal_eval(node.value)
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defaults_are_smoke_values(path):
    values = parameters_cell(path)
    if values.get("others"):  # methods that the series runs by themselves
        values["others"] = []
    shipped = [
        config.load_params(p) for p in (PARAMS / "smoke").glob(f"{path.stem}*.yaml")
    ]  # one variant of the profile, such as the cppo arm
    assert config.validate(MODELS[path.stem], values, where=path.name) in shipped


def test_choices_are_those_the_library_implements_and_none_needs_torch():
    code = (
        "import sys\nfrom cppo_lib.runs.series import cli\nfrom cppo_lib.trainer import advantages\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'numpy', 'matplotlib', 'papermill'}\n"
        "print(*heavy & {name.split('.')[0] for name in sys.modules}, sep=', ')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    fields = RLTraining.model_json_schema()["properties"]
    assert {*ADVANTAGE_RULES, *PLANNED} == set(fields["algorithm"]["enum"])
    assert {*SOLVER_CREDITS, "frozen"} == set(fields["credit"]["enum"])
    values = config.load_params(CPPO).model_dump() | {"outcome_reward": "fraction", "planner_temperature": None}
    for rule in ADVANTAGE_RULES:
        refused = False
        try:
            RLTraining.model_validate(values | {"algorithm": rule})
        except ValidationError:
            refused = True
        assert refused == (rule in BINARY_RULES)


def test_every_field_says_what_it_means():
    for model in MODELS.values():
        assert all(field.description for field in model.model_fields.values())
        assert all(field.is_required() for field in model.model_fields.values())
    assert "not stated in the abstract" in (Evaluation.model_fields["tuples"].description or "")


def test_documentation_is_up_to_date():
    assert (paths.root() / "docs" / "parameters.md").read_text() == config.docs()


def test_published_figures_are_complete_and_faults_are_named(tmp_path):
    published = config.load_published()
    best = {cell.method: cell.pass_at_4 for cell in published.cells}
    assert best == {"pkpo": 0.588, "cppo": 0.748}
    assert len(published.card) == 10
    assert sum(row.percent is None for row in published.card) == 3
    broken = tmp_path / config.PUBLISHED
    broken.write_text((PARAMS / "paper" / config.PUBLISHED).read_text().replace("0.748", "74.8"))
    with pytest.raises(ParameterError, match=r"published\.yaml: key 'cells\.1\.pass_at_4'"):
        config.load_published(broken)


def test_command_line_prints_ok_or_the_first_error(tmp_path):
    bad = edited(tmp_path, stepz=1)
    command = [sys.executable, "-m", "cppo_lib.runs.config", "check"]
    good = subprocess.run([*command, CPPO], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "params/tiny/03_rl_training.cppo.yaml: ok\n")
    failed = subprocess.run([*command, CPPO, bad], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {bad}: unknown key 'stepz'")
    assert failed.stderr.count("\n") == 1
