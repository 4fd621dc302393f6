"""Artefacts that are not what was written, and full disks: what readers and writers say."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from suite import Suite

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.errors import CPPOError, DamagedError

CONFIG = "adapter_config.json"


def cut(path: Path, size: int | None = None) -> None:
    """Shorten a file, by default to half, and keep its time stamps."""
    stamps = path.stat()
    os.truncate(path, stamps.st_size // 2 if size is None else size)
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and keep its time stamps."""
    stamps, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


@pytest.fixture
def arm(runs: Path) -> Path:
    """The folder of a finished RL arm."""
    folder = paths.stage_dir("tiny", "03_rl_training", "cppo.s0")
    store.resumable_dir(folder, "one")
    store.append_jsonl(folder / "metrics.jsonl", [{"step": step} for step in range(20)])
    store.write_text(folder / "policy" / "weights", "w" * 1000)
    artefacts = [folder / "metrics.jsonl", folder / "policy"]
    notes.write_summary(folder, {"seed": 0}, values={}, artefacts=artefacts)
    return folder


@pytest.fixture
def record(runs: Path) -> Path:
    """Finished attempt records."""
    folder = paths.stage_dir("tiny", "04_evaluation")
    path = store.write_parquet(folder / "crossroads.test.cppo.s0.parquet", [{"n": n, "s": "x" * n} for n in range(50)])
    notes.write_meta(path, {"seed": 0}, fingerprint="f")
    return path


# --- what was written is what is read -----------------------------------------------------------


def test_whole_artefacts_are_read(arm, record):
    assert store.checked(arm / "policy" / "weights") == arm / "policy" / "weights"
    assert store.policy_source("tiny", "arm:cppo") == str(arm / "policy")
    assert len(store.read_parquet(record)) == 50
    assert store.damage(arm / "summary.json") == store.damage(record) == ""
    assert store.finished(arm)


@pytest.mark.parametrize("spoil", [cut, flip])
@pytest.mark.parametrize("name", ["metrics.jsonl", "policy/weights"])
def test_an_artefact_of_a_run_that_has_changed_is_refused_with_the_cure(arm, spoil, name):
    spoil(arm / name)
    artefact = arm / name.split("/")[0]
    with pytest.raises(DamagedError) as caught:
        store.checked(arm / name)
    wanted = f"{artefact} is not what was written there (damaged, or changed by hand): delete {arm} and start again"
    assert str(caught.value) == wanted
    if name.startswith("policy"):
        with pytest.raises(DamagedError):
            store.policy_source("tiny", "arm:cppo")


@pytest.mark.parametrize("spoil", [cut, flip, lambda path: cut(path, 0)])
def test_records_that_have_changed_are_refused_with_the_cure(record, spoil):
    spoil(record)
    with pytest.raises(DamagedError, match=rf"delete {record} and start again$") as caught:
        store.read_parquet(record)
    assert "\n" not in str(caught.value)


def test_an_empty_note_names_the_record_to_delete(record):
    cut(paths.meta_path(record), 0)
    with pytest.raises(DamagedError, match=rf"parquet.meta.json is empty: delete {record} and start again$"):
        store.read_json(paths.meta_path(record))
    with pytest.raises(DamagedError):
        store.read_parquet(record)


def test_an_empty_summary_names_the_folder_to_delete(arm):
    cut(arm / "summary.json", 0)
    with pytest.raises(DamagedError, match=rf"summary.json is empty: delete {arm} and start again$"):
        store.policy_source("tiny", "arm:cppo")


def test_text_that_is_no_utf8_is_no_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DamagedError, match=r"a.json is not JSON .*utf-8"):
        store.read_json(path)


def test_a_table_without_a_note_is_checked_by_its_own_checksums(tmp_path):
    path = store.write_parquet(tmp_path / "chunk.parquet", [{"s": "abcdefgh"}])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"abcdefgh", b"abcdefgx", 1))  # the first is in a page, later ones in its statistics
    with pytest.raises(DamagedError, match=rf"chunk.parquet is not a whole Parquet file .*: delete {path}"):
        store.read_parquet(path)
    cut(path, 0)
    with pytest.raises(DamagedError, match="is not a whole Parquet file"):
        store.read_parquet(path)


