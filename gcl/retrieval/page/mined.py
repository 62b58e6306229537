"""What was mined: of some queries, what they should find and the hard negatives of the first and the last round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gcl.data.batches.negatives import Mined, read_mined
from gcl.data.store.prepared import Prepared
from gcl.files.atomic import write_text
from gcl.retrieval.page.details import Shelf, Side
from gcl.retrieval.page.document import document, page_body
from gcl.retrieval.page.examples import TOP, labelled
from gcl.retrieval.page.markup import Markup, join, tag, untrusted
from gcl.retrieval.page.thumbnails import Album

_QUERIES = 24  # shown
_PIXELS = 96
_HINT = (
    "A hard negative is a product that a search nearly finds and that nobody judged for it; training pushes it away. "
    "Look for products that are right after all: if many are, raise plan.hard_negatives.ranks or lower its margin."
)


def write_mined_page(path: Path, prepared: Prepared, *, title: str, rounds: Sequence[Path]) -> None:
    """rounds: the files of the rounds, in order; the first and the last are shown."""
    ends = list(dict.fromkeys([rounds[0], rounds[-1]]))
    mined = {f"step {int(one.stem):,}": read_mined(one) for one in ends}
    parts = [
        ("counts", "How many", "How many", _counts(mined, prepared)),
        ("queries", "Searches", "Searches and what was mined for them", _examples(mined, prepared)),
    ]
    write_text(path, document(title, page_body(title, parts), styles=["base.css", "report.css"], scripts=[]))


def _counts(mined: dict[str, Mined], prepared: Prepared) -> Markup:
    of = f"of {len(np.unique(prepared.pairs.query)):,} searches"
    rows = [
        tag("li", tag("b", name), f": {len(one.query):,} products for {len(np.unique(one.query)):,} {of}")
        for name, one in mined.items()
    ]
    more = [_same(*mined.values())] if len(mined) == 2 else []
    return join(tag("p", _HINT, class_="hint"), tag("ul", *rows, *more))


def _same(first: Mined, last: Mined) -> Markup:
    size = 1 + max(int(one.document.max(initial=0)) for one in (first, last))
    stayed = np.isin(first.query * size + first.document, last.query * size + last.document).sum()
    return tag("li", f"{stayed:,} of the first round are in the last one, too")


def _examples(mined: dict[str, Mined], prepared: Prepared) -> Markup:
    queries = np.unique(np.concatenate([one.query for one in mined.values()]))
    if not len(queries):
        return tag("p", "Nothing was mined: every result was judged, or closer to the search than the margin allows.")
    some = queries[np.linspace(0, len(queries) - 1, min(_QUERIES, len(queries))).astype(np.int64)]
    shelf = Shelf(Album(_PIXELS))
    articles = [_example(int(query), mined, prepared, shelf) for query in some]
    half = -(-len(articles) // 2)
    return tag("div", *(tag("div", *part) for part in (articles[:half], articles[half:]) if part), class_="examples")


def _example(query: int, mined: dict[str, Mined], prepared: Prepared, shelf: Shelf) -> Markup:
    pairs, documents = prepared.pairs, Side(prepared.documents)
    here = np.flatnonzero(pairs.query == query)
    strips = [("should find", pairs.document[here[np.argsort(-pairs.score[here], kind="stable")]], "relevant")]
    for name, one in mined.items():
        places = np.flatnonzero(one.query == query)
        strips.append((name, one.document[places[np.argsort(-one.score[places], kind="stable")]], "wrong"))
    rows = [
        labelled(name, [(shelf.add(documents, row), look) for row in list(dict.fromkeys(found.tolist()))[:TOP]], shelf)
        for name, found, look in strips
    ]
    return tag("article", tag("h4", untrusted(Side(prepared.queries).title(query))), *rows, class_="example")
