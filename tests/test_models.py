"""Models are what their files say: no tensor is made up, none is left out, and a name is a folder or a hub id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cppo_lib import model, paths
from cppo_lib.errors import ModelError
from cppo_lib.vllm_engine import plain_policy

Tensors = dict[str, torch.Tensor]
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with two layers and tied output weights, as `save_policy` leaves it."""
    folder = tmp_path_factory.mktemp("models") / "base"
    tokenizer = model.build_tokenizer(["print(max(xs))\n"], 300)
    model.save_policy(model.build_model(tokenizer, hidden_size=16, layers=2, heads=2, seed=0), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """A LoRA adapter of `base`, beside it."""
    plain, tokenizer = model.load_policy(base)
    model.save_policy(model.with_adapter(plain, rank=2, seed=0), tokenizer, base.with_name("adapter"))
    return base.with_name("adapter")


def changed(folder: Path, to: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of a model or adapter with other tensors."""
    copy = shutil.copytree(folder, to)
    [weights] = copy.glob("*.safetensors")
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
    return copy


def configured(folder: Path, to: Path, **values: object) -> Path:
    """A copy with other values in its config.json."""
    copy = shutil.copytree(folder, to)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | values))
    return copy


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def refusal(folder: Path, load: Callable[[Path], object] = model.load_policy) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [model.load_policy, model.load_classifier])
def test_weights_that_do_not_fit_the_config_are_named(base, tmp_path, load):
    missing = changed(base, tmp_path / "missing", without(DOWN))
    assert f"1 missing: {DOWN})" in refusal(missing, load)
    odd = changed(base, tmp_path / "odd", renamed("model.", "transformer."))
    assert f"{26 + (load is model.load_policy)} missing: " in refusal(odd, load)  # with the output layer
    short = changed(base, tmp_path / "short", lambda tensors: tensors | {DOWN: tensors[DOWN][:-1].contiguous()})
    assert f"1 of another size: {DOWN} (15x48 for 16x48)" in refusal(short, load)
    fewer = configured(base, tmp_path / "fewer", num_hidden_layers=1, layer_types=["full_attention"])
    assert "12 unexpected: model.layers.1.input_layernorm.weight, " in refusal(fewer, load)
    more = configured(base, tmp_path / "more", num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert "12 missing: model.layers.2.input_layernorm.weight, " in refusal(more, load)


def test_vllm_is_not_given_weights_that_do_not_fit(base, tmp_path):
    with plain_policy(str(base)) as policy:
        assert policy == str(base)
    missing = changed(base, tmp_path / "missing", without(DOWN))
    with pytest.raises(ModelError, match=f"1 missing: {DOWN}"), plain_policy(str(missing)):
        pass


def test_a_classifier_may_have_a_new_output_layer_once(base, tmp_path):
    made, tokenizer = model.load_classifier(base)
    model.save_policy(made, tokenizer, tmp_path / "gate")
    model.load_classifier(tmp_path / "gate")
    headless = changed(tmp_path / "gate", tmp_path / "headless", without("score.weight"))
    assert "1 missing: score.weight" in refusal(headless, model.load_classifier)


def test_adapters_that_do_not_fit_their_base_are_named(adapter, tmp_path):
    first = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    missing = changed(adapter, tmp_path / "missing", without(first))
    assert f"1 missing: {first})" in refusal(missing)
    odd = changed(adapter, tmp_path / "odd", renamed("model.layers", "model.language_model.layers"))
    assert "28 missing: " in refusal(odd) and "28 unexpected: " in refusal(odd)
    short = changed(adapter, tmp_path / "short", lambda tensors: tensors | {first: tensors[first][:1].contiguous()})
    assert f"cannot load adapter {str(short)!r} onto its base model" in refusal(short)
    model.load_policy(adapter)


def test_an_adapter_config_that_cannot_be_read_or_names_no_base_is_one_line(adapter, tmp_path):
    torn = shutil.copytree(adapter, tmp_path / "torn")
    (torn / model.ADAPTER).write_text("{")
    assert "cannot load adapter" in refusal(torn)
    (torn / model.ADAPTER).write_text("{}")
    assert "names no base model: set its base_model_name_or_path" in refusal(torn)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors"])
def test_a_quantised_model_without_its_package_says_what_to_install(base, tmp_path, method):
    quantised = {"quant_method": method, "bits": 4, "load_in_4bit": True, "group_size": 128}
    message = refusal(configured(base, tmp_path / method, quantization_config=quantised))
    assert "install what is missing, or name a model that needs none of it" in message


@pytest.mark.parametrize("values", [{"dtype": "float99"}, {"model_type": "unheard-of"}, {"num_hidden_layers": "two"}])
def test_a_config_that_makes_no_sense_is_one_line(base, tmp_path, values):
    assert "cannot load model" in refusal(configured(base, tmp_path / "odd", **values))


# --- names --------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder_wherever_a_model_or_folder_is_named(base, adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(base.parent))
    assert paths.policy_source("tiny", "~/base") == str(base)
    assert paths.show_model("~/base") == "base"
    assert paths.figures_path("tiny", "~/figures") == base.parent / "figures"
    model.load_policy("~/base"), model.load_tokenizer("~/base"), model.load_classifier("~/base")
    moved = shutil.copytree(adapter, tmp_path / "moved")
    named = json.loads((moved / model.ADAPTER).read_text())
    (moved / model.ADAPTER).write_text(json.dumps(named | {"base_model_name_or_path": "~/base"}))
    model.load_policy(moved)
    assert refusal(Path("~/nowhere")) == f"model folder {base.parent}/nowhere does not exist"
