"""search.py of a deployment: how the shop's own code asks the engine.

Its middle is the source of clients/<engine>.py, by which parity was measured. Before it come the run, the collection
and a query's vector; after it the command line.
"""

from __future__ import annotations

import ast
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gcl.exports.engines.engine import Engine, Filter, Here, How, Layout, Setting
from gcl.exports.engines.payload import WORDS
from gcl.schema import Field, Modality, fields_of

if TYPE_CHECKING:
    from gcl.model.query_weights import QueryWeights

FILE = "search.py"
_CLIENTS = "gcl.exports.engines.clients"
_MAIN = """
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\\n")[0])
    parser.add_argument("query", help="{asked}")
{arguments}    parser.add_argument("-k", type=int, default=10, help="how many results")
    given = parser.parse_intermixed_args()
{where}{found}    for place, (name, payload) in enumerate(found, start=1):
        print(place, name, json.dumps(payload, ensure_ascii=False), sep="\\t")
"""
_VECTOR = '''
def vector_of(query: Any) -> np.ndarray:
    """A unit vector. query: words, or {"a field": its text or picture}."""
    return model.embed_queries([query])[0]
'''
_WEIGHED = '''
def vector_of(query: Any, weights: dict[str, float] = FIELDS) -> np.ndarray:
    """The query's vector times the weight of each field, which a query may change. query: words, or {"a field": its
    text or picture}."""
    (vector,) = model.embed_queries([query])
    return np.concatenate([weights[name] * vector for name in FIELDS])
'''
_WEIGHED_BY_QUERY = '''
def vector_of(query: Any, weights: dict[str, float] | None = None) -> np.ndarray:
    """The query's vector times the weight of each field. weights: None: those that the query itself gives, FIELDS where
    it does not say. query: words, or {"a field": its text or picture}."""
    (weighed,) = model.embed_queries([query])
    if weights is None:
        return weighed
    vector = weighed.reshape(len(FIELDS), -1).sum(axis=0)  # a query's own weights have the sum 1
    return np.concatenate([weights[name] * vector for name in FIELDS])
'''
_WHERE = """\
    where: dict[str, Any] = {}
    for condition in given.where:
        name, _, value = condition.partition("=")
        if name not in COLUMNS:
            parser.error(f"{condition}: expected a column and its value, of {', '.join(COLUMNS)}.")
        least, _, most = value.partition("..")
        where[name] = value if COLUMNS[name] == "text" else (float(least), float(most or least))
"""
_FOUND = """\
    found = search({call})
"""
_FOUND_AT = """\
    try:
        found = search({call})
    except Exception as error:  # each client has its own, of long tracebacks
        sys.exit(f"{{error}}. Is {title} running, and is {variable} its address?")
"""
_WHERE_ARGUMENT = """\
    parser.add_argument("where", nargs="*", default=[], help="column=value, or column=least..most of numbers")
"""
_HOW_ARGUMENT = """\
    parser.add_argument("--how", choices=["vector", "words", "hybrid"], default="vector")
"""


