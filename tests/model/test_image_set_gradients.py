"""Documents with sets of images are what slow float64 arithmetic, image by image, says they are: vectors, loss and
gradients, on one and two ranks, in micro-batches and tiles, through cached features; a set of one is that image."""

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gcl.data.batches.batch import PairBatch, SideReader, rows_of, share
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.files.arrays import ArrayCache
from gcl.lit.module import GCLModule
from gcl.loss.gcl import GCLLoss, Part
from gcl.model.features import cached_features
from gcl.model.fusion import fuse_images
from gcl.model.load import load_model
from gcl.retrieval.embedding.embed import EmbedOptions, embed, embedding_key
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Images, Modality, Schema
from helpers.tiny_encoder import picture

COUNTS = (3, 1, 0, 2, 5, 1, 0, 2)  # images of each document; some are shown by several documents
QUERY = np.array([0, 1, 2, 0, 3, 4, 5, 1, 2])
DOCUMENT = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0])
FIELD = {"images": Images.all, "weight": 0.75}


def schema(**field) -> Schema:
    return Schema(
        query={"query": Field(), "photo": Field(Modality.image, images=Images.all, weight=0.5)},
        document={"image": Field(Modality.image, **field), "title": Field(weight=0.25), "back": Field(Modality.image)},
    )


def documents(counts=COUNTS, side=None):
    records = []
    for row, count in enumerate(counts):
        images = tuple(picture((row * 3 + n) % 11) for n in range(count)) or None
        title = None if count and row % 4 == 3 else f"red thing no {row}"
        records.append({"image": images, "title": title, "back": picture(20 + row) if row % 2 else None})
    return ListRecords([f"d{row}" for row in range(len(counts))], records, side or schema(**FIELD).document)


def queries():
    photos = [None, (picture(1), picture(2)), None, (picture(3),), None, (picture(4), picture(5), picture(4))]
    records = [{"query": f"thing no {row}", "photo": photo} for row, photo in enumerate(photos)]
    return ListRecords([f"q{row}" for row in range(6)], records, schema(**FIELD).query)


def make_module(micro_batch=None, tile=None):
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=schema(**FIELD)).double()
    return GCLModule(encoder, GCLLoss(scale=5.0, tile=tile).double(), None, micro_batch=micro_batch)


def make_batch(encoder, rank=0, world=1) -> PairBatch:
    sides = {}
    for name, records, rows in (("query", queries(), QUERY), ("document", documents(), DOCUMENT)):
        own, position = share(rows, rank, world)
        sides[name] = SideReader(records, encoder.schema.side(name), encoder.preprocess)(own), position
    score = torch.linspace(1, 3, len(QUERY), dtype=torch.float64)
    ids = torch.from_numpy(QUERY), torch.from_numpy(DOCUMENT)
    return PairBatch(
        sides["query"][0], sides["document"][0], sides["query"][1], sides["document"][1], score, *ids, step=0
    )


def one_by_one(encoder, records, side):
    """[M, D]: every value through its tower alone, sums written out."""
    fields, vectors = encoder.schema.side(side), []

    def unit(x):
        return x / x.square().sum().sqrt()

    def vector(modality, value):
        tower = encoder.required_tower(modality)
        return unit(tower.head(encoder.trunk_features(modality, value))[0])

    for row in range(len(records)):
        total = 0
        for name, field in fields.items():
            value = records[row][name]
            if value is None:
                continue
            if field.modality is Modality.text:
                one = vector(Modality.text, encoder.preprocess.text([value]))
            elif isinstance(value, tuple):
                several = [vector(Modality.image, encoder.preprocess.image(image)[None]) for image in value]
                one = unit(sum(several) / len(several)) if len(several) > 1 else several[0]
            else:
                one = vector(Modality.image, encoder.preprocess.image(value)[None])
            total = total + field.weight * one
        vectors.append(unit(total))
    return torch.stack(vectors)


def results(module, loss):
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def expected():
    module = make_module()
    encoder = module.encoder
    query = one_by_one(encoder, queries(), "query")[QUERY]
    document = one_by_one(encoder, documents(), "document")[DOCUMENT]
    batch = make_batch(encoder)
    loss = module.loss(
        {"fused": Part(query, None)}, {"fused": Part(document, None)}, score=batch.score,
        query_id=batch.query_id, document_id=batch.document_id,
    ).loss  # fmt: skip
    return results(module, loss)


WAYS = [(None, None), (1, None), (2, 4), (3, 4)]  # micro-batch, tile


