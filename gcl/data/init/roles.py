"""What the columns of a table are, by their names and by what is in them, and which table of a catalog it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcl.data.init.look import Column, Looked
from gcl.data.init.names import fit, plain
from gcl.data.tables.image_paths import spellings
from gcl.data.tables.images import is_url

_PATHS_LOOKED_AT = 40
_BESIDE = ("thumb", "small", "swatch", "icon", "logo", "label", "alt", "flag")  # images of something else, or smaller
_PLAIN_LINKS = ("url", "path", "file", "filename", "media", "link")
_LOOSE = ("keyword", "keywords", "term", "phrase", "q", "search")  # which a table of products has, too
_FOLDERS = ("images", "image", "img", "bilder", "pictures", "photos", "media", "product_images", "uploads", "pics")
_JUDGED = ("test", "qrel", "judg", "eval", "ground", "valid", "dev")


@dataclass
class Products:
    """A table with one row for each product, and which columns are what; None: it has no such column."""

    looked: Looked
    id: str | None = None
    parent: str | None = None
    title: str | None = None
    description: str | None = None
    images: list[str] = field(default_factory=list)
    language: str | None = None
    price: str | None = None
    attributes: list[str] = field(default_factory=list)
    repeated: bool = False
    """An id has several rows with other content."""

    @property
    def shown(self) -> int:
        """How many of title, images and description there are."""
        return bool(self.title) + bool(self.images) + bool(self.description)

    def column(self, name: str | None) -> Column | None:
        return self.looked.columns.get(name) if name else None


@dataclass
class Searches:
    """A table with a search in each row, or the id of one: pairs, a log, queries, or judgments."""

    looked: Looked
    query: str | None = None
    query_id: str | None = None
    document: str | None = None
    score: str | None = None
    position: str | None = None
    clicks: str | None = None
    impressions: str | None = None
    purchases: str | None = None
    split: str | None = None
    kind: str | None = None

    @property
    def is_judged(self) -> bool:
        """Whether the name says that these are judgments to measure with."""
        return any(word in self.looked.name.lower() for word in _JUDGED)


def best(
    looked: Looked, role: str, fits: Callable[[Column], bool], *, least: float = 0.3, but: Sequence[str | None] = ()
) -> str | None:
    """The column whose name says the role best, of those that `fits` accepts."""
    named = [(fit(name, role), -place, name) for place, (name, column) in enumerate(looked.columns.items())
             if name not in but and column.cells and fits(column)]  # fmt: skip
    score, _, name = max(named, default=(0.0, 0, ""))
    return name if score >= least else None


def is_image(column: Column) -> bool:
    if not column.cells or any(word in plain(column.name) for word in _BESIDE):
        return False
    if column.images >= 0.5:
        return True
    linked = column.urls >= 0.5 or column.several > 0.1
    return linked and fit(column.name, "image") >= 0.6 and plain(column.name) not in _PLAIN_LINKS


def is_identifier(column: Column) -> bool:
    is_short = column.urls < 0.5 and column.share(_is_short) >= 0.95
    return (
        column.filled >= 0.95 and not is_image(column) and (is_short or fit(column.name, "id") >= 0.85)
        and not column.share(lambda text: text.replace(",", ".").count(".") == 1 and text[-3:-2] in ",.") > 0.5
    )  # fmt: skip


def _is_short(text: str) -> bool:
    return len(text) <= 64 and text.count(" ") <= 2


def is_text(column: Column) -> bool:
    return column.urls < 0.5 and not is_image(column) and column.decimal is None and bool(column.texts)


def _is_title(column: Column) -> bool:
    return is_text(column) and column.words < 40 and (column.html < 0.5 or fit(column.name, "title") > 0.8)


def find_products(looked: Looked) -> Products:
    """All but the id, which depends on the other tables."""
    found = Products(looked)
    found.images = _images(looked)
    found.title = best(looked, "title", _is_title)
    if found.title is None:
        texts = [column for column in looked.columns.values()
                 if is_text(column) and 1.5 <= column.words <= 25 and column.html < 0.3
                 and column.distinct > 0.3]  # fmt: skip
        longest = max(texts, key=lambda column: column.distinct * min(column.words, 8), default=None)
        found.title = longest.name if longest else None
    found.description = best(
        looked, "description", lambda column: is_text(column) and column.words > 1.5, but=[found.title]
    )
    if found.description is None:
        long = [column for column in looked.columns.values()
                if is_text(column) and column.words >= 8 and column.name != found.title
                and not fit(column.name, "query")]  # fmt: skip
        longest = max(long, key=lambda column: column.words, default=None)
        found.description = longest.name if longest else None
    found.language = best(looked, "language", lambda column: column.words < 1.5, least=0.6)
    found.price = best(looked, "price", lambda column: column.decimal is not None, least=0.4)
    taken = [found.title, found.description]
    for role in ("brand", "category", "color"):
        name = best(looked, role, is_text, least=0.5, but=[*taken, *found.attributes])
        found.attributes += [name] if name else []
    return found


def products_in(pairs: Searches | None) -> Products:
    """The products that a table of pairs itself holds."""
    assert pairs is not None
    found = find_products(pairs.looked)
    found.title = None if found.title in (pairs.query, pairs.score) else found.title
    found.description = None if found.description == pairs.query else found.description
    return found


def _images(looked: Looked) -> list[str]:
    """Columns of images, the one whose name says it best first."""
    names = [name for name, column in looked.columns.items() if is_image(column)]
    first = max(names, key=lambda name: (fit(name, "image"), -names.index(name)), default=None)
    if first is None:
        return []
    cells = set(map(str, looked.columns[first].cells))
    others = [name for name in names if name != first and not set(map(str, looked.columns[name].cells)) <= cells]
    return [first, *others]


def choose_id(products: Products, asked: Sequence[Searches]) -> None:
    """The column that tells products apart: the one whose ids the other tables name, or the surest name that is unique
    in all rows. Also what groups variants, and whether an id is repeated with other content."""
    looked = products.looked
    likely = [name for name, column in looked.columns.items() if is_identifier(column)]
    likely.sort(key=lambda name: -fit(name, "id"))
    named = [name for name in likely if fit(name, "id") > 0] or [
        name for name in likely if name not in (products.title, *products.attributes)
    ]
    if not named:
        return
    joined = {name: _joined(looked, name, asked) for name in likely[:12]} if asked else {}
    most = max(joined.values(), default=0.0)
    if most >= 0.2:
        named = [name for name in joined if joined[name] >= 0.9 * most]
    products.id = next((name for name in named[:6] if looked.is_unique(name)), named[0])
    others = [name for name in (products.title, products.description, *products.images[:1]) if name]
    texts = [
        name for name in others if not any(isinstance(cell, bytes | list) for cell in looked.columns[name].cells[:20])
    ]
    products.repeated = not looked.is_unique(products.id) and looked.contradicts(products.id, texts)
    products.parent = _parent(products)


def _joined(looked: Looked, name: str, asked: Sequence[Searches]) -> float:
    """Share of the ids that another table names which are in this column."""
    shares = [looked.holds(name, table.looked.columns[table.document].texts[:500]) for table in asked if table.document]
    return max(shares, default=0.0)


def _parent(products: Products) -> str | None:
    looked = products.looked
    name = best(looked, "parent", is_identifier, least=0.5, but=[products.id, products.title])
    if name is None:
        name = next(
            (name for name in looked.columns if plain(name) in ("handle", "slug") and name != products.id), None
        )
    if name is None:
        return None
    column = looked.columns[name]
    return name if 0.02 <= column.distinct < 1 else None


def find_searches(looked: Looked, products: Products | None) -> Searches:
    """Which columns hold searches, and which the ids of products."""
    found = Searches(looked)
    found.query_id = best(looked, "query_id", is_identifier, least=0.5)
    for role in ("position", "clicks", "impressions", "purchases"):
        setattr(found, role, best(looked, role, lambda column: column.decimal is not None, least=0.5))
    found.document = _document(looked, products, but=[found.query_id])
    found.query = best(
        looked, "query", lambda column: column.urls < 0.5 and column.distinct > 0, but=[found.query_id, found.document]
    )
    if found.query is None:
        texts = [column for column in looked.columns.values()
                 if column.name not in (found.query_id, found.document) and is_text(column)
                 and column.words >= 1.2]  # fmt: skip
        longest = max(texts, key=lambda column: column.words, default=None)
        found.query = longest.name if longest else None
    taken = [found.query, found.query_id, found.document]
    grades = [*taken, *([found.position] if found.clicks and found.position else [])]
    found.score = best(looked, "score", lambda column: column.decimal is not None or column.distinct < 0.2, but=grades)
    if found.score is None and found.document:
        numbers = [column.name for column in looked.columns.values()
                   if column.name not in grades and column.decimal is not None
                   and not fit(column.name, "id")]  # fmt: skip
        found.score = numbers[0] if len(numbers) == 1 else None
    found.split = next((name for name in looked.columns if plain(name) in ("split", "part", "set", "fold")), None)
    found.kind = next((name for name in looked.columns if plain(name) in ("kind", "type", "task", "query_type")), None)
    return found


def _document(looked: Looked, products: Products | None, but: Sequence[str | None]) -> str | None:
    likely = [column for column in looked.columns.values() if is_identifier(column) and column.name not in but]
    if products is not None:
        places = [column for column in products.looked.columns.values() if is_identifier(column)][:12]
        shares = {
            column.name: max((products.looked.holds(place.name, column.texts[:500]) for place in places), default=0.0)
            for column in likely
        }
        surest = max(shares, key=lambda name: shares[name] * (0.5 + fit(name, "id")), default=None)
        if surest is not None and shares[surest] >= 0.2:
            return surest
    return best(looked, "id", is_identifier, least=0.5, but=but)


def is_products(looked: Looked) -> bool:
    """Whether a table's columns are those of products, not of searches."""
    if looked.layout is not None:
        return True
    names = list(looked.columns)
    asked = [name for name in names if fit(name, "query") >= 0.5 and (plain(name) not in _LOOSE)]
    if asked or any(fit(name, "query_id") >= 0.5 for name in names):
        return False
    loose = any(fit(name, "query") >= 0.5 for name in names)
    return find_products(looked).shown >= (2 if loose else 1)


