"""The paper's published figures, as frozen pydantic models of params/paper/published.yaml."""

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


class Published(_Data):
    """params/paper/published.yaml: the paper's figures, for comparison and never for a result."""

    paper: str
    k: int
    design: PublishedDesign
    cells: tuple[PublishedCell, ...]
    card: tuple[PublishedRow, ...]
