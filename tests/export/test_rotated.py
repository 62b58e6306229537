"""Rotated exports: no score changes, the first numbers are the best, and every export of a run has one rotation."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gcl.cli import main
from gcl.data.prepare.mixed import open_catalog
from gcl.data.store.vector_files import vector_batches
from gcl.exports.formats.registry import FORMATS
from gcl.exports.vectors.write import about_embeddings, embedding_files
from gcl.model.load import load_model
from gcl.model.rotated import keeps_ones, rotated, why_not
from gcl.model.rotation import Rotation, gram, principal_axes
from gcl.model.settings import Head, LoadOptions
from gcl.retrieval.embedding.embed import embed as embed_records
from gcl.run.contestants import tuned_encoder
from gcl.run.rotation import kept_rotation
from gcl.schema import Field, Schema
from helpers.tiny_encoder import tiny_encoder
from helpers.transformers_inputs import SCHEMA, TEXTS, embed, pictures
from helpers.transformers_models import FAMILIES

ROOT = Path(__file__).parents[2]


def rotation_for(encoder):
    """The axes of vectors that are not spread evenly."""
    draw = np.random.default_rng(0)
    spread = draw.standard_normal((500, encoder.width)) * np.geomspace(1, 0.01, encoder.width)
    mixed = spread @ np.linalg.qr(draw.standard_normal((encoder.width, encoder.width)))[0]
    return Rotation(principal_axes(gram([mixed.astype(np.float32)])), keeps_ones(encoder))


def expected(vectors, rotation, width):
    """Rotated, cut and made unit vectors again, in float64."""
    turned = vectors.astype(np.float64) @ rotation.axes(width).T
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)


def test_the_axes_are_those_of_the_singular_value_decomposition():
    vectors = np.random.default_rng(1).standard_normal((3000, 12)) * np.geomspace(3, 0.1, 12)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    principal = principal_axes(gram([vectors[:700], vectors[700:]]))
    reference = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)[2]
    assert np.allclose(np.abs((principal * reference).sum(axis=1)), 1)
    assert np.allclose(principal @ principal.T, np.eye(12), atol=1e-12)
    slow = sum(np.outer(v, v) for v in vectors.astype(np.float64))
    assert np.allclose(gram([vectors]), slow, rtol=1e-12)
    assert (gram([vectors]) == gram(iter([vectors]))).all() and Rotation(principal).digest
    turned = vectors.astype(np.float64) @ principal.T
    assert (np.diff((turned**2).sum(axis=0)) < 0).all(), "the largest first"


def uneven(width=600):
    """Unit vectors whose principal components are of very different sizes."""
    draw = np.random.default_rng(2)
    vectors = draw.standard_normal((400, width)) * np.arange(1, width + 1) ** -1.0
    turned = vectors @ np.linalg.qr(draw.standard_normal((width, width)))[0]
    return (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)


def test_the_first_numbers_are_the_best_and_spread_evenly():
    vectors = uneven()
    principal = principal_axes(gram([vectors]))
    rotation, kept = Rotation(principal), Rotation(principal, keep_ones=True)
    for one in (rotation, kept):
        axes = one.axes()
        assert np.allclose(axes @ axes.T, np.eye(600), atol=1e-10)
        for k in (128, 256, 512):  # with ones kept, k - 1 of the k best directions
            cosines = np.linalg.svd(axes[:k] @ principal[:k].T)[1]
            assert (cosines[: k - (one is kept)] > 1 - 1e-9).all()
    assert np.allclose(kept.axes() @ np.ones(600), np.ones(600))
    for k in (40, 128, 300):  # any cut of its own holds the k best
        assert (np.linalg.svd(rotation.axes(k) @ principal[:k].T)[1] > 1 - 1e-9).all()
        energy = (rotation.turn(vectors, k).astype(np.float64) ** 2).sum(axis=0)
        assert energy.max() < 6 * energy.mean() and ((vectors @ principal[0]) ** 2).sum() > 12 * energy.mean()

    def nearest(query, document):
        return np.argsort(-(query @ document.T), axis=1)[:, :10]

    def found(axes):
        """The share of each vector's ten nearest that the signs of the others' numbers find."""
        theirs, exact = nearest(vectors @ axes.T, np.sign(vectors @ axes.T)), nearest(vectors, vectors)
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(theirs, exact, strict=True)])

    for k in (40, 128):
        assert found(rotation.axes(k)) > found(principal[:k]) + 0.05


@pytest.mark.parametrize("family", [*FAMILIES, "tiny"])
def test_full_length_scores_do_not_change(small, family):
    images = list(pictures().values())
    if family == "tiny":
        encoder = tiny_encoder().eval()
        one = SimpleNamespace(
            encoder=encoder, **dict(zip(("texts", "images"), embed(encoder, images=images), strict=True))
        )
    else:
        one = small(family)
    encoder, rotation = one.encoder, rotation_for(one.encoder)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    for width in (None, encoder.width // 2):
        turned = rotated(encoder, rotation, width)
        texts, vectors = embed(turned, images=images)
        assert texts.shape[1] == turned.width == (width or encoder.width)
        for ours, theirs in ((texts, one.texts), (vectors, one.images)):
            assert np.abs(ours - expected(theirs, rotation, width)).max() < 1e-6
        if width is None:
            assert np.abs(vectors @ texts.T - one.images @ one.texts.T).max() < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())
    assert all(p.data_ptr() == q.data_ptr() for p, q in zip(
        encoder.model.parameters(), rotated(encoder, rotation).model.parameters(), strict=True
    ) if torch.equal(p, q)), "what does not change is shared"  # fmt: skip


@pytest.mark.parametrize("family, width", [("siglip-B", None), ("clip", None), ("clip", 8), ("siglip2-SO400M", 8)])
def test_other_libraries_load_rotated_vectors(small, family, width, tmp_path):
    one, images = small(family), list(pictures().values())
    rotation = rotation_for(one.encoder)
    turned = rotated(one.encoder, rotation, width)
    names = [
        name for name in ("open_clip", "transformers", "sentence_transformers") if not FORMATS[name].refuses(turned)
    ]
    assert names == (["open_clip"] if family.startswith("siglip") and width else list(FORMATS)[:3])
    for name in names:
        FORMATS[name].write(turned, tmp_path)
    for name in names:
        loaded = FORMATS[name].load(tmp_path)
        assert np.abs(loaded.texts(TEXTS[:4]) - expected(one.texts[:4], rotation, width)).max() < 1e-4
        assert np.abs(loaded.images(images[:2]) - expected(one.images[:2], rotation, width)).max() < 2e-2


@pytest.mark.parametrize("family, kind", [("siglip-B", Head.mlp), ("clip", Head.stages)])
def test_a_head_of_ones_own_is_rotated_in_its_last_layer(small, family, kind):
    images, options = list(pictures().values()), LoadOptions(head=kind)
    encoder = load_model(f"local-dir:{small(family).folder}", schema=SCHEMA, options=options).eval()
    rotation, (texts, vectors) = rotation_for(encoder), embed(encoder, images=images)
    for width in (None, 8):
        for ours, theirs in zip(embed(rotated(encoder, rotation, width), images=images), (texts, vectors), strict=True):
            assert np.abs(ours - expected(theirs, rotation, width)).max() < 2e-6


def test_what_has_no_place_for_a_cut_is_named(small):
    turned = rotated(small("siglip-B").encoder, rotation_for(small("siglip-B").encoder), 8)
    assert "SiglipModel has no place for one" in FORMATS["transformers"].refuses(turned)


def test_a_text_encoder_alone_gets_a_layer(bert, tmp_path):
    schema = Schema(query={"query": Field()}, document={"title": Field()})
    encoder = load_model(f"hf-text:{bert}", schema=schema).eval()
    rotation, (texts,) = rotation_for(encoder), embed(encoder)
    turned = rotated(encoder, rotation, 6)
    assert np.abs(embed(turned)[0] - expected(texts, rotation, 6)).max() < 1e-6
    FORMATS["sentence_transformers"].write(turned, tmp_path)
    loaded = FORMATS["sentence_transformers"].load(tmp_path)
    assert np.abs(loaded.texts(TEXTS[:4]) - expected(texts[:4], rotation, 6)).max() < 1e-5


def test_what_cannot_be_rotated_says_so(small):
    encoder = copy.copy(small("clip").encoder)
    encoder._modules = {"model": copy.deepcopy(encoder.model)}
    encoder.model.visual.proj = None
    assert "image tower ends in no layer" in why_not(encoder)
    with pytest.raises(ValueError, match="image tower ends in no layer"):
        rotated(encoder, Rotation(np.eye(24)))
    with pytest.raises(ValueError, match="dims=4096: this model's vectors have 24"):
        rotated(small("clip").encoder, Rotation(np.eye(24)), 4096)


def card_of(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_every_export_of_a_run_has_one_rotation(finished, exported_run, tmp_path):
    """The first rotated export keeps it; the vectors are the run's, turned."""
    assert "not rotated" in card_of(exported_run)
    main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", "rotate=true", "formats=[onnx]", "latency=0",
          "compare=20"])  # fmt: skip
    exported_run = tmp_path / "out"
    (kept,) = (finished.path / "rotations").iterdir()
    rotation = kept_rotation(finished, tuned_encoder(finished))
    assert f"`{rotation.digest}`" in card_of(exported_run) and "Never search vectors" in card_of(exported_run)
    run, images = tuned_encoder(finished), list(pictures().values())[:2]
    loaded = FORMATS["onnx"].load(exported_run)
    texts, vectors = embed(run, TEXTS[:4], images)
    assert np.abs(loaded.texts(TEXTS[:4]) - expected(texts, rotation, None)).max() < 1e-5
    assert np.abs(loaded.images(images) - expected(vectors, rotation, None)).max() < 1e-4
    assert rotation.digest == kept_rotation(finished, run).digest
    content = kept.read_bytes()
    kept.write_bytes(content[:-40])
    with pytest.raises(ValueError, match="is not whole"):
        kept_rotation(finished, run)
    kept.write_bytes(content)


