from .procedures import PROCEDURES as PROCEDURES
from .prompts import ParsedTuple as ParsedTuple
from .prompts import PromptStyle as PromptStyle
from .prompts import parse_tuple as parse_tuple
from .two_stage import Member as Member
from .two_stage import rollout as rollout
