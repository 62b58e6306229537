"""The search service over the small shop as a process of its own: `python -m helpers.search_server SECONDS` says its
port in a line. SECONDS: how long a request may take to come in."""

import sys

import torch

from gcl.model.load import load_model
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Schema
from gcl.serve.app import build_app
from gcl.serve.engine import Engine
from gcl.serve.facets import columns_of
from gcl.serve.listen import listen
from gcl.serve.server import serve
from helpers.page_shop import shop, shop_table


def main(seconds: float) -> None:
    sockets = listen("127.0.0.1", 0)
    print(sockets[0].getsockname()[1], flush=True)
    torch.set_num_threads(1)
    corpus = shop(12)
    corpus.records[2]["image"] = None
    documents = ListRecords(corpus.ids, corpus.records, corpus.side)
    schema = Schema(query={"query": Field(prompt="a photo of {}")}, document=corpus.side)
    encoders = {label: load_model("gcl-tiny", schema=schema).eval() for label in ("base", "tuned")}
    columns = columns_of(documents, shop_table(12))
    engine = Engine(encoders, documents, facets=columns.facets)
    serve(build_app(engine, name="shop", links=columns.links), sockets, read_seconds=seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))
