"""The paper's and its authors' published figures, as frozen pydantic models of params/paper/published.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedDesign(_Data):
    """Size and test of the paper's main comparison."""

    models: int
    benchmarks: tuple[str, ...]
    cells: int
    significant_cells: int
    test: str
    level: float


class PublishedCell(_Data):
    """A cell of the main comparison that the abstract states; pass@4 is a fraction."""

    model: str
    benchmark: str
    method: str
    pass_at_4: float = Field(ge=0, le=1)


class PublishedRow(_Data):
    """A row of the paper's result card for CPPO, in percent; None where it gives no figure."""

    benchmark: str
    variant: str
    metric: str
    percent: float | None = Field(ge=0, le=100)


class TableCell(_Data):
    """A cell of the authors' Table 1: pass@4 as a fraction, mean and standard deviation over training seeds.

    Attributes:
        method: the name that the method has here; a method that is not here has the authors' name.
        significant: above the strongest method of the cell that is not CPPO, by the table's test.
    """

    model: str
    benchmark: str
    variant: str
    method: str
    pass_at_4: float = Field(ge=0, le=1)
    std: float = Field(ge=0, le=1)
    significant: bool = False


class PublishedTable(_Data):
    """Table 1 of the README of the authors' code at `commits`; later versions have dropped it."""

    commits: tuple[str, ...]
    seeds: int
    test: str
    cells: tuple[TableCell, ...]


class Published(_Data):
    """params/paper/published.yaml: published figures, for comparison and never for a result."""

    paper: str
    k: int
    design: PublishedDesign
    cells: tuple[PublishedCell, ...]
    card: tuple[PublishedRow, ...]
    table: PublishedTable
