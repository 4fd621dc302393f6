from .problem import Problem as Problem
from .problem import Test as Test
from .registry import BENCHMARKS as BENCHMARKS
from .registry import load_benchmark as load_benchmark
from .registry import stream_benchmark as stream_benchmark
