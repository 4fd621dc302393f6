"""Models are what their files say: no tensor is made up, none is left out, and a name is a folder or a hub id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load_file, save_file

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import ModelError
from cppo_lib.model import hub_models, tiny
from cppo_lib.model import policy as model
from cppo_lib.model.vllm_engine import plain_policy
from cppo_lib.runs import config
from cppo_lib.runs.series import stamps
from cppo_lib.runs.series.plan import Plan
from cppo_lib.runs.stages import data_prep, evaluation

Tensors = dict[str, torch.Tensor]
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with two layers and tied output weights, as `save_policy` leaves it."""
    folder = tmp_path_factory.mktemp("models") / "base"
    tokenizer = tiny.build_tokenizer(["print(max(xs))\n"], 300)
    model.save_policy(tiny.build_model(tokenizer, hidden_size=16, layers=2, heads=2, seed=0), tokenizer, folder)
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


def refusal(folder: Path | str, load: Callable[..., object] = model.load_policy) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- weights ------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_the_config_are_named(base, tmp_path):
    missing = changed(base, tmp_path / "missing", without(DOWN))
    assert f"1 missing: {DOWN})" in refusal(missing)
    odd = changed(base, tmp_path / "odd", renamed("model.", "transformer."))
    assert "27 missing: " in refusal(odd)  # with the output layer
    short = changed(base, tmp_path / "short", lambda tensors: tensors | {DOWN: tensors[DOWN][:-1].contiguous()})
    assert f"1 of another size: {DOWN} (15x48 for 16x48)" in refusal(short)
    fewer = configured(base, tmp_path / "fewer", num_hidden_layers=1, layer_types=["full_attention"])
    assert "12 unexpected: model.layers.1.input_layernorm.weight, " in refusal(fewer)
    more = configured(base, tmp_path / "more", num_hidden_layers=3, layer_types=["full_attention"] * 3)
    assert "12 missing: model.layers.2.input_layernorm.weight, " in refusal(more)


def test_vllm_is_not_given_weights_that_do_not_fit(base, tmp_path):
    with plain_policy(str(base)) as policy:
        assert policy == str(base)
    missing = changed(base, tmp_path / "missing", without(DOWN))
    with pytest.raises(ModelError, match=f"1 missing: {DOWN}"), plain_policy(str(missing)):
        pass


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
    model.load_policy("~/base"), model.load_tokenizer("~/base")
    moved = shutil.copytree(adapter, tmp_path / "moved")
    named = json.loads((moved / model.ADAPTER).read_text())
    (moved / model.ADAPTER).write_text(json.dumps(named | {"base_model_name_or_path": "~/base"}))
    model.load_policy(moved)
    assert refusal(Path("~/nowhere")) == f"model folder {base.parent}/nowhere does not exist"


# --- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(base: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the files of `base`, which this process uses with an empty cache."""
    served = Hub({file.name: file.read_bytes() for file in base.iterdir()} | {"onnx/model.safetensors": b"not wanted"})
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(runs.parent / "cache"))
    hub_models.known_commit.cache_clear()
    yield served
    served.close()


def push(hub: Hub, folder: Path, commit: str) -> None:
    """`main` of the hub is now another commit with the files of a folder."""
    hub.files, hub.commit = {file.name: file.read_bytes() for file in folder.iterdir()}, commit


@pytest.fixture
def other(base: Path, tmp_path: Path) -> Path:
    return changed(base, tmp_path / "other", lambda tensors: tensors | {DOWN: tensors[DOWN] + 1})


def down(name: str) -> torch.Tensor:
    return model.load_policy(name)[0].state_dict()[DOWN]


OLD, NEW = "c0ffee" + "0" * 34, "beef" + "0" * 36


def test_a_hub_model_stays_at_the_commit_that_it_was_first_used_at(hub, base, other, runs, capsys):
    before = down("org/model")
    assert torch.equal(before, load_file(base / "model.safetensors")[DOWN])
    assert f"org/model@main is commit {OLD[:12]} from here on" in capsys.readouterr().out
    assert model.commits("org/model") == {"org/model@main": OLD} and model.commits(base) == {}
    push(hub, other, NEW)
    assert torch.equal(down("org/model"), before) and model.commits("org/model") == {"org/model@main": OLD}
    assert f"org/model@main is commit {NEW[:12]} now; this goes on with {OLD[:12]}" in str(
        hub_models.moved("org/model")
    )
    assert torch.equal(down(f"org/model@{NEW}"), before + 1)  # a revision can be named
    (runs / hub_models.LOCK).unlink()
    assert torch.equal(down("org/model"), before + 1) and hub_models.moved("org/model") is None


