"""The steps of the series: the only code that sees a parameter object."""
