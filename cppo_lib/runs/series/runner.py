"""Run one notebook with papermill: checked parameters, a log of everything, errors in one line.

The executed notebook appears under its name only when every cell has run. After a failure it is
kept as `<name>.failed.ipynb`, and what was wrong is printed: the message alone when the mistake is
one a user can mend (`CPPOError`), else the cell and the end of its traceback.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

from cppo_lib import errors
from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.progress import clock
from cppo_lib.errors import CPPOError
from cppo_lib.runs import config

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
INDENT = "    "  # of the second and later lines of a message
START_S = 600  # a kernel on a busy machine or a network disk starts slowly; one that dies is noticed at once
IDLE_S = 60  # how long a cell's last output may take to arrive; papermill gives up after 4 s
SOCKETS = "cppo-kernel-"
LONGEST_FOLDER = 60  # bytes; the path of a socket in a folder below it may have 107 (Linux) or 103 (macOS)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_PATIENCE_S = 10.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PROGRESS = re.compile(r"\[cppo\] [\d:]+ (?P<message>.*)")


class NotebookError(CPPOError):
    """A notebook that stopped; the message says where, and how to go on."""


class ProgressFilter:
    """A text stream that copies everything to a log and shows only progress lines."""

    def __init__(self, name: str, log: TextIO) -> None:
        self.name, self.log, self.rest = name, log, ""

    def write(self, text: str) -> None:
        """Log `text`; print each complete line of it that `log.info` wrote."""
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
    first, *others = message.split("\n")
    indented = [line if line.startswith(INDENT) else INDENT + line for line in others]
    print("\n".join(MARK + line for line in (first, *indented)), flush=True)


def continues(line: str) -> bool:
    """Whether a marked line is the second or a later one of its message."""
    return line.startswith(MARK + INDENT)


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
    say(f"{name}: finished in {clock(time.monotonic() - started)}")


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
        with _socket_folder() as sockets:
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
                start_timeout=START_S,
                iopub_timeout=IDLE_S,
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


@contextlib.contextmanager
def _socket_folder() -> Iterator[str]:
    """A folder for a kernel's sockets with a short path; what killed runs have left of theirs is removed."""
    choices = (tempfile.gettempdir(), "/tmp", "/var/tmp")
    short = [path for path in choices if len(os.fsencode(path)) <= LONGEST_FOLDER and os.access(path, os.W_OK)]
    if not short:
        raise CPPOError(f"a kernel's sockets need a folder of at most {LONGEST_FOLDER} letters: set TMPDIR to one")
    with tempfile.TemporaryDirectory(prefix=SOCKETS, dir=short[0], ignore_cleanup_errors=True) as folder:
        lock = _lock(Path(folder))
        try:
            for other in Path(short[0]).glob(f"{SOCKETS}*"):
                _remove_unused(other)
            yield folder
        finally:
            if lock is not None:
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as the descriptor is open and this process lives; None where that cannot be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _remove_unused(folder: Path) -> None:
    """Remove a folder of sockets of ours, unless its run is alive or younger than a minute (not locked yet)."""
    with contextlib.suppress(OSError):
        state = folder.lstat()
        if state.st_uid != os.getuid() or time.time() - state.st_mtime < 60:
            return
        if (lock := _lock(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


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

    Otherwise the run would go on unseen and write into folders that the next series resumes. The kernel ends with this
    process. On another machine (a cluster node) the series cannot be watched, and nothing happens.
    """
    host, _, pid = os.environ.get(OWNER, "").rpartition(":")
    if not pid or host != platform.node():
        return

    def watch() -> None:
        while alive(int(pid)):
            time.sleep(1)
        print("the series that started this run is gone", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_PATIENCE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- being told to stop -----------------------------------------------------------------------


class Stopped(BaseException):
    """A signal has asked this process to stop."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        self.status = 128 + number  # as a shell reports it


@contextlib.contextmanager
def stoppable(first: Callable[[], object] | None = None) -> Iterator[None]:
    """Within it, a signal that asks to stop calls `first` and raises `Stopped`, once; later ones are ignored.

    Signals that are ignored already (nohup, a job in the background) stay so.
    """

    def stop(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        if first is not None:
            first()
        raise Stopped(number)

    before = {each: signal.getsignal(each) for each in STOPS if signal.getsignal(each) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def end_children() -> None:
    """Kill what this process has started: its kernel would first be asked to stop, and a busy one does not answer."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
