"""Pretrained models: adapters train, resume and merge, Qwen3.5 is a text model here, and own tuples are learnt."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from fitting import fit
from peft import PeftModel
from safetensors.torch import load_file
from small_policy import Paid
from transformers import Qwen3_5ForConditionalGeneration, Qwen3_5TextConfig, Qwen3_5VisionConfig
from transformers.models.qwen3_5 import Qwen3_5Config

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import DatasetError, MissingArtefactError, ModelError, ParameterError, TrainingError
from cppo_lib.model import policy as model
from cppo_lib.model import tiny
from cppo_lib.model.decoding import PARTS, Draw, sample
from cppo_lib.rollout.plans import parse_tuple
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config
from cppo_lib.runs.parameters import SCRATCH_KEYS
from cppo_lib.runs.stages import data_prep, evaluation, rollouts
from cppo_lib.runs.stages import planner_sft as sft
from cppo_lib.runs.stages import rl_training as training
from cppo_lib.runs.stages.rl_training import train
from cppo_lib.trainer.sft_data import SFTRow, crossroads_rows, distilled_rows

SMOKE = paths.root() / "params" / "smoke"
CHAT = (
    "{% for message in messages %}<user>{{ message['content'] }}</user>{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
PRETRAINED = dict.fromkeys(SCRATCH_KEYS)
CORPUS = crossroads.world(2, 2, 1, 20, 1, 0)["corpus"]


def tokenizer_of_the_world():
    rows = crossroads_rows(CORPUS, PromptStyle("brief", None), 4)
    tokenizer = tiny.build_tokenizer([row.prompt + row.completion for row in rows], 700)
    tokenizer.chat_template = CHAT
    return tokenizer


def fitted(policy, tokenizer):
    """The model after a few steps on programs, so that rewards and gradients of RL are not all zero."""
    rows = crossroads_rows(CORPUS, PromptStyle("brief", None), 4)
    texts = [row.prompt + row.completion + tokenizer.eos_token for row in rows if row.kind in ("direct", "plan")]
    return fit(policy, tokenizer, texts, steps=100, batches=8)


def qwen2(folder: Path) -> Path:
    tokenizer = tokenizer_of_the_world()
    policy = tiny.build_model(tokenizer, hidden_size=32, layers=2, heads=2, seed=0)
    model.save_policy(fitted(policy, tokenizer), tokenizer, folder)
    return folder


def qwen35(folder: Path) -> Path:
    """A random Qwen3.5 as the hub has it: a vision-language model whose text half mixes both kinds of attention."""
    tokenizer = tokenizer_of_the_world()
    text = Qwen3_5TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = Qwen3_5VisionConfig(
        depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, patch_size=4
    )
    torch.manual_seed(0)
    whole = Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(text_config=text.to_dict(), vision_config=vision.to_dict(), tie_word_embeddings=False)
    )
    model.save_policy(fitted(whole, tokenizer), tokenizer, folder)
    return folder


@pytest.fixture(scope="module", params=[qwen2, qwen35], ids=["qwen2", "qwen3.5"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def prepared(runs: Path) -> Path:
    """A runs folder of the smoke profile with a few problems."""
    sizes = {"train_per_context": 2, "dev_per_context": 1, "test_per_context": 1, "hidden_tests": 2}
    data_prep.prepare(config.load_params(SMOKE / "01_data_prep.yaml", options={**sizes, "corpus_per_context": 5}))
    return runs / "smoke"


def sft_params(base: Path, **changes: object):
    given = {
        "base_model": str(base),
        "lora_rank": 2,
        "sft_steps": 4,
        "sft_batch": 4,
        "sft_lr": 0.01,
        **PRETRAINED,
    }
    return config.load_params(SMOKE / "02_planner_sft.yaml", **{**given, **changes})


def rl_params(**changes: object):
    given = {"lora_rank": 2, "steps": 4, "checkpoint_every": 2, "credit": "own", "solver_grouping": "problem"}
    given |= {"learning_rate": 0.01, "max_program_tokens": 40, "max_plan_tokens": 20}
    return config.load_params(SMOKE / "03_rl_training.cppo.yaml", **{**given, **changes})


def greedy(policy, tokenizer, text: str) -> list[int]:
    prompts = [tokenizer(text)["input_ids"], tokenizer("Find the")["input_ids"]]
    uniform = torch.zeros(2, 12, PARTS)
    rows = sample(policy.eval(), prompts, uniform, draw=Draw(0.0), end_ids=[tokenizer.eos_token_id], pad_id=1)
    return rows[0]


# --- adapters -----------------------------------------------------------------------------------


def test_an_adapter_is_saved_alone_loads_back_and_merges_to_the_same_outputs(base, prepared):
    folder = sft.train_planner(sft_params(base)) / "sft"
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    apart, tokenizer = model.load_policy(folder, dtype="float32", trainable=True)
    merged, _ = model.load_policy(folder, dtype="float32")
    plain, _ = model.load_policy(base, dtype="float32")
    assert isinstance(apart, PeftModel) and not isinstance(merged, PeftModel)
    text = "Find the middle of the noisy ages.\nprogram:\n"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        logits = [policy.eval()(input_ids=ids).logits for policy in (apart, merged, plain)]
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[1], logits[2], atol=1e-2), "an adapter without effect would prove nothing"
    assert greedy(apart, tokenizer, text) == greedy(merged, tokenizer, text)


def test_the_output_layer_below_an_adapter_is_given_what_it_need_not_be_copied_for(base, prepared):
    folder, ids = sft.train_planner(sft_params(base)) / "sft", torch.ones(2, 5, dtype=torch.long)
    for trainable in (True, False):
        policy, _ = model.load_policy(folder, trainable=trainable)
        output, given = policy.get_output_embeddings(), []
        output.register_forward_pre_hook(lambda _, inputs, given=given: given.append(inputs[0]))
        whole, last = policy(ids).logits, policy(ids, logits_to_keep=2).logits
        assert not output.weight.requires_grad
        assert [(tuple(each.shape[:2]), each.is_contiguous()) for each in given] == [((2, 5), True), ((2, 2), True)]
        torch.testing.assert_close(last, whole[:, -2:])


def test_an_untrained_adapter_changes_nothing(base):
    plain, tokenizer = model.load_policy(base, dtype="float32")
    ids = torch.tensor([tokenizer("Find the middle")["input_ids"]])
    with torch.no_grad():
        before = plain.eval()(input_ids=ids).logits
        after = model.with_adapter(plain, rank=2, seed=0).eval()(input_ids=ids).logits
    assert torch.equal(before, after)
    trained = [name for name, weight in plain.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained) and not any("lm_head" in name for name in trained)


def test_rl_with_an_adapter_resumes_to_the_same_bits_and_evaluates(base, prepared, monkeypatch):
    monkeypatch.setattr(training, "CPPOTrainer", Paid)
    start = sft.train_planner(sft_params(base)) / "sft"
    straight = train(rl_params())
    metrics = store.read_jsonl(straight / "metrics.jsonl")
    assert min(row["grad_norm"] for row in metrics) > 1e-3, "a run without signal would prove nothing"
    weights = (straight / "policy" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(straight)

    def stop(folder: Path, rows: list[dict[str, object]]) -> None:
        append(folder, rows)
        if rows[0].get("step") == 3:
            raise KeyboardInterrupt

    append = store.append_jsonl
    monkeypatch.setattr(training.store, "append_jsonl", stop)
    with pytest.raises(KeyboardInterrupt):
        train(rl_params())
    monkeypatch.setattr(training.store, "append_jsonl", append)
    assert not (straight / "policy").exists()
    kept = [load_file(at / "adapter_model.safetensors") for at in (start, straight / "checkpoints" / "checkpoint-2")]
    assert any(not torch.equal(weight, kept[1][name]) for name, weight in kept[0].items())
    resumed = train(rl_params())
    same = ("step", "loss", "r_out", "j", "r_plan", "planner_tokens", "solver_tokens")
    again = store.read_jsonl(resumed / "metrics.jsonl")
    assert [[row[key] for key in same] for row in again] == [[row[key] for key in same] for row in metrics]
    assert (resumed / "policy" / "adapter_model.safetensors").read_bytes() == weights

    frame = pd.read_parquet(evaluation.evaluate(config.load_params(SMOKE / "04_evaluation.cppo.yaml", limit=2)))
    written = frame["verdict"] != "NA"  # a plan that cannot be read has no programs
    assert len(frame) == 2 * 4 * 4 and written.any() and frame["solver_tokens"].gt(0).equals(written)


@pytest.mark.parametrize("stage", ["03_rl_training/cppo.s0", "02_planner_sft"])
def test_a_gradient_that_is_no_number_stops_before_the_weights_change(base, prepared, monkeypatch, stage):
    """It appears in the third step, and is gone in the second run, which goes on from the second step's checkpoint."""
    folder = prepared / stage
    run = partial(train, rl_params(policy=str(base))) if "rl" in stage else partial(sft.train_planner, sft_params(base))
    attach = model.with_adapter

    def faulty(*args, **options):
        adapted = attach(*args, **options)
        weight = next(weight for weight in adapted.parameters() if weight.requires_grad)
        weight.register_hook(lambda g: g * torch.nan if [*folder.glob("checkpoints/**/checkpoint-2")] else g)
        return adapted

    monkeypatch.setattr(model, "with_adapter", faulty)
    with pytest.raises(TrainingError, match="step 3 of 4 has a gradient that is not finite"):
        run()
    assert not (folder / "summary.json").exists()
    monkeypatch.setattr(model, "with_adapter", attach)
    run()
    assert [row["step"] for row in store.read_jsonl(folder / "metrics.jsonl")] == [1, 2, 3, 4]
    [weights] = folder.glob("*/adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in load_file(weights).values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has the units whatever its CPU has")
