"""Data files: found, downloaded, gone on with, checked, streamed; every fault names file, row, field and the fix."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import Hub

from cppo_lib.artefacts import paths
from cppo_lib.data import hub
from cppo_lib.data.benchmarks import apps, code_contests
from cppo_lib.errors import DatasetError, ParameterError
from cppo_lib.runs import config
from cppo_lib.runs.parameters import DataPrep
from cppo_lib.runs.series import fetch

CHUNK = 10 << 20  # huggingface_hub writes a download in blocks of this size
BIG = random.Random(0).randbytes(CHUNK + 1000)
LOCATE = """
import sys
from cppo_lib.data.hub import Dataset, HubFile, locate
from cppo_lib.errors import DatasetError
source, revision, name, sha256 = sys.argv[1:]
file = HubFile(name, sha256 or None)
try:
    found = locate(source, file, dataset=Dataset("org/data", revision, {"test": (file, HubFile("other.bin"))}))
except DatasetError as error:
    sys.exit(f"DatasetError: {error}")
print(found.path, found.revision, found.sha256, found.official)
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(path: str, data: bytes) -> hub.Dataset:
    return hub.Dataset("org/data", "abc", {"test": (hub.HubFile(path, sha256(data), 2),)})


@pytest.fixture
def server() -> Iterator[Hub]:
    made = Hub({"a.bin": b"hello", "big.bin": BIG})
    yield made
    made.stalled.set()
    made.close()


def located(
    server: Hub, folder: Path, *, source: str = "", revision: str = "main", name: str = "a.bin", digest: str = ""
) -> list[str]:
    """What `locate` finds in a process of its own: path, revision, checksum, official."""
    return server.python("-c", LOCATE, source, revision, name, digest, folder=folder).stdout.split()


def fault(server: Hub, folder: Path, *arguments: str, **more: str) -> str:
    """The one line that `locate` fails with."""
    done = server.python("-c", LOCATE, *arguments, folder=folder, check=False, **more)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("DatasetError: ")


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is_and_the_pinned_file_is_recognised(tmp_path: Path) -> None:
    dataset = pinned("data/a.txt", b"pinned")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_bytes(b"pinned")
    found = hub.locate(str(tmp_path), dataset.files["test"][0], dataset=dataset)
    assert (found.revision, found.official, found.sha256) == ("abc", True, sha256(b"pinned"))
    assert found.source(2).rows == 2
    (tmp_path / "data/a.txt").write_bytes(b"my own")
    mine = hub.locate(str(tmp_path), dataset.files["test"][0], dataset=dataset)
    assert (mine.revision, mine.official) == ("", False)
    hub.check_rows(mine, 7, 2)  # a user's own data may have any number of rows


def test_a_missing_file_or_folder_says_what_to_put_where(tmp_path: Path) -> None:
    dataset = pinned("data/a.txt", b"")
    with pytest.raises(DatasetError, match=r"lacks data/a.txt: put it there, from .*/datasets/org/data/tree/abc"):
        hub.locate(str(tmp_path), dataset.files["test"][0], dataset=dataset)
    with pytest.raises(DatasetError, match="neither a folder nor a hub id such as org/data"):
        hub.locate(str(tmp_path / "nowhere"), dataset.files["test"][0], dataset=dataset)


@pytest.mark.parametrize(
    ("origin", "meaning"),
    [
        ("", ("org/data", "abc")),
        ("org/data", ("org/data", "abc")),
        ("org/data@main", ("org/data", "main")),
        ("me/data", ("me/data", "main")),
        ("org/data@refs/convert/parquet", ("org/data", "refs/convert/parquet")),
    ],
)
def test_a_hub_id_means_the_pinned_revision_unless_it_names_one(origin: str, meaning: tuple[str, str]) -> None:
    assert hub.resolve(origin, pinned("a", b"")) == (None, *meaning)


def test_other_row_counts_say_that_upstream_has_changed(tmp_path: Path) -> None:
    file = hub.HubFile("a.parquet", rows=442)
    official = hub.Located(tmp_path / "a.parquet", file, "org/data", "main", "0" * 64, True)
    hub.check_rows(official, 442, 442)
    with pytest.raises(DatasetError) as caught:
        hub.check_rows(official, 440, 442)
    message = str(caught.value)
    assert "org/data@main, a.parquet: 440 rows where 442 are known: upstream has changed" in message
    assert "source: org/data@<commit>" in message and "folder" in message


