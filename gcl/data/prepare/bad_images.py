"""Images that cannot be used: what becomes of their products (data.bad_images), and the list and the counts of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.catalog import BadImages
from gcl.data.masked import masked
from gcl.data.prepare.placeholders import find_placeholders, is_called_so
from gcl.data.prepare.rows import Row
from gcl.data.store.records import Record
from gcl.data.store.remote_shards import RemoteShard
from gcl.data.store.shard_writer import make_absent
from gcl.data.store.store import RecordStore
from gcl.data.tables.quarantine import Bad, Quarantine, most_frequent
from gcl.schema import Field, Modality, fields_of
from gcl.table import ListFile

BAD_IMAGES = "bad_images.csv"
NOTHING_LEFT = "no field but an image that cannot be used"


class Lost(NamedTuple):
    """An image that cannot be used: of which field, and why."""

    field: str
    bad: Bad


class Checked(NamedTuple):
    """A record to store, what it is recognised by, and the images that it is without. It may be without any value.
    hashes: content hashes of images, by field, that need not be computed."""

    record: Record
    key: bytes
    lost: tuple[Lost, ...] = ()
    hashes: Mapping[str, Sequence[bytes]] = {}


Places = Callable[[int], tuple[Path, int]]


class ImageList(ListFile):
    """bad_images.csv, a context manager: table, 1-based data row, id, field, reason, detail. One line per image that
    cannot be used, of each different record. It lies beside the quarantine."""

    def __init__(self, quarantine: Quarantine, rule: BadImages):
        super().__init__(quarantine.path.with_name(BAD_IMAGES), ("table", "row", "id", "field", "reason", "detail"))
        name = quarantine.report_at.name.replace(quarantine.path.name, BAD_IMAGES)
        self.rule, self._report_at = rule, quarantine.report_at.with_name(name)
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.records: dict[str, Counter[str]] = defaultdict(Counter)  # by field: given, absent, several, most
        self.called_so: dict[str, list[int]] = defaultdict(list)  # by field: rows of images called like placeholders
        self._first: dict[str, str] = {}

    def judge(self, row: Row, checked: Checked) -> Bad | None:
        """Why a row whose images were looked at is left out; None where it stays. Raises ValueError under "refuse"."""
        if not checked.lost:
            return None
        field, bad = checked.lost[0]
        self.check_rule(field, row.file, row.number, row.identifier, bad)
        absent = [(name, why) for name, why in checked.lost if checked.record[name] is None]
        if absent and self.rule == BadImages.drop:
            (name, bad), *_ = absent
            return bad if len(checked.record) == 1 else Bad(bad.reason, f"{name}: {bad.detail}")
        if not any(checked.record.values()):
            return Bad(NOTHING_LEFT, f"{field}: {bad}")
        return None

    def note(self, side: str, fields: Mapping[str, Field], row: Row, checked: Checked, number: int | None) -> None:
        """Counts the images of a record that was not seen before, and lists those that cannot be used. number: its row
        in the store, if it is stored."""
        for name in fields_of(fields, Modality.image):
            if images := row.cells.get(name):
                records = self.records[f"{side}.{name}"]
                images = images if isinstance(images, tuple) else (images,)
                several = len(images)
                records["given"] += 1
                records["absent"] += checked.record[name] is None
                records["several"] += several > 1
                records["most"] = max(records["most"], several)
                if number is not None and is_called_so(images[0]):
                    self.called_so[f"{side}.{name}"].append(number)
        for name, bad in checked.lost:
            self.add(f"{side}.{name}", row.file, row.number, row.identifier, bad)

    def add(self, field: str, file: Path | RemoteShard, row: int, identifier: str | None, bad: Bad) -> None:
        """Lists one image."""
        self.reasons[field][bad.reason] += 1
        detail = masked(bad.detail)
        self._first.setdefault(field, f"{file.name}, row {row}: {bad.reason}{detail and ': '}{detail}")
        self.write(file.name, row, identifier or "", field, bad.reason, detail)

    def leave_out_placeholders(self, folder: Path, fields: Mapping[str, Field], places: Places) -> None:
        """Makes the placeholders of the stored documents absent, as images that cannot be used. places: (file, row) of
        each record. Raises ValueError under "refuse"."""
        absent: dict[str, list[int]] = defaultdict(list)
        if not (images := fields_of(fields, Modality.image)):
            return
        store = RecordStore(folder, "documents", fields)
        for name in images:
            for found in find_placeholders(store, name, self.called_so[f"document.{name}"]):
                bad = Bad("placeholder", found.why)
                for row in found.rows.tolist():
                    file, number = places(row)
                    self.check_rule(name, file, number, None, bad)
                    self.add(f"document.{name}", file, number, store.ids[row], bad)
                self.records[f"document.{name}"]["absent"] += len(found.rows)
                absent[name] += found.rows.tolist()
        if absent:
            make_absent(folder / "documents.parquet", absent)

    def check_rule(self, field: str, file: Path | RemoteShard, row: int, identifier: str | None, bad: Bad) -> None:
        """Raises ValueError under "refuse", for an image that cannot be used."""
        if self.rule == BadImages.refuse:
            named = f", {identifier!r}" if identifier else ""
            raise ValueError(
                f"{file.name}, row {row}{named}: {masked(str(bad))} ({field}). data.bad_images is refuse, so this stops"
                " everything: fix the image, or set data.bad_images=absent to go on without it."
            )

    def check(self, side: str) -> None:
        """Raises ValueError where a field has images and none of them can be used: that is a mistake of the catalog,
        not of a few products."""
        for field, records in self.records.items():
            if field.startswith(f"{side}.") and records["absent"] == records["given"]:
                raise ValueError(
                    f"None of the {records['given']:,} images of data.{field} can be used. Most frequent reasons: "
                    f"{most_frequent(self.reasons[field])}. The first: {self._first[field]}. All are listed in "
                    f"{self._report_at}. Fix them, or leave the field out: '~data.{field}'."
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
