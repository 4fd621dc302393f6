"""Policies: load any, give it an adapter, save safely.

A policy is a folder or hub id of a causal language model or of a LoRA adapter (PEFT's format), which names the model it
belongs to. Hub ids stand for a commit that is kept (`cppo_lib.model.hub_models`). Models that present themselves as
vision-language ones (Qwen3.5) are loaded as the language model they contain: their text weights and tokenizer, no image
tower and no processor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import ModelError
from cppo_lib.model import hub_models

ADAPTER = "adapter_config.json"
REFERENCE = "ref"  # TRL's name of the frozen copy of an adapter that it takes the KL to


def load_policy(
    name: str | Path, *, dtype: str = "auto", trainable: bool = False, device_map: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer from a local folder or a hub id.

    Args:
        name: a model, or a folder with a LoRA adapter: the model it names is loaded too.
        dtype: of the weights; `auto` is what the files hold.
        trainable: keep an adapter apart, to train it further; otherwise it is merged into the weights.
        device_map: of transformers; `meta` reads no weights and checks their names and sizes.

    Raises:
        ModelError: the folder lacks weights or tokenizer files, its weights are not those of its config or base model,
            or the hub id cannot be reached.
    """
    model, tokenizer = _load(name, trainable=trainable, dtype=dtype, device_map=device_map)
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    return model, tokenizer


