"""Per-attempt records and what follows from them: pass@k, intervals, tests, diversity."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
