"""`python -m cppo_lib.runs.series`: the command line of the series."""

import sys

from cppo_lib.runs.series.cli import main

sys.exit(main())