def _contiguous(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of the output layer, which is given a slice (B, T, H) of the hidden states where only T logits are wanted.

    Where its weights are frozen, as beside and below an adapter, torch repeats those B times for such a slice: 272 MB
    a sequence for Qwen2.5-Coder-0.5B in bfloat16. When that is too much for a CPU, torch goes on without oneDNN, 20
    times slower, until the process ends.
    """
    return tuple(each.contiguous() for each in inputs)


def _load(
    name: str | Path, *, trainable: bool = False, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = hub_models.folder_of(name)
    adapter = (folder / ADAPTER).is_file()
    _check_folder(folder, "adapter_model" if adapter else "*")
    base = _base_of(folder) if adapter else str(name)
    what = f"the base model {base!r} of adapter {str(name)!r}" if adapter else f"model {str(name)!r}"
    try:
        weights, hub = hub_models.folder_of(base), hub_models.find(base)
    except ModelError as error:
        raise ModelError(f"cannot load {what}: {error}") from error
    with loading(what):
        tokenizer = load_tokenizer(folder)
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        loader: Any = AutoModelForCausalLM  # typed as if it returned a model alone
        model, found = loader.from_pretrained(weights, **options)
    _refuse_misfits(what, _misfits(found), "the config.json beside them")
    model.hub_model = hub  # what an adapter of it will name as its base
    if adapter:
        model = _attach(model, folder, trainable, base)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Raise ModelError, in one line, where transformers cannot load `what` from its folder or hub id.

    What its parts raise over faulty files is of any class, down to plain Exception; too little memory stays as it is.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        cure = "name a local folder or a reachable hub id"
        if isinstance(error, ImportError):  # as of a quantised model, whose package is not installed
            cure = "install what is missing, or name a model that needs none of it, such as one that is not quantised"
        raise ModelError(f"cannot load {what} ({reason}): {cure}") from error


def out_of_memory(error: Exception) -> bool:
    """Is this torch's error about too little memory? It has a class of its own for a GPU only."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _base_of(folder: Path) -> str:
    """The model that an adapter belongs to, as its config names it: a folder, or a hub id with its revision."""
    with loading(f"adapter {str(folder)!r}"):
        config = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not named:
        raise ModelError(
            f"{folder / ADAPTER} names no base model: set its base_model_name_or_path to a folder or hub id"
        )
    return named if not revision or Path(named).expanduser().is_dir() else f"{named}@{revision}"


def commits(name: str | Path) -> dict[str, str]:
    """The commits of the hub models that a policy is made of, by name: its own and, of an adapter, its base model's.

    Empty where all is in folders. Raises ModelError as `hub_models.find`.
    """
    hub = hub_models.find(name)
    found = {} if hub is None else {hub.name: hub.commit}
    if hub is None or ADAPTER in hub.files:
        folder = hub_models.folder_of(name)
        found |= commits(_base_of(folder)) if (folder / ADAPTER).is_file() else {}
    return found


def _attach(model: Any, folder: Path, trainable: bool, base: str) -> Any:
    # These take seconds to import, and only adapters need them.
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    what = f"adapter {str(folder)!r}"
    with loading(f"{what} onto its base model {base!r}"):
        adapted: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        found = set(load_peft_weights(str(folder), device="cpu"))
    # PEFT leaves out what it has no place for, and warns of what it has not found.
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    misfits = {"missing": wanted - found, "unexpected": found - wanted - set(adapted.state_dict())}
    _refuse_misfits(what, misfits, f"its base model {base!r}")
    return adapted if trainable else adapted.merge_and_unload()


def _misfits(found: Mapping[str, Iterable[Any]]) -> dict[str, set[str]]:
    """What transformers reports of a load and takes random numbers for: tensors that are missing or of other sizes.

    It lists neither output weights that are tied to the embedding nor what a class is known to leave out, such as an
    image tower.
    """
    missing, unexpected = set(found["missing_keys"]), set(found["unexpected_keys"])
    sizes = {
        f"{key} ({'x'.join(map(str, one))} for {'x'.join(map(str, other))})"
        for key, one, other in found["mismatched_keys"]
    }
    return {"missing": missing, "unexpected": unexpected, "of another size": sizes}


def _refuse_misfits(what: str, misfits: Mapping[str, set[str]], place: str) -> None:
    """Raise ModelError naming up to three tensors of each kind, if there are any."""
    told = [
        f"{len(names)} {kind}: {', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in misfits.items()
        if names
    ]
    if told:
        raise ModelError(
            f"the weights of {what} do not fit {place} ({'; '.join(told)}): they are damaged or another model's; "
            "get the files again or name another model"
        )


def _check_folder(folder: Path, weights: str) -> None:
    if not any(folder.glob(f"{weights}.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{folder} holds no model weights (*.safetensors): train the policy or name another folder")
    if not (folder / "tokenizer_config.json").is_file():
        raise ModelError(f"{folder} holds no tokenizer (tokenizer_config.json): save the tokenizer beside the weights")


def with_adapter(model: Any, *, rank: int, seed: int) -> Any:
    """The model with a trainable LoRA adapter (Hu et al. 2021) on every linear layer, the output layer excepted.

    Args:
        model: a plain model, or one that has an adapter already: that one is trained further, at its own rank.
        rank: of the adapter's matrices; 0 returns the model as it is, and all its weights are trained.
        seed: of the adapter's initial weights, with which the model still computes what it did before.

    Adapters scale by alpha / rank = 2 and have no dropout, so that the sampled and the trained policy are the same.
    Raises ModelError when the model has an adapter of another rank, or has one and rank is 0.
    """
    if hasattr(model, "peft_config"):
        found = model.peft_config["default"].r
        if found != rank:
            raise ModelError(f"the start policy is a LoRA adapter of rank {found}: set lora_rank: {found}")
        return model
    if not rank:
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, lora)
    if hub := getattr(model, "hub_model", None):
        lora.base_model_name_or_path, lora.revision = hub.repo, hub.commit  # not where the cache of this machine is
    return adapted


def computes_bfloat16(gpu: bool, flags: Mapping[str, Any]) -> bool:
    """Whether a machine computes bfloat16 in units of its own: on a GPU, or by a CPU's tiles or dot products.

    Args:
        gpu: is there one?
        flags: of the CPU by torch's names. `amx_bf16` (tiles) are Intel's servers since 2023, `avx512_bf16` (dot
            products of 32 numbers) AMD's Zen 4 and later and some of Intel's. A CPU that has AVX-512 without either
            widens each number before it multiplies, which takes longer than float32.
    """
    return gpu or bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def has_bfloat16_units() -> bool:
    """`computes_bfloat16` of this machine: the same in every process, since nothing is measured."""
    return computes_bfloat16(torch.cuda.is_available(), torch.cpu.get_capabilities())


def sampling_dtype() -> str:
    """Weights as their files hold them, where bfloat16 has its units. Other CPUs are slower in it than in float32."""
    return "auto" if has_bfloat16_units() else "float32"


def training_dtype(lora_rank: int) -> str:
    """Weights that are trained are float32; those an adapter leaves alone may stay as `sampling_dtype` has them."""
    return sampling_dtype() if lora_rank else "float32"


def weights_type(name: str | Path, dtype: str) -> str:
    """The type that `load_policy` gives the weights for `dtype`, such as `bfloat16`, without loading them.

    Raises ModelError as `load_policy`; an adapter's base model counts.
    """
    if dtype != "auto":
        return dtype
    folder = hub_models.folder_of(name)
    if (folder / ADAPTER).is_file():
        return weights_type(_base_of(folder), dtype)
    with loading(f"model {str(name)!r}"):
        config = AutoConfig.from_pretrained(folder)
    found = config.dtype or config.get_text_config().dtype
    return str(found).removeprefix("torch.") if found else "auto"


def device_settings(model: PreTrainedModel) -> dict[str, Any]:
    """What TRL's configurations say about the device, and about output that the suite writes itself.

    A GPU computes in bfloat16 whatever the model's type, a CPU only over weights of that type. It also turns off
    cuDNN's attention in this process. On an H100 or H200 torch 2.11 to 2.13 choose it where there is padding, and its
    backward pass gives NaN at some lengths (github.com/pytorch/pytorch/issues/196678).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    gpu = torch.cuda.is_available()
    return {
        "bf16": gpu or model.dtype == torch.bfloat16,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would report the mean of earlier losses in place of one that is no number
        "report_to": [],
    }


def on_one_gpu(args: Any) -> Any:
    """A trainer's configuration (`TrainingArguments`), held to one GPU where this process sees several, with a line.

    transformers would take all of them (`DataParallel`), with a whole batch for each; TRL refuses that.
    """
    if args.n_gpu > 1:
        log.info(
            f"{args.n_gpu} GPUs are visible and training takes one, {args.device}: set CUDA_VISIBLE_DEVICES for another"
        )
        args._n_gpu = 1  # as transformers sets it where a model is spread over several
    return args


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or hub id, padding on the left."""
    # AutoTokenizer gives every Qwen2-architecture model Qwen2's own pre-tokenizer, whatever was saved beside it;
    # a tokenizer that was saved as a plain `tokenizers` file is loaded as just that.
    name = hub_models.folder_of(name)
    plain = get_tokenizer_config(name).get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    )
    loader = PreTrainedTokenizerFast if plain else AutoTokenizer
    return loader.from_pretrained(name, padding_side="left")


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write tokenizer and model (of one with an adapter, the adapter alone; of one with several, a folder for each).

    A reference adapter, which is the start policy's, is left out. The folder appears whole or not at all, and replaces
    an older one. Raises CPPOError when it cannot be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    adapters = [name for name in getattr(model, "peft_config", ()) if name != REFERENCE]
    chosen: dict[str, Any] = {"selected_adapters": adapters} if adapters else {}
    try:
        with store.writing(folder):
            model.save_pretrained(partial, **chosen)
            for adapter in (partial, *(path.parent for path in partial.glob(f"*/{ADAPTER}"))):
                tokenizer.save_pretrained(adapter)
            shutil.rmtree(folder, ignore_errors=True)
            store.place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
