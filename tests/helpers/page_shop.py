"""A small shop with everything that goes wrong in a catalog, and a real browser to look at its page with."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gcl.retrieval.evaluate import result_of
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field, Modality, Schema
from helpers.browser import TIMEOUT

ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202e{{7*7}} & \"co\""
METRICS = ["ndcg@10", "recall@10"]


def picture(number: int, size: tuple[int, int] = (140, 200)) -> bytes:
    image = Image.new("RGB", size, "white")
    color = tuple(int(c) for c in np.random.default_rng(number).integers(40, 220, 3))
    ImageDraw.Draw(image).ellipse([20, 40, size[0] - 20, size[1] - 20], fill=color)
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def shop(products: int = 40) -> ListRecords:
    """Product 0 attacks; 1 has no picture; 2 a broken one; 3 is 4 once more; 5 and 6 share a title only."""
    records = [{"image": picture(n), "title": f"Product number {n}"} for n in range(products)]
    records[0]["title"] = ATTACK
    records[1]["image"] = None
    records[2]["image"] = b"not a picture"
    records[3] = dict(records[4])
    records[5]["title"] = records[6]["title"]
    side = {"image": Field(Modality.image, 0.9), "title": Field(Modality.text, 0.1)}
    return ListRecords([f"p{n}" for n in range(products)], records, side)


def answers(task, quality: float, *, k: int = 20, seed: int = 0):
    """What a model of some quality answers."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(len(task.queries), len(task.corpus))).astype(np.float32)
    np.add.at(score, (task.judgments.query, task.judgments.document), quality * (task.judgments.relevance > 0))
    row = np.argsort(-score, axis=1)[:, :k]
    return result_of(task, np.take_along_axis(score, row, 1), row, METRICS)


def shop_task(name: str, corpus: ListRecords, texts: list[str], *, pictures: bool = False, seed: int = 0):
    rng = np.random.default_rng(seed)
    ids = [f"{name}-{n}" for n in range(len(texts))]
    side = {"words": Field()} | ({"photo": Field(Modality.image)} if pictures else {})
    records = [{"words": text} for text in texts]
    if pictures:
        records = [{"words": None, "photo": picture(900 + n)} for n in range(len(texts))]
    qrels = {
        query: {f"p{d}": float(g) for d, g in zip(rng.permutation(len(corpus))[:4], (3, 2, 1, 0), strict=True)}
        for query in ids
    }
    return task_from_qrels(name, ListRecords(ids, records, side), corpus, qrels)


@pytest.fixture(scope="session")
def tasks():
    corpus = shop()
    texts = [f"search {'for ' * (n % 3)}thing {n}" for n in range(58)] + [ATTACK, "Café crème"]
    return [
        shop_task("in_domain.test", corpus, texts, seed=1),
        shop_task("zero_shot.test", corpus, texts, seed=2),
        shop_task("photo.test", corpus, ["x"] * 12, pictures=True, seed=3),
    ]


@pytest.fixture(scope="session")
def models(tasks):
    """Keyed as a run keys them: by the task's name without its part."""
    return {
        label: {task.name.removesuffix(".test"): answers(task, quality, seed=seed) for task in tasks}
        for label, quality, seed in (("base", 1.0, 1), ("tuned", 2.0, 2))
    }


@pytest.fixture(scope="session")
def curve(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    lines = ["epoch,step,train/loss,dev/zero_shot/ndcg@10,dev/in_domain/ndcg@10,dev/ndcg@10"]
    lines += [f"0,{step},{5 / (1 + step / 50):.4f},,," for step in range(0, 500)]
    lines += [
        f"0,{step},,{0.3 + step / 2000:.3f},{0.4 + step / 1500:.3f},{0.35 + step / 1700:.3f}" for step in (99, 299, 499)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def readable():
    """The shop without its broken picture, which `prepare` would have kept out."""
    corpus = shop()
    records = [dict(record) for record in corpus.records]
    records[2]["image"] = None
    return ListRecords(corpus.ids, records, corpus.side)


@pytest.fixture(scope="session")
def encoders(readable):
    """Two untrained models that differ."""
    import torch

    from gcl.model.load import load_model

    schema = Schema(query={"query": Field(prompt="a photo of {}")}, document=readable.side)
    found = {}
    for seed, label in enumerate(("base", "tuned")):
        torch.manual_seed(seed)
        found[label] = load_model("gcl-tiny", schema=schema).eval()
    return found


def shop_table(products: int = 40) -> list[tuple[list[str], dict[str, list[str | None]], str]]:
    """The further columns of the shop's products table, in two blocks; product 1 is in none of them."""
    rows = [n for n in range(products) if n != 1]
    columns = {
        "category": lambda n: ["Shoes", "Bags", ATTACK[:40]][n % 3],
        "price": lambda n: f"{10 + n}.50 EUR" if n % 10 else None,
        "barcode": lambda n: str(4006381333000 + n),
        "page": lambda n: f"https://shop.example/p{n}",
        "photo_url": lambda n: f"https://shop.example/p{n}.jpg",
    }
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return [
        ([f"p{n}" for n in half], {name: list(map(of, half)) for name, of in columns.items()}, ".") for half in halves
    ]


@pytest.fixture(scope="session")
def columns(readable):
    from gcl.serve.facets import columns_of

    return columns_of(readable, shop_table())


@pytest.fixture(scope="session")
def engine(encoders, readable, columns, tmp_path_factory):
    from gcl.files.arrays import ArrayCache
    from gcl.retrieval.embedding.embed import EmbedOptions
    from gcl.serve.engine import Engine

    embedding = EmbedOptions(cache=ArrayCache(tmp_path_factory.mktemp("cache")))
    return Engine(encoders, readable, embedding, facets=columns.facets)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where pictures of the pages go: GCL_SCREENSHOTS, or pytest's own folder."""
    folder = os.environ.get("GCL_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def open_page(chromium):
    """open_page(address, width=…, dark=…) -> a page without network; the test fails for errors and foreign requests."""
    contexts, troubles = [], []

    def opened(address: str, *, width: int = 1280, height: int = 900, dark: bool = False, allowed: str | None = None):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        own = address.partition("#")[0]

        def foreign(request) -> bool:
            url = request.url.partition("#")[0]
            return url != own and not url.startswith(("data:", "blob:", allowed or "data:"))

        page.on("request", lambda r: troubles.append(f"request of {r.url}") if foreign(r) else None)
        page.goto(address)
        return page

    opened.troubles = troubles
    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
