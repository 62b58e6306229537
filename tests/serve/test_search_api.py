"""The interface for programs: many searches at once, products, vectors in OpenAI's form, health and counters."""

import base64
import http.server
import re
import threading

import numpy as np
import pytest

from gcl.errors import ConfigError
from gcl.retrieval.embedding.embed import embed
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field
from helpers.page_shop import picture

pytest.importorskip("fastapi", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("python_multipart", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")

from fastapi.testclient import TestClient

from gcl.serve.app import build_app
from gcl.serve.pictures import Pictures


@pytest.fixture(scope="module")
def client(engine, columns):
    return TestClient(build_app(engine, name="shop", links=columns.links), base_url="http://127.0.0.1")


def data_url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def test_several_searches_are_answered_in_their_order(client):
    asked = [
        {"text": "red", "k": 3},
        {"picture": data_url(picture(7)), "weights": {"image": 1}, "k": 1},
        {"text": "red", "like": "p7", "mix": 0.3, "filters": {"category": ["Bags"], "price": {"to": 40}}},
    ]
    answers = client.post("/api/searches", json={"searches": asked}).json()["answers"]
    alone = client.post("/api/search", data={"text": "red", "k": 3}).json()
    ids = lambda answer: [[product["id"] for product in model["results"]] for model in answer["models"]]  # noqa: E731
    assert ids(answers[0]) == ids(alone) and ids(answers[1]) == [["p7"], ["p7"]]
    form = {"text": "red", "like": "p7", "mix": 0.3, "filters": '{"category": ["Bags"], "price": {"to": 40}}'}
    assert ids(answers[2]) == ids(client.post("/api/search", data=form).json())
    assert ids(answers[2]) == ids(client.get("/api/search", params=form).json())


@pytest.mark.parametrize(
    "searches, status, words",
    [
        ([], 422, "searches: "),
        ([{"text": "x"}] * 101, 422, "searches: "),
        ([{"text": "x"}, {"text": " "}], 422, "searches.1: The search is empty"),
        ([{"text": "x", "picture": "a text"}], 422, "searches.0: A picture is a data URL"),
        ([{"picture": "data:image/png;base64,%%%"}], 422, "searches.0: The data URL's base64 is damaged"),
        ([{"picture": "data:,text"}], 422, "searches.0: A picture as a data URL is written"),
        ([{"picture": data_url(b"%PDF-1.7")}], 415, "searches.0: The picture cannot be used"),
        ([{"picture": "https://shop.example/1.jpg"}], 422, "This server fetches no addresses"),
        ([{"like": "nothing"}], 404, "searches.0: There is no product 'nothing'"),
    ],
)
def test_a_wrong_search_among_several_is_named(client, searches, status, words):
    answer = client.post("/api/searches", json={"searches": searches})
    assert answer.status_code == status and words in answer.json()["detail"], answer.text


def test_a_product_is_shown_in_full(client):
    one = client.get("/api/products/p7").json()
    assert one == {
        "id": "p7", "title": "Product number 7", "link": "https://shop.example/p7",
        "texts": {"title": "Product number 7"}, "columns": {"category": "Bags", "price": 17.5},
        "pictures": ["/pictures/7?number=0"],
    }  # fmt: skip
    for address, status in (("0", 200), ("0&large=true", 200), ("1", 404), ("-1", 404)):
        assert client.get(f"/pictures/7?number={address}").status_code == status
    assert client.get("/api/products/p1").json()["pictures"] == []
    missing = client.get("/api/products/a/b")
    assert missing.status_code == 404 and "no product 'a/b'" in missing.json()["detail"]
    filters = client.get("/api/catalog").json()["filters"]
    assert filters["category"]["values"]["Shoes"] == 14
    assert filters["price"] == {"values": None, "least": 12.5, "most": 49.5}


def embeddings(client, given, **options) -> np.ndarray:
    answer = client.post("/v1/embeddings", json={"model": "tuned", "input": given, **options})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    if options.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in data])
    return np.array([one["embedding"] for one in data], dtype=np.float32)


def test_vectors_are_those_of_the_evaluation(client, encoders, readable):
    texts = ListRecords(
        ["a", "b"], [{"query": "red"}, {"query": "blue boots"}], {"query": Field(prompt="a photo of {}")}
    )
    expected = embed(encoders["tuned"], texts, "query").fused()
    assert np.allclose(embeddings(client, ["red", "blue boots"]), expected, atol=1e-6)
    assert np.allclose(embeddings(client, "red"), expected[:1], atol=1e-6)
    written = embeddings(
        client, ["red", "blue boots"], encoding_format="base64", dimensions=expected.shape[1], user="me"
    )
    assert np.array_equal(written, embeddings(client, ["red", "blue boots"]))

    products = embed(encoders["tuned"], readable.subset(np.array([7, 8])), "document").fused()
    given = [
        {"title": "Product number 7", "image": data_url(picture(7))}, "red",
        {"title": "Product number 8", "image": data_url(picture(8))},
    ]  # fmt: skip
    assert np.allclose(embeddings(client, given), [products[0], expected[0], products[1]], atol=1e-6)
    shown = embeddings(client, [data_url(picture(7)), {"image": data_url(picture(7))}])
    assert shown[0] @ shown[1] > 0.9999, "a picture is the same on both sides"


