"""Every notebook under nbval: run at its smoke defaults, checked cells compared with what is committed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cppo_lib.artefacts import paths
from cppo_lib.runs.series import runner


def test_notebooks_run_and_print_what_is_committed(runs: Path) -> None:
    """In order and in one process, each on what the ones before it wrote into a folder of their own."""
    notebooks = sorted((paths.root() / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 11
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-sanitize-with", "tests/notebooks/nbval_sanitize.cfg", "--nbval-cell-timeout", "300"]
    environment = os.environ | runner.KERNEL_ENV | {"CPPO_RUNS": str(runs)}
    done = subprocess.run([*command, *map(str, notebooks)], cwd=paths.root(), env=environment)
    assert done.returncode == 0  # its report stands above
