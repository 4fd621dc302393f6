"""What tests of training steps share: a running verifier and a small policy's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_policy

from cppo_lib.verifier import Verifier


@pytest.fixture(scope="module")
def verifier():
    with Verifier() as running:
        yield running


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory) -> Path:
    return small_policy.save(tmp_path_factory.mktemp("policy") / "tiny")
