"""Usable cores: those of the affinity, as far as the cgroups' quota goes; and everything asks there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cppo_lib.verifier.cores import usable_cores

REPOSITORY = Path(__file__).resolve().parents[2]
SAYS = """
from cppo_lib.evaluation import programs
from cppo_lib.runs.series import cli as series
from cppo_lib.runs.stages import references
from cppo_lib.verifier import cores
from cppo_lib.verifier import Verifier
print(cores.usable_cores(), series.side_by_side())
"""


def test_one_core_of_the_affinity_is_one_core() -> None:
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{one}}})\n{SAYS}"],
        capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1"], done.stderr


def described(folder: Path, cgroup: str, mount: str, **limits: str) -> Path:
    """What the system would say of a process: its cgroups, one mount (with FOLDER for the top), files below it."""
    for name, text in limits.items():
        file = folder / "top" / name.replace("__", "/").replace("cpu_", "cpu.", 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text("22 1 0:5 / /proc rw - proc proc rw\n" + mount.replace("FOLDER", f"{folder}/top"))
    return folder


V2 = "41 31 0:38 / FOLDER rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 / FOLDER rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
PERIOD = "100000\n"


@pytest.mark.parametrize(
    ("cgroup", "mount", "limits", "cores"),
    [
        ("0::/a/b\n", V2, {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "100000 100000\n"}, 1),  # one above pays
        ("0::/\n", V2, {"cpu_max": "50000 100000\n"}, 1),  # half a core is one
        ("0::/\n", V2, {"cpu_max": "max 100000\n"}, 64),
        ("0::/a\n", V2, {"a__cpu_max": "250000 100000\n"}, 3),
        ("4:cpu,cpuacct:/a\n0::/\n", V1, {"a__cpu_cfs_quota_us": "200000\n", "a__cpu_cfs_period_us": PERIOD}, 2),
        ("4:cpu,cpuacct:/a\n0::/\n", V1, {"a__cpu_cfs_quota_us": "-1\n", "a__cpu_cfs_period_us": PERIOD}, 64),
        # A container that is shown the host's path, and its own cgroup as the top
        (
            "4:cpu,cpuacct:/docker/1\n",
            V1.replace("0:29 /", "0:29 /docker/1"),
            {"cpu_cfs_quota_us": "100000\n", "cpu_cfs_period_us": PERIOD},
            1,
        ),
        ("4:memory:/a\n", "32 31 0:29 / FOLDER rw - cgroup cgroup rw,memory\n", {}, 64),
    ],
)
def test_a_quota_counts_where_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, mount: str, limits: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores(described(tmp_path, cgroup, mount, **limits)) == cores


def test_a_system_without_cgroups_has_the_cores_of_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_nothing_counts_cores_by_itself() -> None:
    """The host's number is another on a shared machine; the benchmarks ask here too."""
    asks = re.compile(r"(os|multiprocessing|psutil)\.cpu_count\(|len\(os\.sched_getaffinity")
    files = [path for folder in ("cppo_lib", "speed", "tests") for path in (REPOSITORY / folder).rglob("*.py")]
    own = {"cores.py", "test_cores.py"}
    assert [path.name for path in files if path.name not in own and asks.search(path.read_text("utf-8"))] == []
