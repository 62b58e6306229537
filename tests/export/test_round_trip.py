"""The round trip: a faithful export passes in a fresh process; a sabotaged one is caught, and the place is named."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gcl.exports.formats.registry import FORMATS
from gcl.exports.verify.case import make_case
from gcl.exports.verify.diagnose import first_difference
from gcl.exports.verify.golden import damaged_texts, golden_images, golden_texts
from gcl.exports.verify.round_trip import LEAST_COSINE, NEAR, RoundTripError, round_trip, round_trip_table
from gcl.exports.verify.worker import compare
from gcl.model.load import load_model
from gcl.retrieval.embedding.embed import embed
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field, Images, Modality, Schema

SCHEMA = Schema(
    query={"query": Field(prompt="search: {}")},
    document={
        "image": Field(Modality.image, weight=0.7),
        "title": Field(weight=0.3),
        "views": Field(Modality.image, weight=0.2, images=Images.all),
    },
)


@pytest.fixture(scope="module")
def task():
    """12 products, some without a picture or title, some with several views, asked for by 5 queries; one title is
    written twice."""
    random = np.random.default_rng(0)

    def photo(number):
        file = io.BytesIO()
        colours = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((50, 60 + number)).save(file, "JPEG")
        return file.getvalue()

    titles = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("shoe", "mug", "dress", "shoe")]
    products = [
        {"image": photo(n) if n % 5 else None, "title": title if n % 4 else None} for n, title in enumerate(titles)
    ]
    for n in range(0, 12, 3):
        products[n]["views"] = tuple(photo(20 + n + view) for view in range(1 + n // 3))
    products[0] = {"image": None, "title": "caf&eacute; cup"}
    queries = ["red shoe", "blue mug", "dress", "something green", "SHOE"]
    qrels = {f"q{n}": {f"p{n}": 1.0} for n in range(5)}
    return task_from_qrels(
        "small.dev",
        ListRecords([f"q{n}" for n in range(5)], [{"query": text} for text in queries], SCHEMA.query),
        ListRecords([f"p{n}" for n in range(12)], products, SCHEMA.document),
        qrels,
    )


@pytest.fixture(scope="module")
def models(small, exported, task):
    """models(family): encoder through SCHEMA, its exported folder, its case."""

    def one(family):
        encoder = small(family).encoder.with_schema(SCHEMA)
        return encoder, exported(family)[0], make_case(encoder, [task])

    found = {}
    return lambda family: found.setdefault(family, one(family)) if family not in found else found[family]


def test_golden_inputs_are_what_they_are_called():
    opened = {name: Image.open(io.BytesIO(data)) for name, data in golden_images().items()}
    for name, image in opened.items():
        expected = name.split()[0].rstrip(",")
        if expected in ("RGB", "RGBA", "L", "LA", "P", "CMYK"):
            assert image.mode == expected, name
    assert opened["16-bit PNG"].mode.startswith("I;16") and opened["1-bit PNG"].mode == "1"
    assert "transparency" in opened["P PNG, transparent"].info
    assert opened["JPEG that lies on its side (EXIF)"].getexif()[0x0112] == 6
    assert golden_images() == golden_images()
    texts = golden_texts()
    assert texts["empty"] == "" and len(texts["beyond the context"].split()) > 77


def test_a_case_has_texts_as_they_are_repaired(models):
    _, _, case = models("clip")
    assert [case.text_names[row] for row in case.damaged] == [*damaged_texts()]
    assert "café cup" in case.texts  # a task's texts are compared as repaired


def test_records_of_a_case_have_the_vectors_that_measuring_gives_them(models, task):
    encoder, _, case = models("clip")
    found = case.tasks[0].document.fused(case.text_vectors, case.image_vectors)
    assert np.allclose(found[1:], embed(encoder, task.corpus, "document").fused()[1:], atol=1e-5)


def test_a_drawn_task_keeps_the_judged_documents(models, task):
    encoder, *_ = models("clip")
    case = make_case(encoder, [task], queries=2, documents=4)
    sample = case.tasks[0]
    assert len(sample.queries) == 2 and len(sample.documents) == 4 and not sample.whole
    assert {f"p{name[1:]}" for name in sample.queries} <= set(sample.documents)
    assert make_case(encoder, [task]).tasks[0].whole


def test_the_case_searches_as_the_run_does(models, task):
    """Vectors fused from the case's unique values are those of the run's own evaluation."""
    from gcl.retrieval.embedding.embed import embed

    encoder, _, case = models("clip")
    sample = case.tasks[0]
    found = sample.document.fused(case.text_vectors, case.image_vectors)
    expected = embed(encoder, task.corpus, "document").fused()
    assert np.allclose(found[1:], expected[1:], atol=1e-5)  # the first title was repaired, which the run does, too
    assert np.allclose(found[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("family", ["clip", "siglip2-B"])
def test_every_native_format_passes(models, family):
    _encoder, folder, case = models(family)
    for name in ("open_clip", "transformers", "sentence_transformers"):
        found = compare(case, FORMATS[name].load(folder), near=NEAR)
        assert min(found["text"]["lowest"], found["image"]["lowest"]) >= LEAST_COSINE, (name, found)
        assert found["tasks"]["small.dev"]["different"] == 0


@pytest.mark.slow
def test_a_fresh_process_compares_all_formats(models):
    encoder, folder, case = models("clip")
    names = ("open_clip", "transformers", "sentence_transformers")
    found = round_trip(encoder, folder, [FORMATS[name] for name in names], case)
    assert list(found) == [*names]
    table = "\n".join(round_trip_table(found))
    assert "| transformers | 1.0000" in table and "small.dev | 5 of 5 | 0 | 0 |" in table
    assert "texts in need of a repair, as transformers reads them" in table
    assert "as open_clip reads them" not in table


def _weight(part):
    def change(folder):
        torch.manual_seed(0)
        state = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(state) if part in name)
        state[name] += 0.3 * torch.randn_like(state[name])
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def _setting(file, key, value):
    def change(folder):
        content = json.loads((folder / file).read_text())
        content[key] = value
        (folder / file).write_text(json.dumps(content))

    return change


def _no_lowercase(folder):
    def without(node):
        if isinstance(node, dict):
            return {key: without(value) for key, value in node.items()}
        if isinstance(node, list):
            return [without(one) for one in node if not (isinstance(one, dict) and one.get("type") == "Lowercase")]
        return node

    file = folder / "tokenizer.json"
    file.write_text(json.dumps(without(json.loads(file.read_text()))))


SABOTAGES = {
    "a weight of attention": (
        _weight("vision_model.encoder.layers.1.self_attn.k_proj.weight"),
        ("The first layer that differs is vision_model.encoder.layers.1.",
         "These weights of the export differ: vision_model.encoder.layers.1.self_attn.k_proj.weight."),
    ),
    "a weight of an MLP": (
        _weight("text_model.encoder.layers.0.mlp.fc1.weight"),
        ("The first layer that differs is text_model.encoder.layers.0.mlp.fc1 (",),
    ),
    "the patches": (
        _weight("patch_embedding.weight"),
        ("The first layer that differs is vision_model.embeddings.patch_embedding (",),
    ),
    "the positions": (
        _weight("text_model.embeddings.position_embedding.weight"),
        ("text_model.encoder.layers.0.layer_norm1 (", "text_model.embeddings.position_embedding.weight"),
    ),
    "the mean": (
        _setting("preprocessor_config.json", "image_mean", [0.48, 0.45, 0.4]),
        ("normalised with mean [0.48, 0.45, 0.4] and deviation [0.5, 0.6, 0.7] instead of [0.5, 0.4, 0.3]",),
    ),
    "the resizing": (
        _setting("preprocessor_config.json", "resample", 0), ("Preprocessing differs: decoding, resizing or cropping",)
    ),
    "the padding side": (
        _setting("tokenizer_config.json", "padding_side", "left"),
        ("Tokenisation differs (the words are the same, but padding",),
    ),
    "lowercasing": (_no_lowercase, ("Tokenisation differs (the export does not lower upper case, the run does)",)),
}  # fmt: skip


@pytest.mark.parametrize("family", ["clip", pytest.param("siglip2-B", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", SABOTAGES)
def test_sabotage_is_named(models, tmp_path, family, what):
    encoder, folder, case = models(family)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    sabotage, sentences = SABOTAGES[what]
    sabotage(broken)
    loaded = FORMATS["transformers"].load(broken)
    found = compare(case, loaded, near=NEAR)
    kind = min(("text", "image"), key=lambda kind: found[kind]["lowest"])
    assert found[kind]["lowest"] < LEAST_COSINE
    value = (case.texts if kind == "text" else case.images)[found[kind]["row"]]
    said = first_difference(encoder, loaded, Modality(kind), value)
    assert all(sentence in said for sentence in sentences), said


def test_a_sabotaged_export_is_refused_by_the_fresh_process(models, tmp_path):
    encoder, folder, case = models("clip")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    _weight("vision_model.encoder.layers.0.mlp.fc2.weight")(broken)
    with pytest.raises(
        RoundTripError, match="The export as transformers is not the run's model: for the image"
    ) as error:
        round_trip(encoder, broken, [FORMATS["transformers"]], case)
    assert "The first layer that differs is vision_model.encoder.layers.0.mlp.fc2 (visual." in str(error.value)


@pytest.mark.slow
def test_an_export_that_cannot_be_loaded_is_refused(models, tmp_path):
    encoder, folder, case = models("clip")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RoundTripError, match="cannot be loaded again in a fresh process: "):
        round_trip(encoder, broken, [FORMATS["transformers"]], case)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=SCHEMA).eval()
    folder = tmp_path_factory.mktemp("graphs")
    FORMATS["onnx"].write(encoder, folder)
    return encoder, folder


@pytest.mark.slow
def test_an_onnx_export_names_preprocessing_tokens_or_tower(graphs, task, tmp_path):
    encoder, folder = graphs
    case = make_case(encoder, [task])
    found = compare(case, FORMATS["onnx"].load(folder), near=NEAR)
    assert found["image"]["lowest"] >= LEAST_COSINE and found["tasks"]["small.dev"]["different"] == 0

    other = load_model("gcl-tiny", schema=SCHEMA).eval()
    other.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        other.model.visual.trunk.conv_stem.weight.mul_(-1)
    loaded, picture = FORMATS["onnx"].load(folder), golden_images()["RGB PNG"]
    said = first_difference(other, loaded, Modality.image, picture)
    assert "it is the image tower's graph, onnx/image.onnx" in said
    assert first_difference(other, loaded, Modality.text, "red shoe") == ""
    loaded.preprocess.resize = "longest"
    assert first_difference(encoder, loaded, Modality.image, golden_images()["very wide"]).startswith("Preprocessing")


def test_searches_may_swap_near_ties_and_nothing_else(models):
    """Vectors turned a little: places change among documents whose scores are closer than `near`, which is counted."""
    _, folder, case = models("clip")
    loaded = FORMATS["open_clip"].load(folder)

    class Turned:
        def texts(self, texts):
            return loaded.texts(texts)

        def images(self, images):
            noise = np.random.default_rng(len(images)).normal(size=(len(images), case.text_vectors.shape[1]))
            return loaded.images(images) + 0.2 * noise.astype(np.float32)

    strict = compare(case, Turned(), near=1e-6)["tasks"]["small.dev"]
    loose = compare(case, Turned(), near=10.0)["tasks"]["small.dev"]
    assert strict["different"] > 0 and strict["shown"][0]["gap"] > 1e-6
    assert loose["different"] == 0 and loose["tied"] >= strict["different"]
    assert strict["equal"] == loose["equal"] < 5
