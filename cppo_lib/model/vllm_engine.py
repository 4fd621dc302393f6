"""Sampling with vLLM: the same interface and the same completions as `cppo_lib.model.hf_engine.HFEngine`, on a GPU or a
CPU.

vLLM adds and drops sequences at every step and reads a prefix that prompts share once, such as the problem in front of
the K methods of a tuple. It runs in a process of its own (`cppo_lib.model.vllm_worker`), which ends with the engine.

Tokens are drawn from softmax(logits / temperature), cut to the `top_k` likeliest and the nucleus of mass `top_p`, by
the very code of `HFEngine` and with its random numbers, those of a completion's place (`cppo_lib.model.vllm_draws`).
What is reproducible:

- a completion depends on its prompt, place and seed, as with `HFEngine`, and is the one that `HFEngine` draws, up to
  the rounding of its logits, which differs between engines and between batches (docs/draws.md says how often it shows);
- the same call on the same machine with the same number of threads and the same memory gives the same bits;
- on a GPU, kernels may add numbers up in another order from run to run, and near-ties may then fall differently;
- greedy completions are those of `HFEngine` up to such near-ties (measured by speed/engines.py).

A CPU computes in float32, as with `HFEngine`, on `OMP_NUM_THREADS` threads (all cores the process may use if it is not
set), with `VLLM_CPU_KVCACHE_SPACE` GiB of key-value cache (a quarter of the free memory, at most 4, if it is not set).
vLLM has attention for heads of 32, 64, 80, ... on a CPU, not for the tiny profile's 24.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from cppo_lib.errors import ModelError
from cppo_lib.model import hub_models
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.hf_engine import Progress, check_lengths, end_tokens, rooted
from cppo_lib.model.policy import ADAPTER, load_policy, load_tokenizer, loading, sampling_dtype, save_policy

CACHE_SPACE = "VLLM_CPU_KVCACHE_SPACE"
GIB = 2**30
DRAWS = "cppo_lib.model.vllm_draws"


class VLLMEngine:
    """Completes prompts of token ids with vLLM, on the GPU if there is one.

    Args:
        policy: a local folder or a hub id; an adapter is merged into a temporary copy of its model.
        tokenizer: names an end token beside those of the policy.
        temperature: 1 samples from the policy's own distribution, 0 takes the most likely token.
        top_p: nucleus mass; 1 keeps every token.
        batch_size: sequences generated side by side, at most.
        seed: root of every draw.
        top_k: so many likeliest tokens are kept before the nucleus; 0: all.
        prefix_caching: read a prefix that several prompts share once.

    Raises:
        ModelError: vLLM cannot load the policy, or not into the memory there is.
    """

    def __init__(
        self,
        policy: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float,
        top_p: float,
        batch_size: int,
        seed: int,
        top_k: int = 0,
        prefix_caching: bool = True,
    ) -> None:
        self.seed, self.temperature, self.top_p, self.top_k = seed, temperature, top_p, top_k
        with plain_policy(policy) as folder:
            with loading(f"model {policy!r}"):
                self.end_ids = end_tokens(generation_config(folder), tokenizer)
                text_config = AutoConfig.from_pretrained(folder).get_text_config()
            self.context: int | None = getattr(text_config, "max_position_embeddings", None)
            self._connection, self._process = start_worker()
            settings = {
                "model": folder,
                "options": vllm_options(batch_size=batch_size, prefix_caching=prefix_caching),
                "sampling": {"ignore_eos": True},  # the end tokens that each call names are all that count
            }
            self.fitting: int = self._ask(settings, "ready", f"loading {policy}")

    def generate(
        self,
        prompt_ids: list[list[int]],
        max_new_tokens: int,
        places: Sequence[Place] | None = None,
        temperature: float | None = None,
        also_end: Sequence[int] = (),
    ) -> list[Completion]:
        """One completion per prompt, in order, cut after its first end token (which is included).

        `places`: what each is drawn with; None: the prompt's number in the call, so that a call repeated is the same.
        `temperature`: of this call; None: the engine's own. `also_end`: tokens that end a completion in this call.

        Raises:
            ModelError: a prompt that leaves no room for `max_new_tokens` in the model's context, or no memory.
        """
        check_lengths(prompt_ids, max_new_tokens, self.context)
        needed = max(map(len, prompt_ids), default=0) + max_new_tokens
        if needed > self.fitting:
            raise ModelError(
                f"a sequence of {needed} tokens does not fit vLLM's key-value cache, which holds {self.fitting}: "
                f"{memory_advice()}"
            )
        if not prompt_ids:
            return []
        temperature = self.temperature if temperature is None else temperature
        rule = {"temperature": temperature, "top_p": self.top_p, "top_k": self.top_k}
        roots = rooted(self.seed, prompt_ids, places)
        draws = [{"place": list(place), **rule} if rule["temperature"] else None for place in roots]
        message = (prompt_ids, max_new_tokens, draws, {"stop_token_ids": [*self.end_ids, *also_end]})
        return [Completion(ids) for ids in self._ask(message, "completions", "generating", len(prompt_ids))]

    def close(self) -> None:
        """End vLLM's process and give back its memory."""
        self._connection.close()
        self._process.terminate()
        self._process.wait()

    def _ask(self, message: Any, expected: str, doing: str, total: int = 0) -> Any:
        """Send a message and wait for the reply of the expected kind; the engine is closed if there is none."""
        progress = Progress(total)
        try:
            self._connection.send(message)
            while True:
                kind, content = self._connection.recv()
                if kind == expected:
                    return content
                if kind == "done":
                    progress.report(content)
                elif kind == "memory":
                    raise ModelError(f"engine vllm is out of memory while {doing} ({content}): {memory_advice()}")
                elif expected == "ready":
                    reason = content.strip().splitlines()[-1]
                    raise ModelError(f"engine vllm failed while {doing} ({reason}): name another policy or engine: hf")
                else:
                    raise RuntimeError(f"vLLM failed while {doing}:\n{content}")
        except (EOFError, OSError) as error:
            status = self._process.wait()
            raise ModelError(
                f"engine vllm ended while {doing} (exit status {status}; its own messages are above); "
                f"-9 mostly means out of memory: {memory_advice()}"
            ) from error
        except BaseException:
            self.close()
            raise