def test_the_base_of_an_adapter_is_checked_too(arm):
    base = paths.stage_dir("tiny", "02_planner_sft")
    store.write_text(base / "sft" / "weights", "b" * 1000)
    notes.write_summary(base, {"seed": 0}, values={}, artefacts=[base / "sft"])
    store.write_json(arm / "policy" / "planner" / CONFIG, {"base_model_name_or_path": str(base / "sft")})
    notes.write_summary(arm, {"seed": 0}, values={}, artefacts=[arm / "policy"])
    assert store.policy_source("tiny", "arm:cppo") == str(arm / "policy")
    flip(base / "sft" / "weights")
    with pytest.raises(DamagedError, match=rf"02_planner_sft/sft is not what .*: delete {base} and start again"):
        store.policy_source("tiny", "arm:cppo")


def test_models_from_elsewhere_and_runs_that_go_on_have_no_note(runs, tmp_path):
    (tmp_path / "summary.json").write_text("[]")
    assert store.checked(tmp_path / "model") == tmp_path / "model"
    running = paths.stage_dir("tiny", "03_rl_training", "pkpo.s0")
    assert store.checked(running / "metrics.jsonl") == running / "metrics.jsonl"


def test_a_moved_runs_folder_is_still_whole(arm, record, runs, monkeypatch):
    moved = runs.with_name("moved")
    runs.rename(moved)
    monkeypatch.setenv("CPPO_RUNS", str(moved))
    arm, record = (moved / path.relative_to(runs) for path in (arm, record))
    assert store.damage(arm / "summary.json") == store.damage(record) == ""
    assert store.finished(arm) and len(store.read_parquet(record)) == 50
    flip(arm / "policy" / "weights")
    with pytest.raises(DamagedError):
        store.checked(arm / "policy")


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    monkeypatch.setattr(store, "SETTLED_S", -60.0)  # as if a minute had passed
    first = store.file_sha256(path)
    with monkeypatch.context() as patched:
        patched.setattr(store.hashlib, "file_digest", None)  # not called again
        assert store.file_sha256(path) == first
    path.write_bytes(b"other")
    assert store.file_sha256(path) != first


# --- finished work that is not whole ------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda arm: cut(arm / "summary.json", 0), "summary.json is empty"),
        (lambda arm: cut(arm / "summary.json"), "summary.json is not JSON"),
        (lambda arm: cut(arm / "metrics.jsonl", 100), "metrics.jsonl is cut, it has 100 of 2"),
        (lambda arm: shutil.rmtree(arm / "policy"), "policy is gone"),
    ],
)
def test_a_run_whose_files_are_cut_or_gone_is_not_finished(arm, spoil, said, capsys):
    spoil(arm)
    assert said in store.damage(arm / "summary.json")
    assert not store.finished(arm)
    assert said in capsys.readouterr().out
    assert os.listdir(arm) == ["fingerprint.txt"]
    assert store.resumable_dir(arm, "one") == arm


def test_a_finished_run_that_was_changed_is_refused_and_kept(arm):
    flip(arm / "policy" / "weights")
    assert store.damage(arm / "summary.json") == ""
    with pytest.raises(DamagedError, match="delete"):
        store.finished(arm)
    assert (arm / "policy" / "weights").exists()


def test_a_record_that_is_cut_or_has_no_whole_note_is_damaged(record):
    whole = record.read_bytes()
    cut(record)
    assert "is cut, it has" in store.damage(record)
    record.write_bytes(whole)
    cut(paths.meta_path(record), 0)
    assert store.damage(record).endswith(".parquet.meta.json is empty")
    paths.meta_path(record).unlink()
    assert store.damage(record).endswith(".parquet.meta.json is gone")


# --- full disks ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB; skips where this user cannot mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    path = disk / "filler"
    with path.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), b"x" * 4096)
        except OSError:
            return path