def test_vectors_that_are_cut(finished, exported_run, tmp_path):
    out = tmp_path / "short"
    main(["export", f"run={finished.path}", f"out={out}", "dims=32", "formats=[open_clip,embeddings]", "queries=true",
          "latency=0", "compare=20"])  # fmt: skip
    run = tuned_encoder(finished)
    rotation = kept_rotation(finished, run)
    card = card_of(out)
    assert "the best 32 of 128 numbers" in card and f"`{rotation.digest}`" in card
    assert "## What 32 numbers lose" in card and "32 wide, int8, rotated" in card and "width 32" in card
    about = about_embeddings(out)
    assert (about["width"], about["rotation"]) == (32, rotation.digest)
    read = np.concatenate([v for path in embedding_files(out) for _, v in vector_batches(path, "vector")])
    prepared = open_catalog(finished.read_config().data, finished.read_config().cache_dir)
    whole = embed_records(run, prepared.documents, "document")
    fields = replace(whole, embedding=np.stack(
        [expected(whole.embedding[:, f] + 1e-12, rotation, 32) for f in range(whole.embedding.shape[1])], axis=1
    ).astype(np.float32))  # fmt: skip
    assert np.abs(read - fields.fused()).max() < 1e-4, "fields are cut and normalised before they are fused"


@pytest.mark.parametrize("words, told", [
    (["dims=4096"], "dims=4096: the run's vectors have 128 numbers"),
    (["dims=0"], "dims"),
    (["dims=16", "rotate=false"], "cuts rotated vectors: leave out rotate=false, or dims=16"),
])  # fmt: skip
def test_dims_that_are_refused(finished, tmp_path, capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_every_number_of_ranks_has_the_same_rotation_to_the_bit(finished, tmp_path):
    digests = set()
    for ranks in (1, 2, 3):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m",
                   "helpers.rotation_rank", str(finished.path), str(tmp_path / "digests.json")]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
                       "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        each = json.loads((tmp_path / "digests.json").read_text())
        assert len(each) == ranks
        digests |= set(each)
    assert len(digests) == 1