def test_a_cpu_computes_in_the_type_of_the_files_only_where_it_has_units_for_it(base, prepared, monkeypatch):
    """An adapter stays float32, and learns over a bfloat16 base what it learns over the same weights in float32."""
    half = prepared / "half"
    model.save_policy(*model.load_policy(base, dtype="bfloat16"), half)
    losses = {}
    for units, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(model, "has_bfloat16_units", lambda units=units: units)
        assert model.load_policy(half, dtype=model.sampling_dtype())[0].dtype == dtype
        assert model.load_policy(half, dtype=model.training_dtype(0))[0].dtype == torch.float32
        assert model.load_policy(base, dtype=model.sampling_dtype())[0].dtype == torch.float32
        folder = sft.train_planner(sft_params(half))
        adapter = load_file(folder / "sft" / "adapter_model.safetensors")
        assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in adapter.values())
        assert any(weight.any() for name, weight in adapter.items() if "lora_B" in name)
        losses[units] = [row["loss"] for row in store.read_jsonl(folder / "metrics.jsonl")]
        shutil.rmtree(folder)
    assert losses[True] == pytest.approx(losses[False], rel=0.02) and losses[True] != losses[False]

    # Paid for valid tuples alone: in four steps so small a model may never write a program that passes.
    rows = store.read_jsonl(train(rl_params(policy=str(half), reward="gate")) / "metrics.jsonl")
    assert any(abs(row["loss"]) > 0 for row in rows) and len(rows) == 4


