"""gcl.load and gcl.Model: what a program holds is embedded as the commands embed what is in files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import gcl
from gcl.data.prepare.mixed import open_catalog
from gcl.data.tables.frame import write_frame
from gcl.retrieval.embedding.embed import EmbedOptions, embed


def test_importing_loads_nothing_and_every_name_is_there():
    heavy = "{'torch', 'numpy', 'pyarrow', 'omegaconf', 'hydra', 'lightning', 'open_clip', 'pandas'}"
    code = f"import gcl, sys; names = dir(gcl); assert not {heavy} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(gcl, name) for name in dir(gcl)) and set(gcl.__all__) == set(dir(gcl))
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = gcl.lod


def test_the_package_says_that_it_is_typed():
    assert (Path(gcl.__file__).parent / "py.typed").is_file()


def test_a_frame_gives_the_bits_of_the_prepared_catalog(model, finished, products):
    """Products as the commands embed them, from shards, and as the API does, from rows in memory."""
    config = finished.read_config()
    prepared = open_catalog(config.data, config.cache_dir)
    stored = embed(model.encoder, prepared.documents, "document", EmbedOptions(config.evaluate.batch_size)).fused()
    rows = [next(row for row in products if row["product_id"] == name) for name in prepared.documents.ids]
    assert (model.embed_documents(rows) == stored).all()
    queries = [prepared.queries[row]["query"] for row in range(len(prepared.queries))]
    stored = embed(model.encoder, prepared.queries, "query", EmbedOptions(config.evaluate.batch_size)).fused()
    assert (model.embed_queries(queries) == stored).all()


def test_every_form_of_the_same_rows_gives_the_same_vectors(model, products):
    expected = model.embed_documents(products)
    assert expected.shape == (48, model.width) and expected.dtype == np.float32
    assert np.allclose(np.linalg.norm(expected, axis=1), 1)
    frames = [pd.DataFrame(products), pd.DataFrame(products).set_index("product_id"), pl.DataFrame(products),
              pa.Table.from_pylist(products)]  # fmt: skip
    for frame in frames:
        assert (model.embed_documents(frame) == expected).all(), type(frame)
    in_bytes = [{**row, "image": row["image"] and Path(row["image"]).read_bytes()} for row in products]
    opened = [{**row, "image": row["image"] and Image.open(row["image"])} for row in products]
    mixed = [*products[:10], *in_bytes[10:20], *opened[20:30],
             *({**row, "image": row["image"] and Path(row["image"])} for row in products[30:])]  # fmt: skip
    for rows in (in_bytes, opened, mixed, pd.DataFrame(opened), pd.DataFrame(in_bytes)):
        assert (model.embed_documents(rows) == expected).all()


def test_a_series_is_a_list_and_a_lazy_frame_is_collected(model, products):
    texts = ["red shoe", "blue mug"]
    expected = model.embed_queries(texts)
    for column in (pd.Series(texts), pl.Series(texts), pa.array(texts), pa.chunked_array([texts]), np.array(texts)):
        assert (model.embed_queries(column) == expected).all(), type(column)
    with pytest.raises(ValueError, match="1 of 2 rows have nothing to embed, the first is row 1"):
        model.embed_queries(pd.Series(["red shoe", None]))
    lazy = pl.DataFrame(products[:4]).lazy()
    assert (model.embed_documents(lazy) == model.embed_documents(products[:4])).all()
    assert model.index(lazy).search("red", k=1).records[0]["product_id"] in {row["product_id"] for row in products[:4]}


def test_what_is_missing_is_absent_and_other_columns_are_left_out(model):
    plain = model.embed_documents([{"title": "red shoe"}])
    for row in ({"title": "red shoe", "price": 3.5}, {"title": "red shoe", "image": None, "brand": float("nan")},
                {"title": "red shoe", "brand": "NULL"}):  # fmt: skip
        assert (model.embed_documents([row]) == plain).all()
    assert model.embed_documents([]).shape == (0, model.width)
    assert (model.embed_queries(["red shoe"]) == model.embed_queries([{"query": "red shoe"}])).all()


def test_an_image_that_cannot_be_used_is_absent_and_said(model, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no image")
    rows = [{"title": "red shoe", "image": path} for path in (None, str(broken), "nowhere.jpg")]
    with pytest.warns(UserWarning, match=r"2 of 3 rows have an image that cannot be used.*row 1.*cut off or damaged"):
        vectors = model.embed_documents(rows)
    assert (vectors[1:] == vectors[0]).all()


def test_images_behind_a_login_are_fetched_with_the_key_of_the_environment(
    finished, products, private_images, judged, tmp_path, monkeypatch
):
    host, urls = private_images
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_KEY", "5ecret")
    access = {"headers": {"Authorization": "Bearer $SHOP_KEY"}, "hosts": [host], "private": True, "rate": None}
    expected = gcl.load(finished).embed_documents(products[:6])
    for download in ({"private": True}, None):  # without a key; and as a run comes, which asks no private address
        stranger = gcl.load(finished, download=download)
        stranger.cache_dir = tmp_path / "empty"
        with pytest.warns(UserWarning, match="rows have an image that cannot be used"):
            assert not np.allclose(stranger.embed_documents(urls[:6]), expected)
    model = gcl.load(finished, download=access)
    model.cache_dir = tmp_path / "prepared"
    assert (model.embed_documents(urls[:6]) == expected).all()
    settings = {f"data.download.{key}": value for key, value in access.items()} | {"cache_dir": str(model.cache_dir)}
    of_urls, of_files = (gcl.evaluate(model, products=rows, **judged, **settings) for rows in (urls, products))
    assert of_urls.to_dicts() == of_files.to_dicts()
    assert not any(b"5ecret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(ValueError, match="no setting .*header'"):
        gcl.load(finished, download={"header": {}})


def test_mistakes_are_answered_in_sentences(model, finished, tmp_path):
    for rows, said in (
        ([{"titel": "x"}], r"none of the columns that the model reads \(image, title, brand\). Did you mean titel"),
        (["red shoe"], r"Documents have 2 text fields \(title, brand\): write each as a dict"),
        ([{"title": "x"}, {"title": ""}], r"1 of 2 rows have nothing to embed, the first is row 1: each needs one of"),
        ([{"title": "x", "image": object()}], r"'image' holds a value of the type object"),
        ("red shoe", r"Documents are a list .* given a value of the type str"),
    ):
        with pytest.raises(ValueError, match=said):
            model.embed_documents(rows)
    with pytest.raises(FileNotFoundError, match="There is no folder outputs/nowhere: expected a run folder"):
        gcl.load("outputs/nowhere")
    with pytest.raises(ValueError, match="is not an open_clip folder"):
        gcl.load(tmp_path)
    with pytest.raises(ValueError, match="which is one of tuned, base; given 'best'"):
        gcl.load(finished, which="best")
    with pytest.raises(ValueError, match="device='nonsense': expected cpu, cuda"):
        gcl.load(finished, device="nonsense")


def test_a_pretrained_model_is_loaded_with_fields_of_ones_own():
    plain = gcl.load("tiny")
    assert list(plain.catalog.document) == ["image", "title"] and list(plain.catalog.query) == ["query"]
    own = gcl.load("tiny", document={"name": {"weight": 0.3, "column": "Product Name"}, "photo": "image"})
    assert own.catalog.document["photo"].modality.value == "image"
    rows = [{"Product Name": "red shoe"}, {"name": "red shoe"}]
    assert (own.embed_documents(rows[:1]) == own.embed_documents(rows[1:])).all()
    assert (own.embed_queries(["red shoe"]) == plain.embed_queries(["red shoe"])).all()  # weights from one seed
    with pytest.raises(ValueError, match="no setting .*wieght"):
        gcl.load("tiny", document={"name": {"wieght": 0.3}})


def test_a_run_is_loaded_as_it_began_too(finished, products):
    tuned, base = gcl.load(finished), gcl.load(finished, which="base")
    assert not np.allclose(tuned.embed_documents(products), base.embed_documents(products))


def test_frames_of_every_library_are_written_as_one_file(products, tmp_path):
    texts = pd.DataFrame(products).astype({"brand": "category"}), pl.DataFrame(products).cast({"brand": pl.Categorical})
    frames = [products, pd.DataFrame(products), pl.DataFrame(products), pa.Table.from_pylist(products), *texts]
    assert len({write_frame(frame, tmp_path, "products") for frame in frames}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [write_frame(products, tmp_path, "products").name]
