"""Parameters, what each run is made from, and the series of runs."""