def write_figure(path: Path) -> Path:
    from matplotlib.figure import Figure

    return store.write_figure(path, Figure())


ROWS = pd.DataFrame({"text": [random.Random(n).randbytes(1500).hex() for n in range(2000)]})
WRITERS = {
    "a.json": lambda path: store.write_json(path, "x" * 3_000_000),
    "a.parquet": lambda path: store.write_parquet(path, ROWS),
    "a.png": lambda path: fill(path.parent) and write_figure(path),
    "a.jsonl": lambda path: store.append_jsonl(path, [{"a": "x" * 3_000_000}]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_with_disk_need_and_cure(small_disk, name):
    path = store.write_text(small_disk / name, "old") if name != "a.jsonl" else small_disk / name
    with pytest.raises(CPPOError) as caught:
        WRITERS[name](path)
    text = str(caught.value)
    assert text.startswith(f"cannot write {path}: no space is left on the disk at {small_disk} (")
    assert " MiB free" in text and "\n" not in text
    assert ("more than " in text) == (name != "a.png")  # of which not a byte was written
    assert text.endswith("make room there or name another disk (CPPO_RUNS, TMPDIR), then start again")
    if name != "a.jsonl":
        assert path.read_text() == "old"
    assert not list(small_disk.glob("*.partial"))


def test_a_policy_that_does_not_fit_leaves_the_old_one_and_room(small_disk):
    from cppo_lib.model.policy import save_policy
    from cppo_lib.model.tiny import build_model, build_tokenizer

    tokenizer = build_tokenizer(["a b c"] * 9, 300)
    folder = small_disk / "policy"
    save_policy(build_model(tokenizer, hidden_size=16, layers=1, heads=2, seed=0), tokenizer, folder)
    before = store.file_sha256(folder)
    large = build_model(tokenizer, hidden_size=256, layers=2, heads=2, seed=0)
    with pytest.raises(CPPOError, match=rf"cannot write {folder}: no space is left on the disk at {small_disk} \("):
        save_policy(large, tokenizer, folder)
    assert store.file_sha256(folder) == before
    assert os.listdir(small_disk) == ["policy"]


@pytest.mark.parametrize(
    "text",
    ["I/O error: No space left on device (os error 28)", "database or disk is full", "write failed (errno 122)"],
)
def test_a_full_disk_is_known_by_a_library_s_words(tmp_path, text):
    with pytest.raises(CPPOError, match="on the disk at"), store.writing(tmp_path / "x"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="anything else"), store.writing(tmp_path / "x"):
        raise RuntimeError("anything else")


def test_a_name_is_given_to_bytes_that_are_on_the_disk(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (events.append(f"-> {new}"), replace(old, new)))
    path = store.write_text(tmp_path / "a.txt", "text")
    assert events == [f"{path}.partial", f"-> {path}", str(tmp_path)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('x' * 3_000_000)", "cannot write {disk}/nb/step.ipynb: no space"),
        # as a library does that keeps no error number; what filled the disk is gone before the notebook is kept
        ("raise RuntimeError('I/O error: No space left on device (os error 28)')", "cell 3: cannot write {disk}/nb:"),
    ],
)
def test_a_step_on_a_full_disk_fails_with_one_line(small_disk, tmp_path, body, said):
    suite = Suite(tmp_path / "suite")
    suite.env["CPPO_RUNS"] = str(small_disk)
    suite.write_notebook("03_rl_training", body)
    out, log = small_disk / "nb" / "step.ipynb", small_disk / "logs" / "step.log"
    file = "params/mini/03_rl_training.cppo.yaml"
    done = suite.call("run-notebook", "notebooks/03_rl_training.ipynb", str(out), "-f", file, "--log", str(log))
    assert done.returncode == 1
    started, line = done.stdout.splitlines()
    assert line.startswith("[cppo] step: failed: " + said.format(disk=small_disk)), done.stdout
    assert line.endswith("then start again")
    assert "Traceback" not in done.stderr
    assert not list(small_disk.rglob("*.running.ipynb"))
