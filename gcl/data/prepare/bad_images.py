"""Images that cannot be used: what becomes of their products (data.bad_images), and the list and the counts of them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.catalog import BadImages
from gcl.data.prepare.rows import Row
from gcl.data.store.records import Record
from gcl.data.tables.masked import masked
from gcl.data.tables.quarantine import Bad
from gcl.schema import Field, Modality
from gcl.table import plain_csv

BAD_IMAGES = "bad_images.csv"
NOTHING_LEFT = "no field but an image that cannot be used"


class Lost(NamedTuple):
    """An image that cannot be used: of which field, and why."""

    field: str
    bad: Bad


class Checked(NamedTuple):
    """A record to store, what it is recognised by, and the images that it is without. It may be without any value."""

    record: Record
    key: bytes
    lost: tuple[Lost, ...] = ()


class ImageList:
    """bad_images.csv, a context manager: table, 1-based data row, id, field, reason, detail. One line per image that
    cannot be used, of each different record."""

    columns = ("table", "row", "id", "field", "reason", "detail")

    def __init__(self, path: Path, rule: BadImages):
        self.path, self.rule = path, rule
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.records: dict[str, Counter[str]] = defaultdict(Counter)  # by field: given, absent, several, most
        self._first: dict[str, str] = {}

    def __enter__(self) -> ImageList:
        self._file = open(self.path, "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.columns)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def judge(self, row: Row, checked: Checked) -> Bad | None:
        """Why a row whose images were looked at is left out; None where it stays. Raises ValueError under "refuse"."""
        if not checked.lost:
            return None
        field, bad = checked.lost[0]
        if self.rule == BadImages.refuse:
            raise ValueError(
                f"{_place(row)}: {masked(str(bad))} ({field}). data.bad_images is refuse, so this stops everything: "
                "fix the image, or set data.bad_images=absent to go on without it."
            )
        absent = [(name, why) for name, why in checked.lost if checked.record[name] is None]
        if absent and self.rule == BadImages.drop:
            (name, bad), *_ = absent
            return bad if len(checked.record) == 1 else Bad(bad.reason, f"{name}: {bad.detail}")
        if not any(checked.record.values()):
            return Bad(NOTHING_LEFT, f"{field}: {bad}")
        return None

    def note(self, side: str, fields: Mapping[str, Field], row: Row, checked: Checked) -> None:
        """Counts the images of a record that was not seen before, and lists those that cannot be used."""
        for name, spec in fields.items():
            images = row.cells.get(name)
            if spec.modality is Modality.image and images:
                records, number = self.records[f"{side}.{name}"], len(images) if isinstance(images, tuple) else 1
                records["given"] += 1
                records["absent"] += checked.record[name] is None
                records["several"] += number > 1
                records["most"] = max(records["most"], number)
        for name, bad in checked.lost:
            self.add(f"{side}.{name}", row.file, row.number, row.identifier, bad)

    def add(self, field: str, file: Path, row: int, identifier: str | None, bad: Bad) -> None:
        """Lists one image."""
        self.reasons[field][bad.reason] += 1
        detail = masked(bad.detail)
        self._first.setdefault(field, f"{file.name}, row {row}: {bad.reason}{detail and ': '}{detail}")
        self._writer.writerow(
            plain_csv(cell) for cell in (file.name, row, identifier or "", field, bad.reason, detail)
        )  # fmt: skip

    def check(self, side: str, *, report_at: Path) -> None:
        """Raises ValueError where a field has images and none of them can be used: that is a mistake of the catalog,
        not of a few products. `report_at`: where the list will be."""
        for field, records in self.records.items():
            if field.startswith(f"{side}.") and records["absent"] == records["given"]:
                self._file.flush()
                worst = "; ".join(f"{reason}: {count:,}" for reason, count in self.reasons[field].most_common(5))
                raise ValueError(
                    f"None of the {records['given']:,} images of data.{field} can be used. Most frequent reasons: "
                    f"{worst}. The first: {self._first[field]}. All are listed in {report_at}. Fix them, or leave the "
                    f"field out: '~data.{field}'."
                )

    def counts(self) -> dict[str, Any]:
        """{"images": {field: {"given": n, "absent": n, "several": n, "most": n}}, "bad_images": {field: {reason: n}}}.
        given: different records that name an image; several: those that name more than one, at most `most`."""
        return {
            "images": {field: dict(records) for field, records in self.records.items()},
            "bad_images": {field: dict(reasons.most_common()) for field, reasons in self.reasons.items()},
        }


def summary(counts: Mapping[str, Any], fields: Mapping[str, Field], place: Path) -> list[str]:
    """What `counts` say of images, in lines for people. fields: by side and name, as in the counts."""
    lines = []
    for field, records in counts.get("images", {}).items():
        reasons = counts["bad_images"].get(field)
        if reasons:
            said = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            lines.append(
                f"images of {field} that cannot be used: {said}; {records['absent']:,} of {records['given']:,} records "
                f"are without it; see {place / BAD_IMAGES}"
            )
        if records["several"] and not fields[field].is_set:
            lines.append(
                f"{records['several']:,} of {records['given']:,} records name several images in {field}, up to "
                f"{records['most']:,}: the first is taken (data.{field}.images=all takes all)"
            )
    return lines


def _place(row: Row) -> str:
    return f"{row.file.name}, row {row.number}{f', {row.identifier!r}' if row.identifier else ''}"
