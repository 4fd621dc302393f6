"""From rewards to a training step: advantages of both regions, on TRL's GRPOTrainer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
