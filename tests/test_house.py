"""The layout: packages, walls and front doors, and pages that name what is there."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "cppo_lib"
PAGES = ("docs/ARCHITECTURE.md", "docs/CONTRIBUTING.md", "docs/paper_index.md", "README.md")
DOORS = sorted(str(path.parent.relative_to(ROOT)).replace("/", ".") for path in LIBRARY.rglob("__init__.pyi"))


def test_the_library_is_at_most_ten_packages_of_twelve_files():
    beside = {path.name for path in LIBRARY.iterdir() if path.name != "__pycache__"}
    packages = {name for name in beside if (LIBRARY / name).is_dir()}
    assert beside - packages == {"__init__.py", "errors.py", "py.typed"} and len(packages) <= 10
    folders = {path.parent for path in LIBRARY.rglob("*.py")} - {LIBRARY}
    assert {folder: count for folder in folders if (count := len(list(folder.glob("*.py")))) > 12} == {}


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        (
            "data/problem.py",
            "from cppo_lib.report import results",
            "cppo_lib.data is not allowed to import cppo_lib.report",
        ),
        ("verifier/child/wire.py", "import numpy", "cppo_lib.verifier.child is not allowed to import numpy"),
        ("evaluation/bootstrap.py", "import torch", "cppo_lib.evaluation is not allowed to import torch"),
    ],
)
def test_a_wall_that_is_broken_fails_the_lint(tmp_path, file, line, said):
    shutil.copytree(LIBRARY, tmp_path / "cppo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    before = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert before.returncode == 0, before.stdout
    with (tmp_path / "cppo_lib" / file).open("a") as module:
        module.write(f"\n\ndef broken():\n    {line}\n")
    after = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert after.returncode == 1 and said in after.stdout, after.stdout


def test_front_doors_open():
    assert len(DOORS) >= 7
    for door in DOORS:
        package = importlib.import_module(door)
        for name in package.__all__:
            # A module of the same name would come in place of what the door offers, once something imports it.
            assert not (ROOT / door.replace(".", "/") / f"{name}.py").exists(), f"{door}.{name}"
            assert getattr(package, name) is not None


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:cppo_lib|params|docs|tests|speed|notebooks)/[\w./-]*)`", text):
        assert (ROOT / path).exists() or "followed_credit" in path or "NAME" in path or "PROFILE" in path, path
    for dotted in re.findall(r"`(cppo_lib(?:\.\w+)+)`", text):
        found, name = None, dotted
        while found is None:
            try:
                found = importlib.import_module(name)
            except ModuleNotFoundError:
                name = name.rpartition(".")[0]
        for part in dotted.removeprefix(name).strip(".").split("."):
            found = getattr(found, part) if part else found
