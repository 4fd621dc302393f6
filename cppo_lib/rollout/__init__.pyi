from .plans import ParsedTuple as ParsedTuple
from .plans import parse_tuple as parse_tuple
from .procedures import PROCEDURES as PROCEDURES
from .prompts import PromptStyle as PromptStyle
from .two_stage import Member as Member
from .two_stage import rollout as rollout
