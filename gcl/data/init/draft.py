"""Files -> the YAML of a catalog: looked at, each table and column taken for what it seems, and written with why.

1. `inputs`: which files there are; 2. `look`: a sample of each, an export translated first; 3. `roles`: which table is
which, and what their columns are; 4. here: the lines of the YAML, each with its reason
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gcl.data.catalog import BACKSLASH, MISSING_WORDS
from gcl.data.init.grades import grades_of
from gcl.data.init.inputs import Input
from gcl.data.init.look import Column, Looked
from gcl.data.init.page import NULL, Draft, Page, Reference, flow
from gcl.data.init.roles import Products, Searches, image_root, products_in
from gcl.data.init.tables import Tables, sort_tables
from gcl.data.masked import masked
from gcl.data.tables.cells import FILLERS


def draft_tables(
    inputs: Sequence[Input], *, name: str, like: str | None, place: Callable[[str], str], begin: str
) -> Draft:
    """The YAML of a catalog of tables. place: a path as the YAML writes it. begin: the YAML's first comment.

    Raises ValueError, in a sentence, where no table of products or pairs is among them.
    """
    drafting = _Drafting(name, place)
    with tempfile.TemporaryDirectory(prefix="gcl-init-") as folder:
        tables = sort_tables(inputs, like, Path(folder))
        drafting.notes += tables.notes
        drafting.write(tables, begin)
    return Draft(drafting.page.text(), drafting.told, drafting.notes, drafting.trainable)


class _Drafting:
    def __init__(self, name: str, place: Callable[[str], str]) -> None:
        self.name, self.place, self.page = name, place, Page()
        self.told: list[str] = []
        self.notes: list[str] = []
        self.trainable = True

    # The lines of the YAML.

    def write(self, tables: Tables, begin: str) -> None:
        page, products, pairs = self.page, tables.products, tables.pairs
        page.remark(begin)
        page.line("name", self.name)
        if products is not None:
            self._products(products)
        if pairs is not None:
            self._pairs(pairs, products)
        self._reading(tables)
        if products is not None:
            self._identifier(products, pairs)
            self._place_images(products)
        query = self._query(tables)
        self._document(products or products_in(pairs), alone=pairs is None)
        if pairs is not None and pairs.clicks is None and pairs.score:
            page.line("score", pairs.score, _scores(pairs.looked.columns[pairs.score]))
            if _RANK.search(pairs.score):
                self.notes.append(
                    f"{pairs.score} sounds like a rank, and more is better here: turn it round if 1 is best"
                )
            self._grades(pairs.looked.columns[pairs.score], 0)
        if products is not None and products.repeated:
            why = f"{products.id} is repeated with other content: its first row counts; or last, merge, refuse"
            page.line("duplicates", {"products": "first"}, why)
            ids = products.looked.keys(str(products.id))
            self.notes.append(
                f"{products.id} is repeated with other content, {len(ids):,} rows have {len(set(ids)):,} of it: "
                "data.duplicates.products says what counts"
            )
        self._split(tables)
        self._tasks(tables, query)

    def _products(self, products: Products) -> None:
        looked = products.looked
        if looked.layout is not None:
            self.page.line("layout", looked.layout.name, f"{looked.layout.description}: translated when it is prepared")
        count = f"{looked.rows:,} rows" if looked.whole else f"more than {looked.rows:,} rows"
        what = "one for each product or variant" if looked.layout else "one for each product"
        self.page.line("products", self.place(looked.path), f"{count}, {what}")
        self.told.append(f"{looked.name}: products" + (f", {looked.layout.description}" if looked.layout else ""))

    def _pairs(self, pairs: Searches, products: Products | None) -> None:
        looked = pairs.looked
        log = pairs.clicks is not None and (pairs.position is not None or pairs.impressions is not None)
        what = "a log of what was shown and clicked" if log else "searches with the products that answer them"
        self.page.line("pairs", self.place(looked.path), what)
        self.told.append(f"{looked.name}: {what}")
        if log and products is not None:
            named = {role: getattr(pairs, role) for role in ("position", "clicks", "impressions", "purchases")}
            self.page.line("clicks", {role: name for role, name in named.items() if name},
                           "scores are made of it, corrected for the position")  # fmt: skip
            if pairs.position is None:
                self.notes.append("the log has no column of positions: clicks repeat the ranking that made them")
        else:
            pairs.clicks = None

    def _reading(self, tables: Tables) -> None:
        several = [one.looked for one in (tables.products, tables.pairs, tables.queries, tables.judgments) if one]
        for key, why in (
            ("encoding", "the characters of {} are written so"),
            ("delimiter", "what separates the cells of {}"),
        ):
            values = {getattr(one.table.reading, key): one.name for one in several if getattr(one.table.reading, key)}
            for value, name in list(values.items())[:1]:
                self.page.line(key, value, why.format(name))
            if len(values) > 1:
                named = ", ".join(f"{name}: {value!r}" for value, name in values.items())
                self.notes.append(f"tables are written with several {key}s ({named}): save one of them again")
        if plain := [one.name for one in several if one.table.reading.quote is None]:
            self.page.line("quote", NULL, f"quotation marks in {plain[0]} are part of the text")
        elif escaped := [one.name for one in several if one.table.reading.quote == BACKSLASH]:
            self.page.line("quote", BACKSLASH, f'marks inside the cells of {escaped[0]} are written \\"')
        scores = [one.looked.columns[one.score] for one in (tables.pairs, tables.judgments) if one and one.score]
        price = tables.products.column(tables.products.price) if tables.products else None
        signs = [column for column in [*scores, *([price] if price else [])] if column.decimal == ","]
        if signs:
            self.page.line("decimal", ",", f"{signs[0].name} is written so: {_example(signs[0])}")
        self._missing(several)

    def _missing(self, several: Sequence[Looked]) -> None:
        words = {text for one in several for column in one.columns.values() for text in set(column.texts)
                 if text.lower() in FILLERS and column.texts.count(text) > 1}  # fmt: skip
        if extra := sorted(words - set(MISSING_WORDS)):
            self.page.line("missing", [*MISSING_WORDS, *extra], f"{', '.join(extra)} stand where a value is missing")

    def _identifier(self, products: Products, pairs: Searches | None) -> None:
        looked, identifier = products.looked, products.id
        assert identifier is not None
        why = "one value for each product" if looked.is_unique(identifier) else "the surest name, though it is repeated"
        texts = looked.columns[identifier].texts
        zeros = any(re.fullmatch(r"0\d+", text) for text in texts)
        self.page.line("document_id", identifier, why + ("; its leading zeros are kept" if zeros else ""))
        self.told.append(f"  {identifier} tells products apart")
        if pairs is not None and pairs.document and pairs.document != identifier:
            self.page.line("pairs_document_id", pairs.document, f"what {pairs.looked.name} calls it")
        if pairs is not None and pairs.document:
            known = looked.holds(identifier, pairs.looked.columns[pairs.document].texts)
            if known < 0.99:
                self.notes.append(f"{1 - known:.0%} of the ids that {pairs.looked.name} names are not in {looked.name}")

    def _query(self, tables: Tables) -> str:
        """Writes the query side; returns the column of its text in pairs, or in products."""
        page, pairs, products = self.page, tables.pairs, tables.products
        if pairs is not None and pairs.query:
            page.line("query", None)
            form: dict[str, Any] = {"modality": "text"}
            if pairs.query != "query":
                form["column"] = pairs.query
            page.line("query", form, "what people searched for", indent=2)
            self.told.append(f"  {pairs.query} is the search" + (f", {pairs.score} its score" if pairs.score else ""))
            return pairs.query
        assert products is not None
        if products.title is None:
            raise ValueError(
                f"{products.looked.name} has no column of titles, and no table of searches was given: nothing can "
                "serve as a search. Give one: gcl init products.csv pairs.csv."
            )
        page.remark(
            "Without a table of searches each product's title serves as a search that it answers; the document shown "
            "for it goes without its title (own_field: hidden). What is measured then is whether the rest of it "
            "(image, description) is found by its title: a start, not how well people's searches are answered."
        )
        page.line("query", None)
        page.line("query", {"modality": "text", "column": products.title}, indent=2)
        self.told.append(f"  {products.title} serves as the search: there are no pairs")
        return products.title

    def _document(self, products: Products, *, alone: bool) -> None:
        page, looked = self.page, products.looked
        page.line("document", None)
        texts = [name for name in (products.title, products.description) if name]
        if alone and not products.images and products.description is None:
            texts += products.attributes
            if not products.attributes:
                self.trainable = False
                self.notes.append(
                    f"{looked.name} has titles alone, so nothing is left of a product once its title is the query: add "
                    "images, descriptions or a table of searches"
                )
        share = round((0.2 if len(texts) > 1 else 0.1) if products.images else 1.0, 2)
        if products.images:
            self._image(products, round(1 - share, 2))
        for name in texts:
            column = looked.columns[name]
            role = {products.title: "title", products.description: "description"}.get(name, _field_name(name))
            form: dict[str, Any] = {"modality": "text", "weight": round(share / len(texts), 2)}
            form |= {"column": name} if name != role else {}
            html = column.html > 0.05
            form |= {"text": "html"} if html else {}
            page.line(role, form, f"{column.html:.0%} of the cells have tags or entities" if html else "", indent=2)
            self.told.append(f"  {name} is the {role}" + (" (HTML)" if html else ""))
        rest = [name for name in products.attributes if name not in texts]
        if rest:
            field_name = _field_name(rest[0])
            form = {"modality": "text", "weight": 0.1} | ({"column": rest[0]} if rest[0] != field_name else {})
            page.remark(f"Also there: {', '.join(rest)}. A line such as `{field_name}: {flow(form)}` adds one.", 2)
        page.remark("Weights are shares of a product's embedding; gcl sweep-weights run=… finds better ones.", 2)
        if products.language is not None:
            self._languages(looked.columns[products.language])

    def _image(self, products: Products, weight: float) -> None:
        page, looked = self.page, products.looked
        columns = [looked.columns[name] for name in products.images]
        several = len(columns) > 1 or any(column.several > 0 for column in columns)
        form: dict[str, Any] = {"modality": "image", "weight": weight}
        if len(columns) > 1:
            form["columns"] = products.images
        elif products.images[0] != "image":
            form["column"] = products.images[0]
        if sign := next((column.separator for column in columns if column.separator), None):
            form["separator"] = sign
        why = "paths" if columns[0].urls < 0.5 else "URLs"
        why = "images in the table itself" if any(isinstance(cell, bytes) for cell in columns[0].cells[:5]) else why
        if several:
            form["images"] = "first"
            why += '; a product has several: "all" uses the mean of their embeddings'
        page.line("image", form, why, indent=2)
        self.told.append(
            f"  {', '.join(products.images)}: image" + (" (several; the first is used)" if several else "")
        )

    def _place_images(self, products: Products) -> None:
        """The line that says where image files are, unless next to the table."""
        looked = products.looked
        if not products.images or "://" in looked.path:
            return
        kept = looked.layout.images if looked.layout else ()
        folder = looked.folder or Path(looked.path).parent
        root, share = image_root(products, folder, kept)
        if root is not None:
            self.page.line("image_root", self.place(str(root)), f"where {share:.0%} of the image files looked at are")
        elif share < 0.9:
            self.notes.append(
                f"{1 - share:.0%} of the image files looked at are not in {folder}: set image_root to their folder"
                + (f", for example a copy of {kept[0]}" if kept else "")
            )

    def _languages(self, column: Column) -> None:
        counts = Counter(column.texts)
        shares = ", ".join(f"{text} {count / counts.total():.0%}" for text, count in counts.most_common(5))
        if len(counts) > 1:
            self.page.remark(f"{column.name}: {shares}. Several languages want a multilingual model (siglip2-B).")

    def _grades(self, column: Column, indent: int, key: str = "grades") -> None:
        if column.decimal is not None:
            return
        grades, why = grades_of(column.texts)
        self.page.line(key, grades, why or "what the words count: only ratios matter", indent=indent)
        if len(set(grades.values())) == 1:
            self.notes.append(
                f"{column.name} holds words ({', '.join(list(grades)[:6])}): write what each counts in grades"
            )

    def _split(self, tables: Tables) -> None:
        products, pairs = tables.products, tables.pairs
        form: dict[str, Any] = {}
        why = ""
        if self._tests(tables):
            form |= {"queries": 1.0, "documents": 1.0}
            why = "the table itself says what is measured with"
        elif pairs is None and tables.queries is None and tables.judgments is None:
            form |= {"queries": 1.0, "documents": 0.8}
            why = "a title is the search of its own product alone, so held-out products are new searches, too"
        if products is not None and products.parent is not None:
            form["group"] = [products.parent]
            why = ", ".join(filter(None, [why, "variants of one product are trained on or measured with, never both"]))
        if form:
            self.page.line("split", form, why)
        if pairs is not None and pairs.split and not self._tests(tables):
            self.notes.append(f"the column {pairs.split} of {pairs.looked.name} is not used: gcl splits by itself")

    def _tests(self, tables: Tables) -> bool:
        """Whether the pairs say which of them are for testing."""
        pairs = tables.pairs
        if pairs is None or pairs.split is None or not tables.products or tables.queries or tables.judgments:
            return False
        return {"train", "test"} <= set(pairs.looked.columns[pairs.split].texts)

    def _tasks(self, tables: Tables, query: str) -> None:
        if self._tests(tables) and (pairs := tables.pairs) is not None:
            path = self.place(pairs.looked.path)
            task: dict[str, Any] = {"queries": path, "qrels": path, "query_id": pairs.query_id or pairs.query}
            task |= {"document_id": pairs.document} if tables.products and pairs.document != tables.products.id else {}
            task |= {"score": pairs.score, "kind": pairs.split, "kinds": ["test"], "corpus": "all"}
            self._task("test", {key: value for key, value in task.items() if value}, "the pairs that are for testing")
            return
        judged, queries = tables.judgments, tables.queries
        given = tables.trec or tables.truth
        if tables.truth is not None and queries is None:
            self._task(
                "judged", {"qrels": self.place(tables.truth.path), "corpus": "all"}, "measured with, never trained on"
            )
            self.told.append(f"{Path(tables.truth.path).name}: judgments, {{query: {{document id: relevance}}}}")
            return
        if judged is None and given is None:
            if queries is not None:
                self.notes.append(f"{queries.looked.name} is not used: queries without judgments")
            return
        source = queries or judged
        qrels = given.path if given else judged.looked.path if judged else ""
        if source is None or source.query is None:
            self.notes.append(
                f"{Path(qrels).name} is not used: give the table of its queries as well (query_id, query)"
            )
            return
        task = {
            "queries": self.place(source.looked.path), "qrels": self.place(qrels),
            "query_id": source.query_id or source.query,
        }  # fmt: skip
        if source.query != query:
            task["query_columns"] = {"query": source.query}
        if judged is not None:
            by = judged.query_id or judged.query
            task |= {"qrels_query_id": by} if by != task["query_id"] else {}
            task |= (
                {"document_id": judged.document} if tables.products and judged.document != tables.products.id else {}
            )
            task |= {"score": judged.score} if judged.score and judged.score != "score" else {}
        if source.kind and len(set(source.looked.columns[source.kind].texts)) <= 12:
            task["kind"] = source.kind
        if judged is not None and judged.score and judged.looked.columns[judged.score].decimal is None:
            task["grades"] = grades_of(judged.looked.columns[judged.score].texts)[0]
        self._task("judged", task, "measured with, never trained on")
        for table, what in ((queries, "queries"), (judged, "judgments")):
            if table is not None:
                self.told.append(f"{table.looked.name}: {what}")
        if judged is not None and judged.score is None:
            self.notes.append(f"{judged.looked.name} has no column of relevance: add one, 1 in each row")

    def _task(self, name: str, settings: dict[str, Any], why: str) -> None:
        self.page.line("tasks", None)
        self.page.line(name, None, why, indent=2)
        for key, value in settings.items():
            self.page.line(key, value, _WHY.get(key, ""), indent=4)


_RANK = re.compile(r"(?i)(?:^|[^a-z])(?:rank|rang|position|place)(?:[^a-z]|$)")  # 1 is the best of these
_WHY = {
    "query_columns": "what the query field is called in this table",
    "kind": "one task for each of its values",
    "grades": "only ratios matter",
    "qrels_query_id": "what the judgments call the query's id",
}


def _field_name(column: str) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_").lower()
    return name if name[:1].isalpha() else f"f_{name}"


def _example(column: Column) -> str:
    return next((text for text in column.texts if "," in text), column.texts[0])


def _scores(column: Column) -> str:
    if column.decimal is None:
        return "grades in words"
    values = sorted(set(column.texts), key=lambda text: (len(text), text))
    return f"more is better; {values[0]} to {values[-1]}" if len(values) > 1 else "all equal: loss=constant is the same"


def relative(path: str, folder: Path) -> str:
    """A path as a YAML in `folder` writes it: relative to it inside the working folder, else absolute. A URL with a
    password or key is a reference to `variable_of` it.

    >>> relative("s3://shop/products.csv", Path("/x")), relative("/other/place.csv", Path("/x/conf/data"))
    ('s3://shop/products.csv', '/other/place.csv')
    """
    here = Path.cwd()
    if masked(path) != path:
        return Reference(f"${{oc.env:{variable_of(path)}}}")
    if "://" in path or here not in Path(path).parents:
        return path
    return os.path.relpath(path, folder)


def variable_of(url: str) -> str:
    """The variable of the environment that holds a URL which no file keeps.

    >>> variable_of("https://ann:pw@shop.example/export/products.csv?page=2")
    'GCL_EXPORT_PRODUCTS_CSV'
    """
    return f"GCL{re.sub(r'[^A-Z0-9]+', '_', urlsplit(url).path.upper())}"
