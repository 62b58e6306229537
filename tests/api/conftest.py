"""The shop of the other tests as DataFrames, and its run as a model."""

import csv
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import gcl


@pytest.fixture(scope="module")
def products(shop):
    """The rows of products.csv, images as absolute paths; an empty cell is None."""
    with open(shop / "products.csv", encoding="utf-8") as file:
        rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "image": row["image"] and str(shop / row["image"])} for row in rows]


@pytest.fixture(scope="module")
def pairs(shop):
    with open(shop / "pairs.csv", encoding="utf-8") as file:
        return [{**row, "score": float(row["score"])} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def judged(pairs):
    """{"queries", "qrels"}: every other search of the shop, judged."""
    texts = list(dict.fromkeys(row["query"] for row in pairs))[::2]
    number = {text: f"q{place}" for place, text in enumerate(texts)}
    qrels = [{"query_id": number[row["query"]], "product_id": row["product_id"], "score": row["score"]}
             for row in pairs if row["query"] in number]  # fmt: skip
    return {"queries": [{"query_id": name, "query": text} for text, name in number.items()], "qrels": qrels}


@pytest.fixture(scope="module")
def model(finished):
    return gcl.load(finished.path)


@pytest.fixture
def private_images(products):
    """The shop's images on a server that shows them to `Bearer 5ecret` alone: (its address, products with URLs)."""
    files = {f"/{row['product_id']}.jpg": row["image"] for row in products if row["image"]}

    class Private(BaseHTTPRequestHandler):
        def do_GET(self):
            allowed = self.headers["Authorization"] == "Bearer 5ecret"
            self.send_response(200 if allowed else 403)
            self.end_headers()
            if allowed:
                self.wfile.write(Path(files[self.path]).read_bytes())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Private) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        rows = [{**row, "image": row["image"] and f"http://{host}/{row['product_id']}.jpg"} for row in products]
        yield host, rows
        server.shutdown()
