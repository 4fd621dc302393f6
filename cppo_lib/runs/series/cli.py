"""The series from the command line: run what is out of date, say why, run one notebook.

    python -m cppo_lib.runs.series reproduce --profile tiny --seeds 3 --cores 2
    python -m cppo_lib.runs.series why --profile tiny
    python -m cppo_lib.runs.series run-notebook notebooks/01_data_prep.ipynb out.ipynb -f params/...

`cppo_lib.runs.series.stamps` says what is out of date and Snakemake schedules it (see the Snakefile); this module
checks everything first, keeps two series out of one folder, turns Snakemake's output into one line per event, ends
everything when it is told to stop, and ends with the main table. A series that was killed goes on when it is started
again: finished runs stay, half-finished ones resume from their own checkpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import psutil

from cppo_lib.artefacts import paths
from cppo_lib.artefacts.progress import clock
from cppo_lib.errors import CPPOError
from cppo_lib.runs import config
from cppo_lib.runs.series import runner, stamps
from cppo_lib.runs.series.plan import Plan
from cppo_lib.verifier.cores import usable_cores

MIN_FREE_GIB = 1.0  # the tiny profile writes about half of this
LOCK_PATIENCE_S = 10.0  # how long what is left of a killed series may take to end
END_PATIENCE_S = 10.0  # how long a step that is told to stop may take for it


# --- before anything runs ---------------------------------------------------------------------


def preflight(plan: Plan) -> None:
    """Check what every run needs, and say which hub models have moved on. Raises CPPOError naming the fix.

    Parameters were checked when the plan was made; here come the kernel, folders, disk and the names of models.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel as error:
        raise CPPOError("there is no Jupyter kernel python3: run make setup") from error
    for folder in {(plan.folder / file).resolve().parent for file in plan.targets}:
        paths.writable_dir(folder)
    free = shutil.disk_usage(plan.folder).free / 2**30
    if free < MIN_FREE_GIB:
        raise CPPOError(
            f"{free:.1f} GiB are free at {paths.show(plan.folder)} and {MIN_FREE_GIB} are needed: "
            f"make room or set CPPO_RUNS to another disk"
        )
    for name in dict.fromkeys(name for run in plan.runs.values() for name in stamps.models(run.params)):
        from cppo_lib.model import hub_models  # takes a second, and most profiles name no model

        if line := hub_models.moved(name):
            print(line, flush=True)


@contextlib.contextmanager
def only_series(plan: Plan) -> Iterator[TextIO]:
    """Hold `runs/<profile>/.lock`; CPPOError when another series of this profile runs.

    The lock is an flock that Snakemake inherits, so it lasts as long as anything can still write,
    and it ends by itself with those processes, however they end.
    """
    path = paths.writable_dir(plan.folder) / ".lock"
    with path.open("a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                owner = int(lock.read() or "0")
                if runner.alive(owner) or time.monotonic() > deadline:
                    raise CPPOError(
                        f"{paths.show(plan.folder)} is in use by another series (process "
                        f"{owner}): wait for it, or stop it and start again"
                    ) from None
                time.sleep(0.5)
            except OSError as error:
                raise CPPOError(
                    f"the file system of {paths.show(plan.folder)} has no file locks ({error.strerror}), which keep "
                    "two series out of one folder: set CPPO_RUNS to a local disk"
                ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def snakemake(plan: Plan, *options: str) -> list[str]:
    """The Snakemake command for this plan."""
    # As a folder: Snakemake takes quotes off, and reads the profiles 2026_10, 007 and 1e3 as numbers.
    chosen = [f"profile=params/{plan.profile}", f"seeds={plan.seeds}"]
    chosen += [f"model={plan.model}"] if plan.model else []
    chosen += [f"limit={plan.limit}"] if plan.limit else []
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.root() / "Snakefile")]
    # --nolock: the lock of `only_series` replaces Snakemake's, which a kill leaves behind. Of a killed job Snakemake
    # remembers that its output is incomplete: a stamp is whole or not there, and what decides is in it.
    always = ["--nolock", "--ignore-incomplete", "--drop-metadata", "--scheduler", "greedy", "--config", *chosen]
    return [*command, *options, *always]


