"""Search over HTTP: what is found, and what is refused with which words."""

import io
import json

import numpy as np
import pytest
import torch

from helpers.page_shop import ATTACK, picture

pytest.importorskip("fastapi", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("python_multipart", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")

from fastapi.testclient import TestClient
from PIL import Image

from gcl.files.arrays import ArrayCache
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Modality, Schema
from gcl.serve.app import PICTURE_BYTES, build_app
from gcl.serve.engine import Engine
from gcl.serve.refusal import BadRequest


@pytest.fixture(scope="module")
def client(engine, columns):
    return TestClient(build_app(engine, name="shop", links=columns.links), base_url="http://127.0.0.1")


def test_results_are_those_of_the_evaluation(engine, encoders, readable):
    """The same vectors and the same order as embed and search give them."""
    query = ListRecords(["q"], [{"query": "red shoes"}], {"query": Field(prompt="a photo of {}")})
    for label, hits in engine.search("red shoes", k=40).items():
        vectors = embed(encoders[label], readable, "document").fused()
        score = (vectors @ embed(encoders[label], query, "query").fused()[0]).astype(np.float32)
        assert np.allclose([hit.score for hit in hits], np.sort(score)[::-1], atol=1e-6)
        assert np.allclose([hit.score for hit in hits], score[[hit.row for hit in hits]], atol=1e-6)


def test_weights_act_and_leave_out_what_has_nothing_to_show(engine):
    assert {hit.row for hit in engine.search("x", k=40)["base"]} == set(range(40))
    by_image = engine.search("x", k=40, weights={"image": 1.0})["base"]
    assert {hit.row for hit in by_image} == set(range(40)) - {1, 2}
    by_title = engine.search("x", k=40, weights={"title": 1.0, "image": 0.0})["base"]
    assert [hit.row for hit in by_title] != [hit.row for hit in by_image]
    twice = engine.search("x", k=40, weights={"image": 1.8, "title": 0.2})["tuned"]
    assert [hit.row for hit in twice] == [hit.row for hit in engine.search("x", k=40)["tuned"]], (
        "only proportions count"
    )


def test_places_tell_where_the_other_model_has_it(engine):
    found = engine.search("x", k=10)
    for label, hits in found.items():
        for place, hit in enumerate(hits, 1):
            assert hit.places[label] == place
            other = [h.row for h in found["tuned" if label == "base" else "base"]]
            assert hit.places["tuned" if label == "base" else "base"] == (
                other.index(hit.row) + 1 if hit.row in other else 0
            )


def test_a_picture_finds_itself(client):
    found = client.post("/api/search", files={"picture": picture(7)}, data={"weights": '{"image": 1}', "k": 3}).json()
    for model in found["models"]:
        assert model["results"][0]["id"] == "p7" and model["results"][0]["score"] > 0.999


def test_text_and_picture_together_are_neither_alone(client):
    both = client.post("/api/search", files={"picture": picture(7)}, data={"text": "blue"}).json()
    assert len(both["models"][0]["results"]) == 10 and both["milliseconds"] > 0
    scores = [r["score"] for r in both["models"][0]["results"]]
    assert scores == sorted(scores, reverse=True)


def test_get_and_post_agree(client):
    one = client.get("/api/search", params={"text": "blue", "k": 4}).json()["models"]
    assert one == client.post("/api/search", data={"text": " blue ", "k": 4}).json()["models"]
    assert [len(model["results"]) for model in one] == [4, 4]


def image_bytes(size, kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.new("1", size).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    "request_, status, words",
    [
        ({}, 422, "search is empty"),
        ({"data": {"text": "   "}}, 422, "search is empty"),
        ({"data": {"text": "x" * 1001}}, 422, "The text has 1,001 characters; a search has at most 1,000. Shorten it."),
        ({"data": {"text": "x", "k": 0}}, 422, "k: "),
        ({"data": {"text": "x", "k": 101}}, 422, "k: "),
        ({"data": {"text": "x", "k": "many"}}, 422, "k: "),
        ({"data": {"text": "x", "weights": "no json"}}, 422, "weights is JSON"),
        ({"data": {"text": "x", "weights": "[1]"}}, 422, "weights is JSON"),
        ({"data": {"text": "x", "weights": "[" * 50_000}}, 422, "weights is JSON"),
        ({"data": {"text": "x", "weights": '{"price": 1}'}}, 422, "no field 'price'"),
        ({"data": {"text": "x", "weights": '{"image": -1}'}}, 422, "at least 0"),
        ({"data": {"text": "x", "weights": '{"image": NaN}'}}, 422, "at least 0"),
        ({"data": {"text": "x", "weights": '{"image": "1"}'}}, 422, "at least 0"),
        ({"data": {"text": "x", "weights": '{"image": 0, "title": 0}'}}, 422, "All weights are 0"),
        ({"files": {"picture": b""}}, 415, "picture cannot be used"),
        ({"files": {"picture": b"<svg onload=alert(1)>"}}, 415, "picture cannot be used"),
        ({"files": {"picture": picture(1)[:500]}}, 415, "picture cannot be used"),
        ({"files": {"picture": image_bytes((9000, 9000))}}, 413, "too many pixels"),
        ({"files": {"picture": bytes(PICTURE_BYTES + 1)}}, 413, "10.0 MB"),
        ({"files": {"picture": bytes(PICTURE_BYTES + 200_000)}}, 413, "too large"),
        ({"data": {"picture": "a text where the file belongs"}}, 422, "picture: "),
    ],
)  # fmt: skip
def test_bad_searches_are_refused_in_a_sentence(client, request_, status, words):
    answer = client.post("/api/search", **request_)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"] and answer.json()["detail"].endswith(".")


def test_a_body_without_a_length_is_counted(client):
    def chunks():
        yield b'--x\r\ncontent-disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(1_000_000)

    answer = client.post("/api/search", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413 and "too large" in answer.json()["detail"]


def test_only_its_own_name_and_page_are_answered(engine, client):
    assert client.get("/api/catalog", headers={"host": "attacker.example"}).status_code == 421
    assert client.get("/api/catalog", headers={"origin": "https://attacker.example"}).status_code == 403
    assert client.get("/api/catalog", headers={"origin": "http://127.0.0.1"}).status_code == 200
    anywhere = TestClient(build_app(engine, name="shop", hosts=None), base_url="http://shop.example")
    assert anywhere.get("/api/catalog").status_code == 200


def test_answers_carry_a_strict_policy(client):
    for address in ("/", "/docs", "/api/catalog", "/static/search.js", "/pictures/3"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").text.count("http") == 0, "the page of the interface loads nothing from elsewhere"


def test_pictures_are_small_and_only_those_of_products(client):
    answer = client.get("/pictures/5")
    assert answer.headers["content-type"] == "image/webp"
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 320
    for row in (1, 2, 40, -1):
        assert client.get(f"/pictures/{row}").status_code == 404
    assert client.get("/static/..%2fapp.py").status_code == 404 and client.get("/static/app.py").status_code == 404


def test_the_interface_describes_itself(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/catalog", "/api/search", "/api/searches", "/api/products/{id}", "/pictures/{row}", "/v1/embeddings",
        "/health/live", "/health/ready", "/metrics",
    }  # fmt: skip
    assert {"413", "415", "422"} <= set(described["paths"]["/api/search"]["post"]["responses"])
    about = client.get("/api/catalog").json()
    assert about["fields"] == {
        "image": {"modality": "image", "weight": 0.9},
        "title": {"modality": "text", "weight": 0.1},
    }
    assert about["products"] == 40 and about["models"] == ["base", "tuned"] and about["text"] and about["picture"]


def test_titles_come_back_as_they_are(client):
    found = client.post("/api/search", data={"text": "x", "k": 40}).json()["models"][0]["results"]
    title = next(product["title"] for product in found if product["id"] == "p0")
    assert title == " ".join(ATTACK.split())
    assert next(product for product in found if product["id"] == "p1")["picture"] is None


def test_fields_are_embedded_once(encoders, readable, tmp_path, monkeypatch):
    Engine(encoders, readable, EmbedOptions(cache=ArrayCache(tmp_path)))
    calls = []
    for encoder in encoders.values():
        monkeypatch.setattr(encoder, "embed_fields", lambda *given, **named: calls.append(given))
    Engine(encoders, readable, EmbedOptions(cache=ArrayCache(tmp_path)))
    assert calls == []


def test_a_model_without_an_image_tower_says_so(readable):
    class TextOnly(torch.nn.Module):
        width = 4
        schema = Schema(query={"query": Field()}, document={"title": Field()})
        preprocess = type(
            "P",
            (),
            {"text": staticmethod(lambda texts: torch.ones(len(texts), 2, dtype=torch.long)), "fingerprint": "p"},
        )()

        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def tower(self, modality):
            return self if modality is Modality.text else None

        def with_schema(self, schema):
            return self

        def embed_fields(self, batch, side):
            return torch.nn.functional.normalize(torch.ones(len(batch.present), 1, 4), dim=-1)

    titles = ListRecords(["a"], [{"title": "a"}], {"title": Field()})
    engine = Engine({"base": TextOnly()}, titles)
    assert not engine.accepts(Modality.image) and len(engine.search("x")["base"]) == 1
    with pytest.raises(BadRequest, match="cannot search by image"):
        engine.search(image=picture(1))


def test_weights_are_json_numbers(client):
    weights = json.dumps({"image": 0.5})
    assert client.get("/api/search", params={"text": "x", "weights": weights}).status_code == 200
