"""What the API returns in rows, as the tables of other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Tabular:
    """Rows that become a DataFrame. Whatever reads Arrow takes the object itself: polars.DataFrame(result)."""

    def to_dicts(self) -> Sequence[Mapping[str, Any]]:
        """The rows, {column: value}."""
        raise NotImplementedError

    def to_arrow(self) -> Any:
        """A pyarrow.Table."""
        from gcl.data.tables.frame import arrow_table

        return arrow_table(list(self.to_dicts()))

    def to_pandas(self) -> Any:
        """A pandas.DataFrame."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """A polars.DataFrame."""
        import polars

        return polars.from_arrow(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)