def test_tokens_are_counted(client):
    used = lambda given: client.post("/v1/embeddings", json={"model": "base", "input": given}).json()["usage"]  # noqa: E731
    one, two = used("red"), used(["red", "red boots"])
    assert 0 < one["prompt_tokens"] < two["prompt_tokens"] == two["total_tokens"]
    assert used(data_url(picture(1)))["prompt_tokens"] == 0


@pytest.mark.parametrize(
    "given, status, words",
    [
        ({"input": ""}, 422, "The search is empty"),
        ({"input": []}, 422, "a list of 1 to 512"),
        ({"input": ["x"] * 513}, 422, "a list of 1 to 512"),
        ({"input": None}, 422, "a list of 1 to 512"),
        ({"input": [[1, 2, 3]]}, 422, "input.0: An input is a text or an object"),
        ({"input": ["red", 7]}, 422, "input.1: An input is a text"),
        ({"input": "x" * 1001}, 422, "1,001 characters"),
        ({"input": {"price": "1"}}, 422, "no field 'price'; fields: image, title"),
        ({"input": {"title": 5}}, 422, "title is a text"),
        ({"input": {"image": ["a", "b"]}}, 422, "image is a text (of a picture its data URL); given"),
        ({"input": {"image": "a word"}}, 422, "A picture is a data URL"),
        ({"input": {}}, 422, "no field that counts"),
        ({"input": "https://shop.example/1.jpg"}, 422, "fetches no addresses"),
        ({"input": "x", "model": "gpt"}, 404, "no model 'gpt' here; there is: base, tuned"),
        ({"input": "x", "dimensions": 3}, 422, "dimensions is 3; tuned has vectors of"),
        ({"input": "x", "encoding_format": "int8"}, 422, "encoding_format: "),
    ],
)
def test_what_has_no_vector_is_told(client, given, status, words):
    answer = client.post("/v1/embeddings", json={"model": "tuned", **given})
    assert answer.status_code == status and words in answer.json()["detail"], answer.text


def test_addresses_are_fetched_only_where_that_is_allowed_and_never_private_ones(engine):
    class Shop(http.server.BaseHTTPRequestHandler):
        asked: list[str] = []

        def do_GET(self):
            self.asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        app = build_app(engine, name="shop", pictures=Pictures(urls=True))
        client = TestClient(app, base_url="http://127.0.0.1")
        address = f"http://127.0.0.1:{server.server_port}/1.jpg"
        for answer in (
            client.post("/v1/embeddings", json={"model": "base", "input": address}),
            client.post("/api/searches", json={"searches": [{"picture": address}]}),
        ):
            sentence = answer.json()["detail"]
            assert answer.status_code == 422 and sentence.endswith("127.0.0.1 is a private address."), sentence
        server.shutdown()
    assert Shop.asked == []


def test_health_and_counters(engine):
    client = TestClient(build_app(engine, name="shop"), base_url="http://127.0.0.1")
    assert client.get("/health/live").text == client.get("/health/ready").text == "ok\n"
    for _ in range(3):
        client.post("/api/search", data={"text": "red"})
    client.get("/api/search")
    client.get("/nothing/of/the/sort")
    client.get("/api/catalog", headers={"host": "attacker.example"})
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert 'gcl_requests_total{method="POST",path="/api/search",status="200"} 3.0' in lines
    assert 'gcl_requests_total{method="GET",path="/api/search",status="422"} 1.0' in lines
    assert 'gcl_requests_total{method="GET",path="other",status="421"} 1.0' in lines
    assert 'gcl_request_seconds_count{path="/api/search"} 4.0' in lines
    assert "gcl_products 40.0" in lines and "gcl_waiting 0.0" in lines
    assert any(one.startswith('gcl_batch_size_bucket{le="64.0"}') and not one.endswith(" 0.0") for one in lines)
    line = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"\\]*"(,\w+="[^"\\]*")*\})? [\d.e+-]+')
    assert [one for one in lines if not line.fullmatch(one)] == [] and "/nothing" not in answer.text
    told = {one.split()[2] for one in lines if one.startswith("# TYPE")}
    assert {
        re.sub(r"_(bucket|sum|count)$", "", one.partition("{")[0].split()[0]) for one in lines if one[0] != "#"
    } <= told


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    from gcl import errors
    from gcl.commands.search import SearchOptions, serve

    real = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "uvicorn" else real(name))
    with pytest.raises(ConfigError, match=r"^The page needs uvicorn: pip install 'gcl-trainer\[serve\]'"):
        serve(None, SearchOptions(run="x"))