def test_no_training_uses_the_attention_kernel_with_a_faulty_backward_pass(base):
    torch.backends.cuda.enable_cudnn_sdp(True)
    model.device_settings(model.load_policy(base)[0])
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_all_weights_of_a_pretrained_model_can_be_trained(base, prepared):
    folder = sft.train_planner(sft_params(base, lora_rank=0, sft_steps=2)) / "sft"
    assert (folder / "model.safetensors").is_file()
    before, after = (model.load_policy(name, dtype="float32")[0] for name in (base, folder))
    assert type(before) is type(after) and "ForCausalLM" in type(after).__name__
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


def test_an_adapter_of_another_rank_is_refused_and_is_merged_where_all_weights_are_trained(prepared, tmp_path):
    start = sft.train_planner(sft_params(qwen2(tmp_path / "base"), sft_steps=1)) / "sft"
    with pytest.raises(ModelError, match=r"adapter of rank 2: set lora_rank: 2"):
        train(rl_params(lora_rank=4))
    policy = train(rl_params(lora_rank=0, steps=1, checkpoint_every=1, learning_rate=1e-9)) / "policy"
    assert (policy / "model.safetensors").is_file() and not (policy / "adapter_model.safetensors").exists()
    merged, trained = (model.load_policy(folder, dtype="float32")[0] for folder in (start, policy))
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], weight, atol=1e-6, rtol=0)


def test_faulty_adapter_folders_say_what_is_missing(prepared, tmp_path):
    base = qwen2(tmp_path / "base")
    folder = sft.train_planner(sft_params(base, sft_steps=1)) / "sft"
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="cannot load the base model .*base' of adapter"):
        model.load_policy(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no model weights"):
        model.load_policy(folder)


def test_a_model_without_chat_template_is_refused_before_training(prepared, tmp_path):
    base = qwen2(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template: set prompt_style: brief"):
        sft.train_planner(sft_params(base, prompt_style="instruct"))


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model": "a/b"}, "key 'vocab_size' is for base_model: scratch, and this is 'a/b': write null"),
        ({"layers": None}, "key 'layers' is for base_model: scratch, and this is 'scratch': give it a value"),
        ({"lora_rank": 4}, "scratch is trained whole"),
        ({"distil_from": "distil"}, "scratch is trained whole"),
        ({"microbatches": 3}, "microbatches=3 must divide sft_batch=32"),
    ],
)
def test_parameters_that_do_not_fit_the_base_model_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        config.load_params(SMOKE / "02_planner_sft.yaml", **changes)