def test_a_hub_model_that_is_here_needs_no_network(hub, runs, monkeypatch):
    for file in ("config.json", *hub_models.find("org/model").files):
        hf_hub_download("org/model", file)  # as other programs do: the cache then knows what main was
    before = down("org/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert torch.equal(down("org/model"), before) and hub_models.moved("org/model") is None
    (runs / hub_models.LOCK).unlink()
    assert torch.equal(down("org/model"), before)
    assert "cannot load model org/unknown@main (" in refusal("org/unknown")


def test_names_that_the_hub_does_not_have_are_one_line(hub):
    assert "the hub has no model org/model@v9, or it is not public: name another revision" in refusal("org/model@v9")
    assert "neither a folder nor a hub id" in refusal("org/model with spaces")
    del hub.files["model.safetensors"]
    assert "org/model@main on the hub holds no model weights" in refusal("org/model")


def test_an_adapter_remembers_the_commit_of_its_base(hub, other, tmp_path, runs):
    plain, tokenizer = model.load_policy("org/model")
    model.save_policy(model.with_adapter(plain, rank=2, seed=0), tokenizer, tmp_path / "adapter")
    kept = json.loads((tmp_path / "adapter" / model.ADAPTER).read_text())
    assert (kept["base_model_name_or_path"], kept["revision"]) == ("org/model", OLD)
    push(hub, other, NEW)
    (runs / hub_models.LOCK).unlink()
    assert model.commits(tmp_path / "adapter") == {f"org/model@{OLD}": OLD}
    assert torch.equal(
        down(str(tmp_path / "adapter")), plain.state_dict()[DOWN.replace(".weight", ".base_layer.weight")]
    )


def test_vllm_is_given_the_files_of_the_commit(hub, base):
    with plain_policy("org/model") as folder:
        assert Path(folder).name == OLD
        assert (Path(folder) / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_records_are_of_a_commit_and_not_complete_for_another(hub, other, runs, tmp_path):
    params = config.load_params(
        paths.root() / "params" / "smoke" / "04_evaluation.direct.yaml", policy="org/model", limit=1, tuples=1, k=1,
        max_program_tokens=4,
    )  # fmt: skip
    sizes = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "hidden_tests": 1}
    prepare = config.load_params(
        paths.root() / "params" / "smoke" / "01_data_prep.yaml", options={**sizes, "corpus_per_context": 1}
    )
    data_prep.prepare(prepare)
    records = evaluation.evaluate(params)
    meta = store.read_json(paths.meta_path(records))
    assert (meta["commits"], meta["weights"]) == ({"org/model@main": OLD}, "float32")
    written = records.stat().st_mtime_ns
    push(hub, other, NEW)
    assert evaluation.evaluate(params).stat().st_mtime_ns == written
    (runs / hub_models.LOCK).unlink()
    assert evaluation.evaluate(params).stat().st_mtime_ns != written
    assert store.read_json(paths.meta_path(records))["commits"] == {"org/model@main": NEW}


def test_the_series_knows_the_commit_of_a_run(hub, base):
    def known(model: str, step: str) -> dict[str, str]:
        return stamps.begun(Plan("laptop", model=model).runs[step].params, base, [])["commits"]

    assert known("org/model", "02_planner_sft") == {"org/model": OLD}
    assert known("org/model", "01_data_prep.leetcode") == {}
    assert known("org/model", "03_rl_training.cppo.s0") == {}  # from this profile's own SFT
    assert known(str(base), "02_planner_sft") == {}


# --- the type of the weights --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "flags", "units"),
    [
        (False, {}, False),
        (False, {"avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, False),
        (False, {"amx_bf16": True, "avx512_bf16": True}, True),
        (False, {"amx_bf16": True}, True),
        (False, {"avx512_bf16": True}, True),
        (True, {}, True),
        (True, {"avx512_bf16": True}, True),
    ],
)
def test_a_machine_computes_bfloat16_on_a_gpu_or_with_either_flag_of_its_cpu(gpu, flags, units):
    assert model.computes_bfloat16(gpu, flags) is units


def test_the_type_of_the_weights_is_known_before_they_are_loaded(base, adapter, tmp_path):
    half = tmp_path / "half"
    model.save_policy(*model.load_policy(base, dtype="bfloat16"), half)
    moved = shutil.copytree(adapter, tmp_path / "moved")
    named = json.loads((moved / model.ADAPTER).read_text())
    (moved / model.ADAPTER).write_text(json.dumps(named | {"base_model_name_or_path": str(half)}))
    for folder, files in ((base, "float32"), (half, "bfloat16"), (moved, "bfloat16")):
        for dtype, expected in (("auto", files), ("float32", "float32")):
            assert model.weights_type(folder, dtype) == expected
            assert str(model.load_policy(folder, dtype=dtype)[0].dtype) == f"torch.{expected}"