@dataclass(frozen=True)
class Program:
    """What search.py is made of.

    settings: of the engine. model: Python that says where the run is. url: the address, without its login. query: the
    run's query fields. gate: what weighs the fields that the collection has side by side. by_query: whether the run's
    queries give weights. example: a filter that some document passes.
    """

    engine: Engine
    layout: Layout
    settings: Sequence[Setting]
    model: str
    url: str | None = None
    query: Mapping[str, Field] = field(default_factory=dict)
    gate: QueryWeights | None = None
    by_query: bool = False
    example: Filter = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """The one that it searches in: the deepest that has a limit."""
        compared = [one for one in self.settings if one.how in (How.exact, How.approximate)]
        return next((one for one in reversed(compared) if one.least is not None), compared[0])

    @property
    def columns(self) -> dict[str, str]:
        """Of the payload, by which results can be filtered: {name: text or number}."""
        every = self.layout.columns if self.engine.filters else {}
        return {name: kind.value for name, kind in every.items() if name != WORDS}

    @property
    def words(self) -> bool:
        """Whether it searches words, too."""
        return any(setting.how is How.words for setting in self.settings)

    @property
    def variable(self) -> str:
        """What has the address, with its login, which is in no file; "": the collection is in this folder."""
        here = self.url is None and self.engine.here is Here.database
        return "" if here else f"{self.engine.name.upper()}_URL"

    @property
    def lines(self) -> list[str]:
        """What one types."""
        lines = [""]
        for name, value in self.example.items() if self.columns else ():
            typed = "..".join(map(repr, value)) if isinstance(value, tuple) else value
            lines.append(f" {shlex.quote(f'{name}={typed}')}")
        lines += [" --how hybrid"] * self.words
        return [f'python {FILE} "red shoe"{further}' for further in lines]

    @property
    def calls(self) -> list[str]:
        """The same in Python."""
        calls = ["k=20"]
        calls += [repr(dict(self.example))] * bool(self.columns and self.example)
        calls += ['how="hybrid"'] * self.words
        return [f'search("red shoe", {further})' for further in calls]

    def text(self) -> str:
        """Python source."""
        theirs, client = _source(self.engine.name)
        own = ["import argparse", "import gcl", "import json", "import numpy as np"]
        own += ["from pathlib import Path", "from typing import Any"]
        own += ["import os", "import sys"] * bool(self.variable)
        begin = f"{self._head()}\n{_sorted([*theirs, *own])}\n{self._constants()}"
        return "\n\n".join([begin, self._vector(), client, f"{self._search()}\n{self._main()}"])

    def _head(self) -> str:
        told = [f'"""Searches {self.layout.name} in {self.engine.title}.', ""]
        told += [f"    {line}" for line in self.lines]
        if self.variable:
            told += ["", f"{self.variable} in the environment is the address with its login, which is in no file."]
        return "\n".join([*told, '"""', "", "from __future__ import annotations", ""])

    def _constants(self) -> str:
        place = "str(HERE)"
        if self.variable:
            place = f'os.environ.get("{self.variable}", {json.dumps(self.url or self.engine.url)})'
        lines = ["HERE = Path(__file__).resolve().parent", f"MODEL = {self.model}  # the run", f"PLACE = {place}"]
        lines.append(f"COLLECTION = {json.dumps(self.layout.name)}")
        lines += [f"COLUMNS = {json.dumps(self.columns)}"] * bool(self.columns)
        lines.append(f"SETTING: dict[str, Any] = {_literal(self.setting.options)}  # {self.setting.name}")
        if self.gate is not None:
            total = sum(self.gate.given[name] for name in self.gate.fields)
            weights = {name: float(f"{self.gate.given[name] / total:.7g}") for name in self.gate.fields}
            lines.append("# A product has the vectors of these fields side by side, in this order. Their weights:")
            lines.append(f"FIELDS = {json.dumps(weights, ensure_ascii=False)}")
        lines += ["", "model = gcl.load(MODEL)"]
        if self.by_query and self.gate is None:
            lines.append("model.encoder.by_query = None  # a product has one vector, of its fields by their weights")
        return "\n".join(lines)

    def _vector(self) -> str:
        if self.gate is None:
            return _VECTOR
        return _WEIGHED_BY_QUERY if self.by_query else _WEIGHED

    def _search(self) -> str:
        """By what is asked, and how."""
        where = ", where" if self.engine.filters else ""
        given = ", where: dict[str, Any] | None = None" if where else ""
        how, lines = "", []
        if self.words:
            how = ', how: str = "vector"'
            said = next(iter(fields_of(self.query, Modality.text)), "")
            lines = [
                f'    words = query.get("{said}", "") if isinstance(query, dict) else query', '    if how == "words":',
                f"        return products.by_words(words{where}, k=k)", '    if how == "hybrid":',
                f"        return products.hybrid(vector_of(query), words{where}, k=k)",
            ]  # fmt: skip
        return "\n".join([
            "products = connect(PLACE, COLLECTION)", "", "",
            f"def search(query: Any{given}, k: int = 10{how}) -> Results:",
            '    """(id, payload) of the products, best first."""', *lines,
            f"    return products.near(vector_of(query){where}, k=k, **SETTING)", "",
        ])  # fmt: skip

    def _main(self) -> str:
        texts, images = (list(fields_of(self.query, kind)) for kind in (Modality.text, Modality.image))
        query = "given.query" if len(texts) == 1 else f"{{{json.dumps((texts or images)[0])}: given.query}}"
        if texts and images:
            query = f"{{{json.dumps(images[0])}: given.query}} if Path(given.query).is_file() else {query}"
        call = [query, *(["where"] if self.columns else []), "k=given.k", *(["how=given.how"] if self.words else [])]
        found = (_FOUND_AT if self.variable else _FOUND).format(
            call=", ".join(call), title=self.engine.title, variable=self.variable
        )
        return _MAIN.format(
            asked=" or ".join([*(["words"] if texts else []), *(["a picture's file"] if images else [])]),
            arguments=_WHERE_ARGUMENT * bool(self.columns) + _HOW_ARGUMENT * self.words,
            where=_WHERE * bool(self.columns), found=found,
        )  # fmt: skip


def _source(name: str) -> tuple[list[str], str]:
    """(imports, the rest) of the module that asks an engine, and of those next to it that it imports."""
    text = files(_CLIENTS).joinpath(f"{name}.py").read_text("utf-8")  # its package need not be here
    imports, parts = list[str](), list[str]()
    body = ast.parse(text).body
    first = next(node for node in body[1:] if not isinstance(node, ast.Import | ast.ImportFrom))
    for node in body[1 : body.index(first)]:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(_CLIENTS):
            more, source = _source(str(node.module).removeprefix(f"{_CLIENTS}."))
            imports += more
            parts.append(source)
        elif not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            imports.append(ast.unparse(node))
    lines = text.splitlines()[min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", []))]) - 1 :]
    return imports, "\n\n".join([*parts, "\n".join(lines) + "\n"])


def _sorted(imports: Sequence[str]) -> str:
    """Once each: the standard library, others, gcl."""

    def place(line: str) -> tuple[int, bool, str]:
        top = line.split()[1].partition(".")[0]
        return 0 if top in sys.stdlib_module_names else 2 if top == "gcl" else 1, line.startswith("from"), line

    names: dict[str, set[str]] = {}
    for line in imports:
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, set()).update(name.split(", ") if name else ())
    lines = [f"from {module} import {', '.join(sorted(of))}" if of else module for module, of in names.items()]
    groups = groupby(sorted(lines, key=place), key=lambda line: place(line)[0])
    return "\n\n".join("\n".join(lines) for _, lines in groups) + "\n"


def _literal(options: Mapping[str, Any]) -> str:
    pairs = [f"{json.dumps(k)}: {json.dumps(v) if isinstance(v, str) else repr(v)}" for k, v in options.items()]
    return f"{{{', '.join(pairs)}}}"