def test_training_with_vllm_needs_a_gpu(prepared):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ParameterError, match="engine: vllm trains on a GPU only"):
        train(rl_params(engine="vllm"))


def test_problems_with_long_prompts_are_left_out(prepared):
    problems = data_prep.read_split("smoke", "crossroads", "train")
    style = PromptStyle("brief", tokenizer_of_the_world())
    lengths = sorted(len(ids) for ids in style.encode([style.planner(problem, 4) for problem in problems]))
    middle = lengths[len(lengths) // 2]
    kept = rollouts.short_problems(rl_params(max_prompt_tokens=middle), problems, style, "problems_per_step")
    assert len(kept) == sum(length <= middle for length in lengths) < len(problems)
    with pytest.raises(ParameterError, match="0 of them with a planner prompt of at most max_prompt_tokens=1"):
        rollouts.short_problems(rl_params(max_prompt_tokens=1), problems, style, "problems_per_step")


# --- self-distillation --------------------------------------------------------------------------


def record(problem: str, tuple_index: int, slot: int, *, valid: bool | None, passed: bool) -> dict[str, object]:
    return {
        "problem_id": problem, "tuple_index": tuple_index, "slot": slot, "valid": valid, "passed": passed,
        "strategy": f"way {slot}", "program": f"print({slot})\n",
    }  # fmt: skip


def test_only_valid_tuples_with_a_success_are_learnt():
    problems = crossroads.world(1, 1, 1, 1, 1, 0)["train"][:3]
    a, b, c = (problem.id for problem in problems)
    attempts = pd.DataFrame(
        [record(a, 0, slot, valid=True, passed=slot == 1) for slot in (1, 0)]
        + [record(a, 1, slot, valid=True, passed=slot == 1) for slot in (0, 1)]  # the same plan and program again
        + [record(b, 0, slot, valid=True, passed=False) for slot in (0, 1)]
        + [record(c, 0, slot, valid=False, passed=True) for slot in (0, 1)]
    )
    style = PromptStyle("brief", None)
    rows = distilled_rows(attempts, problems, style)
    assert rows == [
        SFTRow("plan", style.planner(problems[0], 2), "1. way 0\n2. way 1", problems[0]),
        SFTRow("solver", style.solver(problems[0], "way 1"), "print(1)\n", problems[0]),
    ]
    assert parse_tuple(rows[0].completion, 2).methods == ("way 0", "way 1")
    with pytest.raises(DatasetError, match="none of 2 tuples passed the gate and a test"):
        distilled_rows(attempts[attempts["problem_id"] != a], problems, style)
    with pytest.raises(DatasetError, match="not in the training split"):
        distilled_rows(attempts, problems[1:], style)


@pytest.mark.parametrize("name", ["instruct", "fenced"])
def test_a_chat_models_reply_is_read_back_as_the_same_program(name):
    problem = crossroads.world(1, 1, 1, 1, 1, 0)["train"][0]
    style = PromptStyle(name, tokenizer_of_the_world())
    assert style.program(problem, style.reply(problem, "print(1)\n")) == "print(1)"


def test_planner_sft_learns_from_the_records_of_an_evaluation(prepared, tmp_path):
    base = qwen2(tmp_path / "base")
    cfg = sft_params(base, distil_from="own", k=4)
    with pytest.raises(MissingArtefactError, match=r"crossroads\.train\.own\.s0\.parquet is missing.*04_evaluation"):
        sft.train_planner(cfg)
    problems = data_prep.read_split("smoke", "crossroads", "train")[:3]
    attempts = [record(p.id, 0, slot, valid=True, passed=slot == 2) for p in problems for slot in range(4)]
    store.write_parquet(prepared / "04_evaluation" / "crossroads.train.own.s0.parquet", pd.DataFrame(attempts))
    summary = json.loads((sft.train_planner(cfg) / "summary.json").read_text())
    assert summary["rows"] == 6
    assert [Path(name).name for name in summary["artefacts"]] == ["sft"]
    assert any("crossroads.train.own" in name for name in summary["provenance"]["inputs"])