# --- downloads --------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_checked(server: Hub, tmp_path: Path) -> None:
    path, revision, digest, official = located(server, tmp_path, revision="f" * 40, digest=sha256(b"hello"))
    assert Path(path).read_bytes() == b"hello" and path.startswith(str(tmp_path / "hf"))
    assert (revision, digest, official) == ("f" * 40, sha256(b"hello"), "True")
    again = server.python("-c", LOCATE, "", "f" * 40, "a.bin", "", folder=tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout.split()[0] == path and server.starts == [0]


def test_a_dropped_connection_is_gone_on_with(server: Hub, tmp_path: Path) -> None:
    server.cuts, server.cut = 1, CHUNK + 10
    path, *_ = located(server, tmp_path, name="big.bin")
    assert Path(path).read_bytes() == BIG
    assert server.starts == [0, CHUNK]


def test_a_killed_download_is_gone_on_with(server: Hub, tmp_path: Path) -> None:
    server.cuts, server.cut = 1, CHUNK + 10
    server.stalled.clear()
    command = [sys.executable, "-c", LOCATE, "", "main", "big.bin", ""]
    process = subprocess.Popen(command, env=server.environment(tmp_path), stdout=subprocess.PIPE)
    part = tmp_path / f"hf/hub/datasets--org--data/blobs/{sha256(BIG)}.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size == CHUNK):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    server.stalled.set()
    path, *_ = located(server, tmp_path, name="big.bin")
    assert Path(path).read_bytes() == BIG and not part.exists()
    assert server.starts == [0, CHUNK]


def test_damage_on_the_way_is_refused_and_leaves_nothing(server: Hub, tmp_path: Path) -> None:
    server.sent["a.bin"] = b"hellO"
    message = fault(server, tmp_path, "", "main", "a.bin", "")
    assert f"SHA-256 {sha256(b'hellO')[:12]}..., not {sha256(b'hello')[:12]}...: it was damaged on the way" in message
    assert not [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.read_bytes() == b"hellO"]
    del server.sent["a.bin"]
    assert Path(located(server, tmp_path)[0]).read_bytes() == b"hello"


def test_another_file_than_the_pinned_one_is_refused(server: Hub, tmp_path: Path) -> None:
    message = fault(server, tmp_path, "", "main", "a.bin", sha256(b"what is pinned"))
    assert "or is not the file that is pinned" in message
    # Another revision, named by the user, may have another file.
    assert located(server, tmp_path, source="org/data@dev", digest=sha256(b"what is pinned"))[1] == "dev"


def test_a_cached_file_that_went_bad_is_named(server: Hub, tmp_path: Path) -> None:
    path = Path(located(server, tmp_path)[0]).resolve()
    path.chmod(0o644)
    path.write_bytes(b"hellx")
    message = fault(server, tmp_path, "", "main", "a.bin", "")
    assert str(path) in message and "delete it and run make fetch-data" in message


def test_a_file_that_the_hub_lacks_says_that_upstream_has_changed(server: Hub, tmp_path: Path) -> None:
    message = fault(server, tmp_path, "", "main", "gone.bin", "")
    assert message.startswith("the hub has no gone.bin in org/data@main") and "upstream has changed" in message


def test_an_unreachable_hub_says_which_files_to_put_where(server: Hub, tmp_path: Path) -> None:
    message = fault(server, tmp_path, "", "main", "a.bin", "", HF_HUB_OFFLINE="1")
    assert message.startswith("the hub cannot be reached for org/data@main (")
    assert "run make fetch-data where there is a network" in message
    assert "or put a.bin, other.bin into a folder, under these names, and give that folder as source" in message


def test_a_cache_without_file_locks_is_one_line(server: Hub, tmp_path: Path) -> None:
    forbid = "import errno\nfrom verifier_yard import forbid_locks\nforbid_locks(errno.ENOLCK)\n"
    tests = str(Path(__file__).parents[1] / "helpers")
    for name in ("a.bin", "big.bin"):
        arguments = ("-c", f"import sys\nsys.path.insert(0, {tests!r})\n{forbid}{LOCATE}", "", "main", name, "")
        done = server.python(*arguments, folder=tmp_path, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert "No locks available" in done.stderr and "set HF_HOME to a folder on a local disk" in done.stderr


# --- fetch ------------------------------------------------------------------------------------


def data_prep(benchmark: str, *splits: str, **options: object) -> dict[str, object]:
    """The keys and values of a parameter file."""
    loader = importlib.import_module(f"cppo_lib.data.benchmarks.{benchmark}").load
    names = [name for name in inspect.signature(loader).parameters if name not in ("split", "report", "limit")]
    defaults = {name: inspect.signature(loader).parameters[name].default for name in names}
    return {
        "profile": "mine",
        "benchmark": benchmark,
        "splits": list(splits),
        "options": {**defaults, **options},
        "limit": 0,
        "remove_overlap_with": [],
        "check_references": 0,
        "k": 4,
        "seed": 0,
    }


def parameter_file(folder: Path, benchmark: str, *splits: str, **options: object) -> Path:
    path = folder / f"01_data_prep.{benchmark}.yaml"
    path.write_text(yaml.safe_dump(data_prep(benchmark, *splits, **options)))
    return path


def shards() -> dict[str, bytes]:
    """The two test files of APPS' Parquet form with one row each."""
    made = {}
    for number, file in enumerate(apps.DATASET.files["test"]):
        sink = pa.BufferOutputStream()
        row = {"problem_id": number, **dict.fromkeys(apps.COLUMNS[1:], "text")}
        pq.write_table(pa.Table.from_pylist([row]), sink)
        made[file.path] = sink.getvalue().to_pybytes()
    return made


def test_fetch_downloads_shows_and_locks(server: Hub, tmp_path: Path) -> None:
    server.files = shards()
    chosen = parameter_file(tmp_path, "apps", "test", source="me/mini")
    # TQDM_POSITION -1: bars everywhere.
    done = server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path, TQDM_POSITION="-1")
    assert "[1/2] me/mini@main all/test/0000.parquet" in done.stdout and "[2/2]" in done.stdout
    assert "2 files" in done.stdout and "1 rows" in done.stdout and "100%" in done.stderr
    entries = json.loads((tmp_path / "data/data.lock.json").read_text())["files"]
    assert [entry["file"] for entry in entries] == list(server.files)
    first = server.files["all/test/0000.parquet"]
    assert entries[0] == {
        "origin": "me/mini",
        "revision": "main",
        "commit": server.commit,
        "file": "all/test/0000.parquet",
        "sha256": sha256(first),
        "bytes": len(first),
        "rows": 1,
    }
    server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path)
    assert server.starts == [0, 0]  # the second run downloads nothing


