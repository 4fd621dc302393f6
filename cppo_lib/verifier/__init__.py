"""Runs programs on tests in isolated processes; see `judge` and docs/verifier.md."""

from cppo_lib.verifier.verifier import Result, Verifier

__all__ = ["Result", "Verifier"]
