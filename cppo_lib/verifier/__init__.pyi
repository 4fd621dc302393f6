from .verifier import Result as Result
from .verifier import Verifier as Verifier