def test_a_locked_branch_may_move(server: Hub, tmp_path: Path) -> None:
    server.files = shards()
    chosen = parameter_file(tmp_path, "apps", "test", source="me/mini")
    server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path)
    server.commit = "e" * 40
    server.files = {name: data + b" " for name, data in server.files.items()}
    script = (
        "from cppo_lib.data import hub\nfrom cppo_lib.data.benchmarks import apps\n"
        "file = apps.DATASET.files['test'][0]\n"
        "print(hub.locate('me/mini', file, dataset=apps.DATASET).revision)"
    )
    assert server.python("-c", script, folder=tmp_path).stdout.split() == ["c0ffee" + "0" * 34]


def test_an_interrupted_fetch_keeps_what_it_has(server: Hub, tmp_path: Path) -> None:
    names = list(shards())
    server.files = {names[0]: shards()[names[0]]}
    chosen = parameter_file(tmp_path, "apps", "test", source="me/mini")
    done = server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path, check=False)
    assert done.returncode == 1 and f"error: the hub has no {names[1]} in me/mini@main" in done.stderr
    entries = json.loads((tmp_path / "data/data.lock.json").read_text())["files"]
    assert [entry["file"] for entry in entries] == names[:1]
    server.files = shards()
    server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path)
    assert server.starts == [0, 0]  # each file once


def test_fetch_without_a_hub_fails_with_one_line(server: Hub, tmp_path: Path) -> None:
    chosen = parameter_file(tmp_path, "apps", "test")
    done = server.python("-m", "cppo_lib.runs.series.fetch", chosen, folder=tmp_path, check=False, HF_HUB_OFFLINE="1")
    (line,) = (line for line in done.stderr.splitlines() if line)
    assert done.returncode == 1 and line.startswith("error: the hub cannot be reached for codeparrot/apps@0f10e424")
    assert "put all/test/0000.parquet, all/test/0001.parquet into a folder" in line


