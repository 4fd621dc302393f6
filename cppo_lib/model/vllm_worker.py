"""The process in which vLLM runs: `python -m cppo_lib.model.vllm_worker FD`, started and asked by
`cppo_lib.model.vllm_engine`.

A process of its own, because vLLM changes the one it runs in (its threads, their number, the global random state) and
gives back a device's memory only when it ends. Inside it vLLM's own engine process is turned off, as vLLM's notes on
reproducibility ask: which requests share a step then depends on the requests alone, and so do the draws.

FD is a connection. The first message is the settings of `serve`, the reply `("ready", longest context)`. Every further
message is `(prompts, max_new_tokens, draws, changed)`: for each prompt what `cppo_lib.model.vllm_draws` draws with, or
None where nothing is drawn, and what else differs from the settings' sampling in this call. Replies are `("done",
number)` as sequences end and at last `("completions", lists of ids)`; `("memory", reason)` or `("failed", reason)` is
the last.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

MEMORY = ("OutOfMemory", "out of memory", "DefaultCPUAllocator", "KV cache", "kv cache", "cache blocks", "Free memory")
"""Words of the reasons for which torch and vLLM give up for want of memory."""


def serve(connection: Connection, settings: dict[str, Any]) -> None:
    """Load the policy and answer until the other side hangs up.

    Args:
        settings: `model` (folder or hub id), `options` of `vllm.LLM`, `sampling` of `vllm.SamplingParams`.
    """
    vllm: Any = import_module("vllm")  # is not there in the environment that types are checked in
    llm = vllm.LLM(settings["model"], **settings["options"])
    connection.send(("ready", llm.model_config.max_model_len))
    while True:
        prompts, max_new_tokens, draws, changed = connection.recv()
        # What earlier calls left in the cache would change which tokens are computed together.
        llm.reset_prefix_cache()
        common = {"max_tokens": max_new_tokens, "temperature": 0, "detokenize": False} | settings["sampling"] | changed
        sampling = [vllm.SamplingParams(**common, extra_args=own) for own in draws]
        llm.enqueue([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        found: dict[int, list[int]] = {}  # by number of the request
        while llm.llm_engine.has_unfinished_requests():
            ended = [output for output in llm.llm_engine.step() if output.finished]
            found |= {int(output.request_id): list(output.outputs[0].token_ids) for output in ended}
            if ended:
                connection.send(("done", len(found)))
        connection.send(("completions", [found[number] for number in sorted(found)]))


def end_with(parent: int) -> None:
    """End this process once its parent is gone, also amid loading or a long step."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Serve the connection named on the command line; what goes wrong is its last message."""
    if os.environ.get("VLLM_LOGGING_LEVEL") == "ERROR":
        logging.disable(logging.WARNING)  # vLLM sets its own level only after it has said a few things
    threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
    with Connection(int(sys.argv[1])) as connection:
        try:
            serve(connection, connection.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the other side has closed or is gone
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            short = any(word in reason for word in MEMORY)
            connection.send(("memory", reason.splitlines()[0]) if short else ("failed", traceback.format_exc()))


if __name__ == "__main__":
    main()
