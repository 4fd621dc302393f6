"""Run one notebook with papermill: checked parameters, a log of everything, errors in one line.

The executed notebook appears under its name only when every cell has run. After a failure it is
kept as `<name>.failed.ipynb`, and what was wrong is printed: the message alone when the mistake is
one a user can mend (`CPPOError`), else the cell and the end of its traceback.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

from cppo_lib import config, errors, paths, store
from cppo_lib.errors import CPPOError

# What makes runs repeatable on any machine. Pictures go into the executed notebook, whatever
# window system the user's own matplotlib is set up for.
KERNEL_ENV = {
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # A thread that waits for another one sleeps: spinning takes a core from what runs beside it, and no bit changes.
    "OMP_WAIT_POLICY": "passive",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "JUPYTER_PREFER_ENV_PATH": "1",
}
THREADS = "1"  # per kernel unless OMP_NUM_THREADS says otherwise, because arms run side by side
OWNER = "CPPO_SERIES"  # `<host>:<pid>` of the series that started this run
MARK = "[cppo] "
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PROGRESS = re.compile(r"\[cppo\] [\d:]+ (?P<message>.*)")


class NotebookError(CPPOError):
    """A notebook that stopped; the message says where, and how to go on."""


class ProgressFilter:
    """A text stream that copies everything to a log and shows only progress lines."""

    def __init__(self, name: str, log: TextIO) -> None:
        self.name, self.log, self.rest = name, log, ""

    def write(self, text: str) -> None:
        """Log `text`; print each complete line of it that `store.progress` wrote."""
        self.log.write(text)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if found := _PROGRESS.match(line):
                say(f"{self.name}: {found['message']}")

    def flush(self) -> None:
        """Bring the log up to date on the disk."""
        self.log.flush()


def say(message: str) -> None:
    """Print a message, each line of it marked so that the series passes it on to the user."""
    print("\n".join(MARK + line for line in message.split("\n")), flush=True)


def run_notebook(notebook: Path, out: Path, params_file: Path, given: Mapping[str, Any], log: Path) -> None:
    """Execute `notebook` into `out` with the values of `params_file` and `given` on top.

    Args:
        given: values from the command line; text is read as YAML reads it.
        log: where everything that the notebook prints goes.

    Raises:
        ParameterError: before any kernel starts.
        NotebookError: the notebook stopped, or its kernel died.
    """
    name = out.name.removesuffix(".ipynb")
    params = config.load_params(params_file, **given)
    if params.notebook != notebook.stem:
        raise errors.ParameterError(
            f"{paths.show(params_file)} is for notebooks/{params.notebook}.ipynb, not {paths.show(notebook)}"
        )
    paths.writable_dir(out.parent)
    paths.writable_dir(log.parent)
    os.environ.update(KERNEL_ENV)
    os.environ.setdefault("OMP_NUM_THREADS", THREADS)
    stop_with_owner()
    started = time.monotonic()
    say(f"{name}: started")
    try:
        with log.open("w", encoding="utf-8") as stream:
            _execute(notebook, out, params.model_dump(), ProgressFilter(name, stream))
    except OSError as error:  # of this process: the executed notebook and the log
        out.with_name(f"{name}.running.ipynb").unlink(missing_ok=True)
        if (full := paths.no_space(error)) is None:
            raise
        raise NotebookError(str(paths.unwritable(out, full))) from error
    say(f"{name}: finished in {store.clock(time.monotonic() - started)}")


def _execute(notebook: Path, out: Path, values: dict[str, Any], stream: ProgressFilter) -> None:
    # jsonschema would load the grammar of internationalised addresses, two seconds for what no notebook holds.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: as if not installed
    # papermill takes a while to import, which a faulty parameter file should not cost.
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    running = out.with_name(f"{stream.name}.running.ipynb")
    failed = out.with_name(f"{stream.name}.failed.ipynb")
    failed.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="cppo-", ignore_cleanup_errors=True) as sockets:
            # Sockets in a folder of our own: jupyter_client's default is TCP ports that it finds free and closes
            # again, so that another kernel started in the same second can take one, and this one never answers.
            connection = {"transport": "ipc", "connection_file": os.path.join(sockets, "kernel.json")}
            papermill.execute_notebook(
                str(notebook),
                str(running),
                parameters=values,
                kernel_name="python3",
                cwd=str(notebook.parent),
                progress_bar=False,
                stdout_file=stream,
                stderr_file=stream.log,
                config=Config(KernelManager=connection),
            )
    except PapermillExecutionError as error:
        running.replace(failed)
        stream.log.write(_ANSI.sub("", "\n".join(error.traceback)) + "\n")
        raise NotebookError(_what_failed(error, failed, stream.log.name)) from error
    except DeadKernelError as error:
        running.replace(failed)
        raise NotebookError(
            f"the kernel was killed, most often because memory ran out: lower batch_size, "
            f"problems_per_step or --cores (log: {paths.show(Path(stream.log.name))})"
        ) from error
    except RuntimeError as error:  # how nbclient says that a kernel did not start
        running.unlink(missing_ok=True)
        raise NotebookError(f"the kernel did not start: {error}; try `python -m ipykernel_launcher`") from error
    store.place(running, out)


def _what_failed(error: Any, failed: Path, log: str) -> str:
    kind = getattr(errors, error.ename, None)
    if isinstance(kind, type) and issubclass(kind, CPPOError):
        return str(error.evalue)
    if full := paths.no_space(OSError(f"{error.ename}: {error.evalue}")):
        disk = min((failed.parent, Path(tempfile.gettempdir())), key=lambda path: shutil.disk_usage(path).free)
        return f"cell {error.cell_index}: {paths.unwritable(disk, full)}"
    last = [_ANSI.sub("", line) for line in "\n".join(error.traceback).split("\n")][-6:]
    return (
        f"cell {error.cell_index} stopped with {error.ename}: {error.evalue}\n"
        + "\n".join(f"    {line}" for line in last)
        + f"\n    notebook: {paths.show(failed)}   log: {paths.show(Path(log))}"
    )


# --- the series that started this run ---------------------------------------------------------


def owner_token() -> str:
    """What `OWNER` holds for runs that this process starts."""
    return f"{platform.node()}:{os.getpid()}"


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that has ended but was not collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop_with_owner() -> None:
    """End this process soon after the series that started it has been killed.

    Otherwise the run would go on unseen and write into folders that the next series resumes. The
    kernel follows by itself, since it watches this process. On another machine (a cluster node)
    the series cannot be watched, and nothing happens.
    """
    host, _, pid = os.environ.get(OWNER, "").rpartition(":")
    if not pid or host != platform.node():
        return

    def watch() -> None:
        while alive(int(pid)):
            time.sleep(1)
        print("the series that started this run is gone", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
