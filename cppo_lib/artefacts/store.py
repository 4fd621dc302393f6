"""Artefacts on disk: how they are written, and how whoever reads one knows that it is what was written.

Everything that the notebooks make lies under one folder, `runs/<profile>/<stage>/` (`cppo_lib.artefacts.paths`). Four
rules keep it trustworthy: a file appears whole or not at all (written to `<name>.partial`, flushed to the disk, then
renamed); a missing input names the notebook that writes it; each artefact has a note with its hash and what it came
from (`cppo_lib.artefacts.notes`); and whoever reads an artefact of an earlier step checks it against that (`checked`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cppo_lib.artefacts import paths
from cppo_lib.artefacts.paths import meta_path, runs_root, show, size_of, unwritable, writable_dir
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, DamagedError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FINGERPRINT = "fingerprint.txt"
ADAPTER = "adapter_config.json"  # PEFT's file, which makes a folder an adapter and names its base model
CHANGED = "is not what was written there (damaged, or changed by hand)"
SETTLED_S = 2.0  # a file that has just changed may change again under the same time stamp
_DIGESTS: dict[tuple[int, ...], str] = {}
"""SHA-256 of files that this process has read, by what changes with a file's content."""


# --- whole files or none ----------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise CPPOError, in one line, where what is done within cannot write the file or folder at `path`.

    A full disk is recognised also where a library (safetensors, torch, SQLite) tells of it in words alone.
    """
    try:
        yield
    except CPPOError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    except Exception as error:
        if (full := paths.no_space(error)) is None:
            raise
        raise unwritable(path, full) from error


def place(partial: Path, path: Path) -> Path:
    """Give a written file or folder its name, with all its bytes on the disk before that. Raises OSError.

    Otherwise a machine that loses power can be left with the name of a file that holds nothing.
    """
    for part in (*partial.rglob("*"), partial):
        _flush(part)
    partial.replace(path)
    _flush(path.parent)
    return path


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot flush a folder
            raise
    finally:
        os.close(opened)


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill `<path>.partial`, then rename it to `path`; on any error leave neither.

    Raises CPPOError when it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            place(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole. Raises CPPOError when the folder cannot be written."""
    return write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write indented JSON whole; numpy scalars and paths are written as their plain values."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=plain) + "\n"
    return write_text(path, text)


def write_parquet(path: Path, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> Path:
    """Write a table (a frame, or one mapping per row) as Parquet, whole and without an index."""
    import pandas as pd  # here, because the command line needs none of it and starts often

    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    return write_whole(path, lambda partial: frame.to_parquet(partial, index=False, write_page_checksum=True))


def write_figure(path: Path, figure: Figure, **options: Any) -> Path:
    """Write a matplotlib figure whole, in the format of `path`'s suffix (png, pdf, svg).

    `options` go to `Figure.savefig`, for example `dpi` or `bbox_inches`.
    """
    kind = path.suffix.removeprefix(".")
    return write_whole(path, lambda partial: figure.savefig(partial, format=kind, **options))


def read_json(path: Path) -> Any:
    """Read JSON. Raises DamagedError naming the file, and what to delete, when it is not JSON."""
    value, wrong = _parsed(path)
    if wrong:
        raise _damaged(path, wrong)
    return value


def _parsed(path: Path) -> tuple[Any, str]:
    """The value in a JSON file, and what is wrong with the file; empty: nothing."""
    text = path.read_bytes()
    try:
        return json.loads(text.decode("utf-8")), ""
    except ValueError as error:  # no JSON, or no UTF-8
        return None, f"is not JSON ({error})" if text.strip() else "is empty"


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table as `checked`, its pages by their checksums. Raises DamagedError where that fails."""
    import pandas as pd

    try:
        return pd.read_parquet(checked(path), page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        if isinstance(error, CPPOError):
            raise
        raise _damaged(path, f"is not a whole Parquet file ({str(error).splitlines()[0]})") from error


def plain(value: Any) -> Any:
    """A path or a numpy scalar as JSON has it, for `json.dumps(default=)`."""
    if isinstance(value, Path):
        return show(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def resumable_dir(folder: Path, fingerprint: str) -> Path:
    """A run's folder, emptied unless what it holds was begun under the same fingerprint.

    So a run goes on from its own checkpoints after a kill, and never from those of other
    parameters, other code or other inputs (`cppo_lib.runs.dependencies.fingerprint`).
    """
    mark = folder / FINGERPRINT
    before = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    if before == fingerprint:
        return writable_dir(folder)
    if folder.exists():
        if before:
            log.warning(begins_anew(folder, before, fingerprint))
        shutil.rmtree(folder)
    writable_dir(folder)
    write_text(mark, fingerprint)
    return folder


def begins_anew(path: Path, before: str, now: str) -> str:
    """What is said of work whose fingerprint is not that of today, of which the first part is the suite's version."""
    other = "with other parameters, code or inputs"
    if before.partition(":")[0] != now.partition(":")[0]:
        other = "by another version of the suite, which is not comparable"
    return f"{show(path)} was begun {other}: it begins anew"


# --- one line per event -----------------------------------------------------------------------


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows as JSON lines and flush them to the disk, so a kill loses at most the last.

    A last line that an earlier kill tore is cut off first; otherwise the new row would join it.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, default=plain) + "\n" for row in rows).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _drop_torn_line(file)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error, len(text)) from error