# --- vLLM's process -----------------------------------------------------------------------------


@contextmanager
def opened(policy: str, **options: Any) -> Iterator[tuple[VLLMEngine, PreTrainedTokenizerBase]]:
    """The engine over a policy, see `engine.open_engine`."""
    with loading(f"model {policy!r}"):
        tokenizer = load_tokenizer(policy)
    with closing(VLLMEngine(policy, tokenizer, **options)) as engine:
        yield engine, tokenizer


def start_worker() -> tuple[Connection, subprocess.Popen[bytes]]:
    """A worker process and the connection to it. It ends when the connection is closed."""
    here, there = Pipe()
    with there:
        command = [sys.executable, "-m", "cppo_lib.model.vllm_worker", str(there.fileno())]
        # A session of its own: Ctrl-C reaches this process alone, which then ends the worker.
        process = subprocess.Popen(command, env=worker_environment(), pass_fds=[there.fileno()], start_new_session=True)
    return here, process


def worker_environment() -> dict[str, str]:
    """The environment of the worker: this one, and what makes vLLM repeatable, quiet and fast on a CPU."""
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # requests are scheduled in the order given, at no other process's pace
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # whose logits processors are of another kind
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
    }
    if not torch.cuda.is_available():
        wanted |= {
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            # Left to the system: threads tied to cores by number would meet those of a run beside this one.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            CACHE_SPACE: str(max(1, min(4, psutil.virtual_memory().available // (4 * GIB)))),
            # What vLLM compiles for a CPU needs a C++ compiler and a minute, and saves little.
            "TORCH_COMPILE_DISABLE": "1",
            "LD_PRELOAD": ":".join(str(path) for path in Path(sys.prefix, "lib").glob("libiomp5.so")),
        }
    return wanted | os.environ


def vllm_options(*, batch_size: int, prefix_caching: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM` besides the model."""
    gpu = torch.cuda.is_available()
    return {
        "dtype": sampling_dtype(),
        "enforce_eager": not gpu,
        "max_num_seqs": batch_size,
        "max_model_len": -1,  # the model's context, or what the memory holds of it
        "enable_prefix_caching": prefix_caching,
        "skip_tokenizer_init": True,
        "language_model_only": True,
        "generation_config": "vllm",  # what a folder suggests for its own use is not looked at
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "logits_processors": [f"{DRAWS}:PlacedDraws"],
        "async_scheduling": False,  # which would draw a token before it says which the last one was
    }


def memory_advice() -> str:
    """What to do about too little memory."""
    if torch.cuda.is_available():
        return "free memory on the GPU, lower batch_size, max_plan_tokens or max_program_tokens, or take engine: hf"
    return (
        f"set {CACHE_SPACE} (GiB of key-value cache), free memory, lower batch_size, max_plan_tokens or "
        "max_program_tokens, or take engine: hf"
    )


# --- policies -----------------------------------------------------------------------------------


@contextmanager
def plain_policy(policy: str) -> Iterator[str]:
    """The policy as vLLM can load it: itself, or a temporary folder with its adapter merged.

    Raises ModelError as `load_policy` does: vLLM would take random weights where some are missing.
    """
    plain = hub_models.folder_of(policy)
    if not (plain / ADAPTER).is_file():
        load_policy(policy, device_map="meta")  # only names and sizes are looked at
        yield str(plain)
        return
    with TemporaryDirectory(prefix="cppo-merged-") as folder:
        merged = Path(folder, "policy")
        save_policy(*load_policy(policy, dtype=sampling_dtype()), merged)
        yield str(merged)


def generation_config(policy: str) -> GenerationConfig:
    """What `from_pretrained` would give the policy's model as its generation config."""
    with suppress(OSError):
        return GenerationConfig.from_pretrained(policy)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(policy))
