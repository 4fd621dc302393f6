"""What a tuple is paid: the gate J, R_out, R_plan, and the credit of each program."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