# --- commands ---------------------------------------------------------------------------------


def why(plan: Plan) -> int:
    """Print each run that is out of date with the reason; 0."""
    waiting = stamps.pending(plan)
    for name, reason in waiting.items():
        print(f"{name}\n    {reason}")
    if not waiting:
        print(f"nothing to do: all {len(plan.runs)} steps of {plan.profile} are up to date")
    return 0


def reproduce(plan: Plan, cores: int) -> int:
    """Run what is out of date; 0 when everything is up to date at the end, 128 and its number after a signal.

    Raises CPPOError when a check fails before the first run.
    """
    started = time.monotonic()
    preflight(plan)
    with only_series(plan) as lock:
        waiting = stamps.pending(plan)
        if not waiting:
            print(f"nothing to do: all {len(plan.runs)} steps of {plan.profile} are up to date")
        else:
            print(
                f"{plan.profile}: {len(waiting)} of {len(plan.runs)} steps to run on {cores} "
                f"core(s), logs in {paths.show(plan.folder / 'logs')}",
                flush=True,
            )
            status = _run(plan, cores, len(waiting), lock)
            if not status and (left := stamps.pending(plan)):
                print(f"out of date again: {', '.join(left)}", file=sys.stderr)
                status = 1
            if status:
                print(f"stopped after {clock(time.monotonic() - started)}; go on with {again(plan)}", file=sys.stderr)
                return status if status > 128 else 1
            print(f"{plan.profile}: done in {clock(time.monotonic() - started)}")
    conclude(plan)
    return 0


def again(plan: Plan) -> str:
    """The command that continues this plan."""
    words = ["make reproduce", f"PROFILE={plan.profile}"]
    words += [f"SEEDS={plan.seeds}"] if plan.seeds > 1 else []
    words += [f"MODEL={plan.model}"] if plan.model else []
    return " ".join(words + ([f"LIMIT={plan.limit}"] if plan.limit else []))


def _run(plan: Plan, cores: int, total: int, lock: TextIO) -> int:
    """Let Snakemake run `total` steps and print a line per event. Returns its exit status."""
    log = paths.writable_dir(plan.folder / "logs") / "snakemake.log"
    env = os.environ | {runner.OWNER: runner.owner_token(), "PYTHONHASHSEED": "0"}
    command = snakemake(plan, "--cores", str(cores), "--keep-going", "--nocolor", "--quiet", "host")
    started = time.monotonic()
    steps: dict[str, int] = {}
    failures = 0
    with log.open("wb", buffering=0) as errors, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=paths.root(), env=env,
        pass_fds=[lock.fileno()], process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith(runner.MARK):
                    with contextlib.suppress(OSError):  # a full disk, of which the steps tell
                        errors.write(line.encode())
                    continue
                text = line.removeprefix(runner.MARK).rstrip()
                if runner.continues(line):
                    print(text, flush=True)
                    continue
                failures += ": failed: " in text
                step = steps.setdefault(text.split(": ")[0], len(steps) + 1)
                at = clock(time.monotonic() - started)
                print(f"[step {step} of {total}, {at}] {text}", flush=True)
        except runner.Stopped as stopped:
            with contextlib.suppress(OSError):  # the terminal may be what is gone
                print(f"{stopped.name}: ending the steps that run", file=sys.stderr, flush=True)
            _end(process)
            return stopped.status
    if process.returncode and not failures:
        print(_silent(log), file=sys.stderr)
    return process.returncode


def _silent(log: Path) -> str:
    """What is to be said when Snakemake has stopped and no step said why."""
    full = paths.no_space(OSError(log.read_text(encoding="utf-8", errors="replace")))
    if full is None and shutil.disk_usage(log.parent).free < 2**20:  # then the log holds nothing of it
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if full is not None:
        return str(paths.unwritable(log, full))
    return f"Snakemake stopped and no step said why; see {paths.show(log)}"