def _drop_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line (no newline at its end) is left out.

    Raises DamagedError naming file and line when any other line is not JSON.
    """
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise _damaged(path, f"is not JSON ({error})", line=number) from error
    return rows


# --- is it still what was written? --------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's files (names and contents, sorted by name)."""
    if path.is_file():
        return _digest(path)
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path)}\0{file_sha256(file_path)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    """The hash of a file, which this process computes once: policies and problems are large, and asked for often."""
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key in _DIGESTS:
        return _DIGESTS[key]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - state.st_ctime > SETTLED_S:
        _DIGESTS[key] = found
    return found


def checked(path: Path) -> Path:
    """`path`, known to be what its step wrote; every step reads what others have written through this.

    What has no note (a model from elsewhere, a step that has not finished) is taken as it is.

    Raises:
        DamagedError: it is another file than its step recorded, or the note cannot be read.
    """
    if (found := _recorded(path)) is not None:
        artefact, digest = found
        if file_sha256(artefact) != digest:
            raise _damaged(artefact, CHANGED)
    return path


def _recorded(path: Path) -> tuple[Path, str] | None:
    """The artefact that `path` is or lies in, and the hash in its note; None without a note that has one."""
    if meta_path(path).is_file():
        hashes = read_json(meta_path(path)).get("artefacts", {}).values()
        return next(((path, digest) for digest in hashes), None)
    if (folder := _run_of(path)) is None:
        return None
    artefact = folder / path.relative_to(folder).parts[0]
    hashes = read_json(folder / "summary.json").get("artefacts", {})
    return next(((artefact, digest) for name, digest in hashes.items() if Path(name).name == artefact.name), None)


def _run_of(path: Path) -> Path | None:
    """The folder of the finished run that wrote a file; None for one outside the runs, or of a run that goes on."""
    inside = (folder for folder in path.parents if folder.is_relative_to(runs_root()))
    return next((folder for folder in inside if (folder / "summary.json").is_file()), None)


def _damaged(path: Path, what: str, line: int = 0) -> DamagedError:
    artefact = path.with_name(path.name.removesuffix(".meta.json"))
    has_own_note = meta_path(artefact).exists()
    again = artefact if has_own_note else _run_of(path) or path
    return DamagedError(f"{show(path)}{f':{line}' if line else ''} {what}: delete {show(again)} and start again")


def damage(path: Path, *, thorough: bool = False) -> str:
    """What is wrong with finished work; empty: nothing, or it is not finished.

    Args:
        path: the `summary.json` of a run, or a file with a `.meta.json` beside it.
        thorough: by hashes; else by sizes alone, which costs so little that the series asks it of every step.
    """
    note = path if path.name == "summary.json" else meta_path(path)
    if not path.exists():
        return ""
    if not note.exists():
        return f"{show(note)} is gone"
    record, wrong = _parsed(note)
    if wrong:
        return f"{show(note)} {wrong}"
    for name, size in record.get("bytes", {}).items():
        artefact = Path(os.path.normpath(note.parent / name))
        if not artefact.exists():
            return f"{show(artefact)} is gone"
        if (found := size_of(artefact)) < size:
            return f"{show(artefact)} is cut, it has {found:,} of {size:,} bytes"
        if thorough and (recorded := _recorded(artefact)) and file_sha256(artefact) != recorded[1]:
            return f"{show(artefact)} {CHANGED}"
    return ""


def finished(folder: Path) -> bool:
    """Whether the run in `folder` has ended and what it left is whole; where that is cut, the folder is emptied.

    Raises:
        DamagedError: an artefact has its size but not its hash.
    """
    summary = folder / "summary.json"
    if not summary.exists():
        return False
    if wrong := damage(summary):
        log.warning(f"{wrong}: this step is run again")
        fingerprint = (folder / FINGERPRINT).read_text(encoding="utf-8")
        shutil.rmtree(folder)
        write_text(folder / FINGERPRINT, fingerprint)
        return False
    for name in read_json(summary).get("bytes", {}):
        checked(folder / name)
    return True


def policy_source(profile: str, policy: str, seed: int = 0) -> str:
    """`paths.policy_source`, as `checked`, and with an adapter its base model. Raises as these."""
    source = paths.policy_source(profile, policy, seed)
    for config in (*Path(source).glob(ADAPTER), *Path(source).glob(f"*/{ADAPTER}")):
        checked(Path(read_json(config).get("base_model_name_or_path") or ""))
    checked(Path(source))
    return source
