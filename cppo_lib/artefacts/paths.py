"""Where everything lies: the repository, its runs, and what a parameter's name points to.

Nothing here depends on the caller's working folder, so a notebook behaves the same in JupyterLab,
under papermill and under pytest.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from cppo_lib.errors import CPPOError, MissingArtefactError

FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "your quota is used up"}
"""Error numbers that mean a full disk, in words."""
MADE_POLICIES = ("base", "sft")
"""Policies of a profile that 02_planner_sft makes, as parameter files name them."""
FIRST = "first-"  # and the LIMIT: folders of first looks


def root(start: Path | None = None) -> Path:
    """The repository root: the nearest folder upwards that holds `pyproject.toml`.

    Looks upwards from `start`, by default from this file, so the caller's working folder does not
    matter. Raises CPPOError when the package is installed away from its repository.
    """
    origin = (start or Path(__file__)).resolve()
    for folder in (origin, *origin.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise CPPOError(f"no pyproject.toml above {origin}: install the suite with pip install -e .")


def runs_root() -> Path:
    """The folder of every run: `$CPPO_RUNS` when set, else `<root>/runs`."""
    chosen = os.environ.get("CPPO_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else root() / "runs"


def first_look() -> int:
    """The LIMIT that all runs of this folder were made with (`runs/first-LIMIT`); 0 where runs are whole."""
    limit = runs_root().name.removeprefix(FIRST)
    return int(limit) if runs_root().name.startswith(FIRST) and limit.isdecimal() else 0


def stage_dir(profile: str, stage: str, run: str | None = None) -> Path:
    """`runs/<profile>/<stage>[/<run>]`, created. Raises CPPOError when it cannot be."""
    folder = runs_root() / profile / stage
    return writable_dir(folder / run if run else folder)


def writable_dir(folder: Path) -> Path:
    """Create `folder` if needed and check that a file can be made in it, else raise CPPOError."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def require(path: Path, *, notebook: str, hint: str | None = None) -> Path:
    """`path` if it exists, else MissingArtefactError naming the notebook that writes it.

    Args:
        path: the artefact an earlier notebook writes.
        notebook: that notebook's name, such as `02_planner_sft`.
        hint: what to do instead; by default that notebook, or `make reproduce` with the path's profile.
    """
    if path.exists():
        return path
    if hint is None:
        inside = path.is_relative_to(runs_root())
        profile = path.relative_to(runs_root()).parts[0] if inside else "tiny"
        hint = f"run notebooks/{notebook}.ipynb first (or make reproduce PROFILE={profile})"
    raise MissingArtefactError(f"{show(path)} is missing: {hint}")


def policy_source(profile: str, policy: str, seed: int = 0) -> str:
    """Where a `policy` parameter points to: a folder of this profile, or the value itself.

    Args:
        profile: the run's profile.
        policy: `base` or `sft` (folders of 02_planner_sft), `arm:<name>` (the policy that
            03_rl_training left in `<name>.s<seed>`), or a model folder (from the root) or hub id.
        seed: the RL seed of `arm:`.

    Raises:
        MissingArtefactError: the notebook that makes the folder has not finished.
    """
    if policy in MADE_POLICIES:
        run, notebook = runs_root() / profile / "02_planner_sft", "02_planner_sft"
        folder = run / policy
    elif policy.startswith("arm:"):
        name = f"{policy.removeprefix('arm:')}.s{seed}"
        run, notebook = runs_root() / profile / "03_rl_training" / name, "03_rl_training"
        folder = run / "policy"
    else:
        # A relative folder is one below the repository: kernels run in notebooks/, users in the root.
        named = os.path.expanduser(policy)
        local = root() / named
        return str(local) if local.is_dir() else named
    require(run / "summary.json", notebook=notebook)
    return str(require(folder, notebook=notebook))


def records_name(benchmark: str, split: str, method: str, seed: int) -> str:
    """What the attempt records of an evaluation are called: `<benchmark>.<split>.<method>.s<seed>`."""
    return f"{benchmark}.{split}.{method}.s{seed}"


def verdicts_path(profile: str) -> Path:
    """The cache of verdicts that the runs of a profile share."""
    return runs_root() / profile / "verdicts.sqlite"


def meta_path(artefact: Path) -> Path:
    """`<name>.meta.json` beside an artefact: where it came from."""
    return artefact.with_name(artefact.name + ".meta.json")


def figures_path(profile: str, chosen: str) -> Path:
    """What the parameter `figures_dir` means: from the root, or empty for the profile's own."""
    return root() / Path(chosen).expanduser() if chosen else runs_root() / profile / "figures"


def figures_dir(profile: str, chosen: str) -> Path:
    """`figures_path`, created. Raises CPPOError when it cannot be."""
    return writable_dir(figures_path(profile, chosen))


def show(path: Path) -> str:
    """`path` as a user should read it: relative to the repository when it lies inside."""
    try:
        return str(path.resolve().relative_to(root()))
    except ValueError:
        return str(path)


def show_model(name: str) -> str:
    """A model as a reader elsewhere should see it: a hub id, or what a folder outside the repository is called."""
    name = os.path.expanduser(name)
    if not Path(name).is_absolute():
        return name
    shown = show(Path(name))
    return Path(name).name if Path(shown).is_absolute() else shown


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files; 0 for what is not there."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def unwritable(path: Path, error: OSError, size: int = 0) -> CPPOError:
    """The one-line error for a file or folder that cannot be written; with a full disk, which, and what was needed.

    `size`: bytes that are to be written, as far as they are known; what lies in `<path>.partial` counts too.
    """
    if error.errno in FULL:
        free = shutil.disk_usage(disk := disk_of(path)).free
        size = max(size, size_of(path.with_name(path.name + ".partial")))
        need = f", more than {size / 2**20:.1f} MiB needed" if size else ""
        return CPPOError(
            f"cannot write {show(path)}: {FULL[error.errno]} on the disk at {disk} ({free / 2**20:.1f} MiB "
            f"free{need}): make room there or name another disk (CPPO_RUNS, TMPDIR), then start again"
        )
    reason = error.strerror or type(error).__name__
    return CPPOError(f"cannot write {show(path)} ({reason}): make the folder writable or set CPPO_RUNS")


def no_space(error: BaseException) -> OSError | None:
    """The error as an OSError where it says that a disk is full, also where a library has put it into words."""
    if isinstance(error, OSError) and error.errno in FULL:
        return error
    text = str(error).lower()
    for number in FULL:
        if any(words in text for words in (os.strerror(number).lower(), f"errno {number}", f"os error {number}")):
            return OSError(number, os.strerror(number))
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if "database or disk is full" in text else None


def disk_of(path: Path) -> Path:
    """Where the disk of a file or folder, which need not exist, is mounted."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if os.path.ismount(folder))