def test_what_a_parameter_file_needs() -> None:
    def paths_of(benchmark: str, *splits: str, **options: object) -> list[str]:
        values = data_prep(benchmark, *splits, **options)
        params = config.validate(DataPrep, values, where="p.yaml")
        assert isinstance(params, DataPrep)
        return [item.file.path for item in fetch.wanted(params)]

    assert paths_of("humaneval") == []
    assert len(paths_of("code_contests")) == 41
    assert paths_of("code_contests", "valid") == [code_contests.DATASET.files["valid"][0].path]
    assert paths_of("livecodebench", release="v5_v6") == ["test5.jsonl", "test6.jsonl"]
    assert paths_of("livecodebench_output") == ["test.parquet"]
    assert paths_of("apps", source=f"codeparrot/apps@{apps.JSONL.revision}") == ["train.jsonl", "test.jsonl"]
    with pytest.raises(ParameterError, match=r"key 'release' is 'v7'; it must be one of release_v1, release_v2"):
        paths_of("livecodebench", release="v7")


def test_a_misspelt_option_downloads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = parameter_file(tmp_path, "apps", "test", sorce="me/mini")
    assert fetch.main([str(chosen)]) == 1
    assert "options of apps: unknown key 'sorce'" in capsys.readouterr().err
    assert fetch.main([str(paths.root() / "params/tiny/02_planner_sft.yaml")]) == 1
    assert "only 01_data_prep needs data" in capsys.readouterr().err


def test_a_profile_without_data_and_one_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["--profile", "tiny"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out
    assert fetch.main(["--profile", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: params/nowhere holds no parameter files to run; choose PROFILE from ablations, ")
    assert said.count("\n") == 1


def test_a_damaged_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPPO_DATA", str(tmp_path))
    assert hub.read_lock() == {}
    (tmp_path / hub.LOCK).write_text('{"files": [{"origin": "x"}]}')
    with pytest.raises(DatasetError, match=r"data.lock.json is damaged .* delete it"):
        hub.read_lock()


# --- reading ----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """100 rows in ten groups."""
    path = tmp_path / "rows.parquet"
    rng = random.Random(1)
    rows = [{"id": number, "text": rng.randbytes(2000).hex(), "more": [number]} for number in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return path


def test_parquet_rows_come_in_order_with_the_asked_columns(table: Path) -> None:
    rows = list(hub.read_parquet(table, ["id", "more"], batch_rows=7))
    assert rows == [{"id": number, "more": [number]} for number in range(100)]


def test_a_missing_column_is_named(table: Path) -> None:
    with pytest.raises(DatasetError, match=r"rows.parquet has no column 'question'; it has id, text, more"):
        list(hub.read_parquet(table, ["id", "question"]))


def test_a_truncated_parquet_file_is_named(table: Path) -> None:
    os.truncate(table, table.stat().st_size // 2)
    with pytest.raises(DatasetError, match=r"rows.parquet: row 0 cannot be read .*: truncated or damaged"):
        list(hub.read_parquet(table, ["id"]))


def test_a_damaged_page_names_the_first_row_that_is_lost(table: Path) -> None:
    group = pq.ParquetFile(table).metadata.row_group(5).column(1)
    data = bytearray(table.read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + 200] = b"\xff" * 200
    table.write_bytes(data)
    rows = hub.read_parquet(table, ["id", "text"], batch_rows=10)
    assert [next(rows)["id"] for _ in range(50)] == list(range(50))
    with pytest.raises(DatasetError, match=r"rows.parquet: row 50 cannot be read"):
        next(rows)


def test_json_lines_are_numbered_and_blank_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n')
    assert list(hub.read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": "\u2028"})]


@pytest.mark.parametrize(
    ("line", "words"),
    [(b'{"a": "cut o', "is not JSON .*truncated"), (b"[1]", "is not a JSON object"), (b'{"a": "\xff"}', "is not JSON")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line)
    with pytest.raises(DatasetError, match=rf"a.jsonl: line 2 {words}"):
        list(hub.read_jsonl(path))


def test_fields_have_a_type() -> None:
    row = {"n": 3, "yes": True, "none": None}
    assert hub.field(row, "n", int, "f: row 1") == 3 and hub.field(row, "none", (str, type(None)), "f") is None
    with pytest.raises(DatasetError, match="f: row 1: no field 'm'; the row has n, yes, none"):
        hub.field(row, "m", int, "f: row 1")
    with pytest.raises(DatasetError, match="f: row 1: field 'yes' is bool, not int"):
        hub.field(row, "yes", int, "f: row 1")
    with pytest.raises(DatasetError, match="f: row 1: field 'n' is int, not str or list"):
        hub.field(row, "n", (str, list), "f: row 1")