def image_root(products: Products, folder: Path, kept: Sequence[str]) -> tuple[Path | None, float]:
    """(the folder that image paths start from, None: the table's own; share of the paths looked at that are files).
    kept: where the shop's system keeps its files."""
    paths = [cell for name in products.images for cell in _paths(products.looked.columns[name])][:_PATHS_LOOKED_AT]
    if not paths:
        return None, 1.0

    def share(place: Path) -> float:
        return sum(any(one.is_file() for one in spellings(path.strip(), place)) for path in paths) / len(paths)

    own = share(folder)
    if own > 0.5:
        return None, own
    near = [entry for entry in sorted(folder.iterdir()) if entry.is_dir()][:50] if folder.is_dir() else []
    places = [folder / name for name in (*kept, *_FOLDERS)] + [folder.parent / name for name in (*kept, *_FOLDERS)]
    shares = {
        place: share(place) for place in dict.fromkeys([*places, *near, folder.parent, Path.cwd()]) if place.is_dir()
    }
    most = max(shares, key=shares.__getitem__, default=None)
    return (most, shares[most]) if most is not None and shares[most] > max(own, 0.2) else (None, own)


def _paths(column: Column) -> list[str]:
    found = []
    for cell in column.cells[:_PATHS_LOOKED_AT]:
        for part in cell if isinstance(cell, list) else [cell]:
            if isinstance(part, str) and not is_url(part) and not part.startswith(("//", "[")):
                found.append(part.split(column.separator)[0].strip() if column.separator else part.strip())
                break
    return found
