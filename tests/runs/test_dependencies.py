"""Which files of the library a notebook's results follow from, also through the front doors of packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from suite import Suite

from cppo_lib.artefacts import paths
from cppo_lib.runs import dependencies

FRONT = """import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
"""
TOY = {
    "__init__.py": "",
    "rollout/__init__.py": FRONT,
    "rollout/__init__.pyi": "from .two_stage import rollout as rollout\nfrom .prompts import Style as PromptStyle\n",
    "rollout/two_stage.py": "from cppo_lib.rollout import tuples\nfrom . import prompts\n",
    "rollout/tuples.py": "from ..data import Problem\n",
    "rollout/prompts.py": "",
    "rollout/planning.py": "run(['python', '-m', 'cppo_lib.child.zygote'])\n",
    "data/__init__.py": FRONT,
    "data/__init__.pyi": "from .kinds import Problem as Problem\n",
    "data/kinds/__init__.py": FRONT,
    "data/kinds/__init__.pyi": "from .problem import Problem as Problem\n",
    "data/kinds/problem.py": "class Problem: ...\n",
    "data/hub.py": "",
    "child/__init__.py": "",
    "child/zygote.py": "",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library whose packages have front doors."""
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    for name, text in TOY.items():
        path = tmp_path / "cppo_lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "cppo_lib"


def files(toy: Path, source: str, folder: str = "") -> set[str]:
    """The files that a source names, but for the packages' own."""
    found = {str(path.relative_to(toy)) for path in dependencies.imported(source, toy / folder)}
    return {name for name in found if not name.endswith("__init__.py")}


def test_a_name_at_a_front_door_counts_as_its_own_file(toy):
    assert files(toy, "from cppo_lib.rollout import rollout") == {"rollout/two_stage.py"}
    assert files(toy, "from cppo_lib.rollout import PromptStyle as P, planning") == {
        "rollout/prompts.py", "rollout/planning.py"
    }  # fmt: skip
    assert files(toy, "from cppo_lib.rollout.tuples import Member\nimport numpy") == {"rollout/tuples.py"}
    assert files(toy, "import cppo_lib.rollout.tuples as t") == {"rollout/tuples.py"}


def test_front_doors_may_lead_to_others_and_a_new_way_is_another_file(toy):
    assert files(toy, "from cppo_lib.data import Problem") == {"data/kinds/problem.py"}
    (toy / "data" / "__init__.pyi").write_text("from .hub import Problem as Problem\n")
    dependencies.front_door.cache_clear()
    assert files(toy, "from cppo_lib.data import Problem") == {"data/hub.py"}


def test_relative_imports_start_at_the_folder_of_the_file(toy):
    assert files(toy, "from . import prompts\nfrom .tuples import y", "rollout") == {
        "rollout/prompts.py", "rollout/tuples.py"
    }  # fmt: skip
    assert files(toy, "from ..data import Problem", "rollout") == {"data/kinds/problem.py"}
    assert files(toy, "from ..hub import x", "data/kinds") == {"data/hub.py"}


def test_a_module_that_is_started_by_name_is_counted(toy):
    assert files(toy, "run(['python', '-m', 'cppo_lib.child.zygote'])") == {"child/zygote.py"}
    assert files(toy, "%run cppo_lib.child.zygote\nprint('see cppo_lib.child.zygote')") == set()


def test_dependencies_follow_imports_and_leave_out_what_changes_no_result(tmp_path, monkeypatch):
    suite = Suite(tmp_path)
    monkeypatch.setattr(paths, "root", lambda: suite.root)
    dependencies.modules_of.cache_clear()
    training = {path.name for path in dependencies.modules_of("03_rl_training", "crossroads")}
    tables = {path.name for path in dependencies.modules_of("05_paper_tables", "crossroads")}
    dependencies.modules_of.cache_clear()
    assert tables - training == {"toy.py"}
    assert {"crossroads.py", "problem.py"} <= training
    assert not {"store.py", "config.py", "cli.py"} & tables


def test_training_does_not_follow_from_how_results_are_shown_and_runs_are_kept():
    training = {str(path.relative_to(paths.root())) for path in dependencies.modules_of("03_rl_training", "crossroads")}
    assert {"cppo_lib/runs/stages/rl_training.py", "cppo_lib/trainer/cppo_trainer.py"} <= training
    assert not [name for name in training if name.startswith(("cppo_lib/report/", "cppo_lib/artefacts/"))]
    kept = [name for name in training if name.startswith("cppo_lib/runs/")]
    assert all(name.startswith("cppo_lib/runs/stages/") for name in kept)
    shown = {str(path.relative_to(paths.root())) for path in dependencies.modules_of("06_figures", "crossroads")}
    assert any(name.startswith("cppo_lib/report/figures/") for name in shown)


def whole_packages(source: str, folder: Path) -> Iterator[str]:
    """Packages of the library that a source imports whole, so that nothing says which of their files it uses."""
    for node in dependencies.nodes(source):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = dependencies._module(node, folder)
            door = dependencies.front_door(paths.root().joinpath(*module))
            names = [(*module, *alias.name.strip("*").split()) for alias in node.names if alias.name not in door]
        else:
            continue
        for name in names:
            if name[0] == "cppo_lib" and (paths.root().joinpath(*name) / "__init__.py").is_file():
                yield ".".join(name)


def test_whole_packages_are_seen(toy):
    for source in ("import cppo_lib.rollout", "from cppo_lib import data", "from cppo_lib.rollout import *"):
        assert list(whole_packages(source, toy)), source
    assert list(whole_packages("from . import kinds", toy / "data")) == ["cppo_lib.data.kinds"]
    assert not list(whole_packages("from cppo_lib.rollout import rollout, tuples\nimport cppo_lib.data.hub", toy))


def test_nobody_imports_a_whole_package():
    root = paths.root()
    texts = {path: path.read_text() for path in sorted((root / "cppo_lib").rglob("*.py"))}
    texts |= {path: dependencies.code_of(path.stem) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    found = {
        str(path.relative_to(root)): names for path in texts if (names := [*whole_packages(texts[path], path.parent)])
    }
    assert found == {}