def check(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-11 * max(1.0, float(value.abs().max())), name


@pytest.fixture(scope="module")
def wanted():
    return expected()


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradient_are_the_reference(wanted, way):
    module = make_module(*way)
    check(results(module, module.contrast(make_batch(module.encoder)).loss), wanted)


def one_rank(rank, store, answers):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for way in WAYS:
        module = make_module(*way)
        batch = make_batch(module.encoder, rank, 2)
        found = results(module, module.contrast(batch).loss)
        for parameter in module.parameters():
            if parameter.grad is not None:  # as DistributedDataParallel does
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2
        if rank == 0:
            answers.put({name: value.numpy() for name, value in found.items()})
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process")  # a forked rank has imported everything; it uses one thread
def test_two_ranks_are_the_reference(wanted, tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=one_rank, args=(rank, tmp_path / "store", answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    for _ in WAYS:
        check({name: torch.from_numpy(value) for name, value in answers.get(timeout=900).items()}, wanted)
    for process in ranks:
        process.join(900)
        assert process.exitcode == 0


def test_a_set_of_one_or_none_is_the_single_image_bit_for_bit():
    counts = [min(count, 1) for count in COUNTS]
    batches, vectors = [], []
    for images in (Images.first, Images.all):
        torch.manual_seed(0)
        encoder = load_model("gcl-tiny", schema=schema(images=images, weight=0.75))
        records = documents(counts)
        if images is Images.first:
            single = [record | {"image": record["image"] and record["image"][0]} for record in records.records]
            records = ListRecords(records.ids, single, encoder.schema.document)
        batch = SideReader(records, encoder.schema.document, encoder.preprocess)(np.arange(len(counts)))
        batches.append(encoder(batch, "document"))
        batches[-1].square().sum(1)[::2].sum().backward()
        vectors.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert torch.equal(*batches) and torch.equal(*vectors)


def test_neighbours_do_not_change_a_set():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator), dim=-1)
    owner = torch.repeat_interleave(torch.arange(6), torch.tensor([3, 1, 16, 2, 11, 7]))
    sets, together = fuse_images(vectors, owner)
    assert sets.tolist() == list(range(6))
    for number in range(6):
        assert torch.equal(fuse_images(vectors[owner == number], owner[owner == number])[1][0], together[number])


def test_opposite_images_have_no_direction_and_finite_gradients():
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    _, fused = fuse_images(vectors, torch.tensor([0, 0, 1]))
    fused.sum().backward()
    assert fused.tolist() == [[0, 0], [0, 1]] and torch.isfinite(vectors.grad).all()


def test_measuring_is_the_reference(tmp_path):
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=schema(**FIELD)).eval()
    wanted = one_by_one(encoder, documents(), "document")
    for size in (1, 3, 64):  # blocks of records, read in pieces of as many images
        found = embed(encoder, documents(), "document", EmbedOptions(batch_size=size))
        assert np.allclose(found.fused(), wanted.detach().numpy(), atol=2e-6)
    one = documents([min(count, 1) for count in COUNTS])
    keys = {embedding_key(encoder, some, encoder.schema.document) for some in (documents(), one)}
    fewer = documents((2, *COUNTS[1:]))
    assert len(keys | {embedding_key(encoder, fewer, encoder.schema.document)}) == 3


def test_cached_features_are_one_row_an_image_and_the_same_documents(tmp_path):
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=schema(**FIELD)).eval()
    for modality in Modality:
        for part in encoder.tower(modality).trunk_parts:
            part.requires_grad_(False)
    side, given = encoder.schema.document, documents()
    with ShardWriter(tmp_path / "store", "documents", side=side) as writer:
        for name, record in zip(given.ids, given.records, strict=True):
            writer.write(name, record)
    store = RecordStore(tmp_path / "store", "documents", side)
    cache = ArrayCache(tmp_path / "cache", 1 << 30)
    features = cached_features(encoder, {"document": store}, cache, batch_size=3, progress=False)["document"]
    assert [len(features[name]) for name in side] == [sum(COUNTS), len(COUNTS), len(COUNTS)]
    rows = np.array([4, 2, 0, 7, 1, 3])
    raw, cached = (SideReader(store, side, encoder.preprocess, some)(rows) for some in (None, features))
    assert torch.allclose(encoder(raw, "document"), encoder(cached, "document"), atol=1e-6)
    pieces = [encoder(rows_of(cached, start, start + 2), "document") for start in (0, 2, 4)]
    assert torch.allclose(encoder(cached, "document"), torch.cat(pieces), atol=1e-6)
    subset = embed(encoder, store.subset(rows), "document", EmbedOptions(features={"document": features}))
    assert np.allclose(subset.fused(), encoder(raw, "document").detach().numpy(), atol=1e-6)
