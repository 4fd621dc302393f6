"""Runs programs on tests in isolated processes; see `verifier` and docs/verifier.md."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
