"""One small file per benchmark; each has `load(split, **options) -> list[Problem]`."""