def _end(process: subprocess.Popen[str]) -> None:
    """End Snakemake, the steps and what they have started."""
    family = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        # Snakemake, which then starts no more, and the steps, of which each ends its own kernel.
        os.killpg(process.pid, signal.SIGTERM)
    _, left = psutil.wait_procs([psutil.Process(process.pid), *family], END_PATIENCE_S)
    for child in left:
        with contextlib.suppress(psutil.Error):
            child.kill()


def conclude(plan: Plan) -> None:
    """Print the main table, when the profile makes one, and where everything is."""
    table = (plan.folder / plan.table).resolve()
    if table.is_file():
        print(f"\n{table.read_text(encoding='utf-8').rstrip()}\n")
        print(f"tables and figures   {paths.show(table.parent)}")
    records = plan.folder / "04_evaluation"
    print(f"per-attempt records  {paths.show(records)}")
    print(f"executed notebooks   {paths.show(plan.folder / 'nb')}")


# --- command line -----------------------------------------------------------------------------


def side_by_side(devices: Path = Path("/dev")) -> int:
    """How many runs go side by side by default: one for each usable core, or one where they would share a GPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    gpu = any(devices.glob("nvidia[0-9]*")) or any((devices / name).exists() for name in ("dxg", "kfd"))  # WSL, ROCm
    return 1 if gpu and not hidden else usable_cores()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cppo_lib.runs.series")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("reproduce", "run every step that is out of date"),
        ("why", "say which steps are out of date, and why"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--profile", default="tiny", help="folder of params/")
        command.add_argument("--seeds", type=int, default=1, help="RL seeds 0 to N-1")
        command.add_argument("--model", default="", help="model folder or hub id to use instead")
        command.add_argument("--limit", type=int, default=0, help="so many problems and steps only; 0: all")
        command.add_argument("--cores", type=int, default=side_by_side(), help="runs side by side (%(default)s)")
    one = commands.add_parser("run-notebook", help="run one notebook with checked parameters")
    one.add_argument("notebook", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("-f", dest="file", type=Path, required=True, help="parameter file")
    one.add_argument("-p", dest="given", action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--log", type=Path, help="default: OUT with .log")
    one.add_argument("--stamp", type=Path, help="written when all went well: what the run was made from")
    one.add_argument("--reads", nargs="*", default=[], help="for the stamp: files of earlier runs")
    one.add_argument("--leaves", nargs="*", default=[], help="for the stamp: files that the run writes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "run-notebook":
        return _run_notebook(options)
    try:
        if options.seeds < 1 or options.cores < 1 or options.limit < 0:
            raise CPPOError("SEEDS and CORES must be whole numbers, at least 1, and LIMIT at least 0")
        if options.limit:
            # A first look has folders of its own, so that it can never replace what a whole run has made.
            os.environ["CPPO_RUNS"] = str(paths.runs_root() / f"{paths.FIRST}{options.limit}")
        plan = Plan(options.profile, seeds=options.seeds, model=options.model, limit=options.limit)
        with runner.stoppable():
            return why(plan) if options.command == "why" else reproduce(plan, options.cores)
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except runner.Stopped as stopped:
        print(f"{stopped.name}: stopped before anything ran", file=sys.stderr)
        return stopped.status


def _run_notebook(options: argparse.Namespace) -> int:
    name = options.out.name.removesuffix(".ipynb")
    try:
        with runner.stoppable(runner.end_children):
            given = config.given_values(options.given, options.file)
            before = stamps.begun(config.load_params(options.file, **given), Path(), options.reads)
            log = options.log or options.out.with_suffix(".log")
            runner.run_notebook(options.notebook.resolve(), options.out, options.file, given, log)
            if options.stamp:
                stamps.finished(options.stamp, before, Path(), options.leaves)
        return 0
    except CPPOError as error:
        runner.say(f"{name}: failed: {error}")
    except runner.Stopped as stopped:
        with contextlib.suppress(OSError):  # whoever listened may be gone
            runner.say(f"{name}: failed: stopped by {stopped.name}")
        return stopped.status
    except Exception as error:
        traceback.print_exc()  # into snakemake.log
        runner.say(f"{name}: failed: {type(error).__name__}: {error}")
    return 1
