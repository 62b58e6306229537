"""From a step to tensors: the same on any number of workers and ranks, after any resume, with the right values."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gcl.data.batches.batch import Features, PairDataset, RowsDataset, SideReader, TextCache, share
from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.schema import Field, Modality

QUERY = {"query": Field(prompt="search for {}")}
DOCUMENT = {"image": Field(Modality.image, 0.9), "title": Field(weight=0.1), "brand": Field()}
QUERIES, DOCUMENTS, PAIRS, STEPS = 40, 90, 230, 14


class TinyPreprocess:
    """Image bytes become 2 x 2 pixels, texts the code points of their first characters; counts what it is asked."""

    size = (2, 2)

    def __init__(self):
        self.texts = []

    def image(self, data):
        if data.startswith(b"broken"):
            raise ValueError("no such format")
        return torch.tensor(list(data[3:15]), dtype=torch.uint8).reshape(3, 2, 2)

    def text(self, texts):
        self.texts += texts
        return torch.tensor([[*map(ord, text[:16].ljust(16)), len(text)] for text in texts])

    def augment(self, data, rng):
        return self.image(data) + torch.from_numpy(rng.integers(0, 250, (3, 2, 2), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    with ShardWriter(folder, "queries", side=QUERY) as writer:
        for i in range(QUERIES):
            writer.write(f"q{i}", {"query": f"thing {i}"})
    with ShardWriter(folder, "documents", side=DOCUMENT, shard_bytes=10_000) as writer:
        for i in range(DOCUMENTS):
            image = b"\xff\xd8\xff" + rng.bytes(12) if i % 6 else None
            writer.write(f"d{i}", {"image": image, "title": f"title {i}" if i % 7 else None, "brand": f"brand {i % 3}"})
    return folder


@pytest.fixture
def stores(folder):
    return RecordStore(folder, "queries", QUERY), RecordStore(folder, "documents", DOCUMENT)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    score = rng.random(PAIRS, dtype=np.float32)
    return Pairs(rng.integers(0, QUERIES, PAIRS), rng.integers(0, DOCUMENTS, PAIRS), score)


@pytest.fixture
def dataset(stores, pairs):
    def make(rank=0, world=1, augment=False, batch_size=37):
        preprocess = TinyPreprocess()
        return PairDataset(
            pairs,
            Plan(pairs, batch_size=batch_size, seed=5, shard_of_document=stores[1].shard, shuffle_shards=2),
            query=SideReader(stores[0], QUERY, preprocess),
            document=SideReader(stores[1], DOCUMENT, preprocess),
            rank=rank,
            world=world,
            augment=augment,
        )

    return make


def load(dataset, first=0, last=STEPS, workers=0, **options):
    return list(DataLoader(dataset, batch_size=None, sampler=range(first, last), num_workers=workers, **options))


def leaves(value):
    if isinstance(value, dict):
        return {name: leaves(part) for name, part in value.items()}
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.tolist())
    return [leaves(part) for part in value] if isinstance(value, tuple) else value


def reassembled(parts):
    """One global batch from all ranks' shares: sides concatenated in rank order, padding cut off."""
    first = parts[0]
    sides = []
    for name, row in (("query", first.query_row), ("document", first.document_row)):
        shares = [getattr(part, name) for part in parts]
        assert len({len(share.present) for share in shares}) == 1, "every rank holds as many rows"
        count = int(row.max()) + 1
        fields = {key: torch.cat([share.fields[key] for share in shares])[:count] for key in shares[0].fields}
        sides.append((fields, torch.cat([share.present for share in shares])[:count]))
    return leaves((tuple(sides), *first[2:]))


def test_a_batch_holds_what_the_plan_says(dataset, stores, pairs):
    queries, documents = stores
    data = dataset()
    for step in range(STEPS):
        batch, rows = data[step], data.plan.batch(step)
        assert batch.step == step
        assert batch.query_id.tolist() == pairs.query[rows].tolist()
        assert batch.document_id.tolist() == pairs.document[rows].tolist()
        assert batch.score.tolist() == pairs.score[rows].tolist() and batch.score.dtype == torch.float32
        assert len(batch.query.present) == len(set(batch.query_id.tolist())), "each distinct query once"
        for n, row in enumerate(batch.document_id.tolist()):
            record, at = documents[row], int(batch.document_row[n])
            assert batch.document.present[at].tolist() == [value is not None for value in record.values()]
            image = batch.document.fields["image"][at]
            assert image.flatten().tolist() == (list(record["image"][3:15]) if record["image"] else [0] * 12)
            assert batch.document.fields["title"][at].tolist() == tokens(record["title"] or "")
        for n, row in enumerate(batch.query_id.tolist()):
            token = batch.query.fields["query"][int(batch.query_row[n])]
            assert token.tolist() == tokens(f"search for {queries[row]['query']}")


def tokens(text):
    return TinyPreprocess().text([text])[0].tolist()


@pytest.mark.parametrize("augment", [False, True])
def test_workers_do_not_change_the_sequence(dataset, augment):
    alone, helped = load(dataset(augment=augment)), load(dataset(augment=augment), workers=2)
    assert len(alone) == STEPS and leaves(tuple(alone)) == leaves(tuple(helped))


def test_spawned_workers_do_not_change_it_either(dataset):
    assert leaves(tuple(load(dataset(), last=3))) == leaves(
        tuple(load(dataset(), last=3, workers=1, multiprocessing_context="spawn"))
    )


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("world", [2, 3, 20])
def test_shares_of_all_ranks_are_the_global_batch(dataset, world, augment):
    whole = load(dataset(augment=augment))
    ranks = [load(dataset(rank, world, augment)) for rank in range(world)]
    for step in range(STEPS):
        assert reassembled([ranks[rank][step] for rank in range(world)]) == reassembled([whole[step]])


def test_a_resume_with_another_world_goes_on_exactly(dataset):
    whole = [reassembled([batch]) for batch in load(dataset(augment=True))]
    state = dataset().plan.state(9)
    for world in (1, 2, 3):
        first = dataset().plan.step_of(state)
        ranks = [load(dataset(rank, world, augment=True), first=first) for rank in range(world)]
        assert [reassembled(list(parts)) for parts in zip(*ranks, strict=True)] == whole[9:]


def test_nothing_twice_and_nothing_missing_on_all_ranks_together(dataset, pairs):
    epoch = dataset().plan.steps_per_epoch
    for world in (1, 3):
        ranks = [load(dataset(rank, world), last=epoch) for rank in range(world)]
        seen = itertools.chain(*(zip(b.query_id.tolist(), b.document_id.tolist(), strict=True) for b in ranks[0]))
        assert sorted(seen) == sorted(zip(pairs.query.tolist(), pairs.document.tolist(), strict=True))


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_shares_are_even_and_padding_is_never_pointed_at(world):
    rows = np.array([7, 3, 7, 9, 1, 3])
    parts = [share(rows, rank, world) for rank in range(world)]
    gathered = np.concatenate([own for own, _ in parts])
    assert len({len(own) for own, _ in parts}) == 1
    for _, position in parts:
        assert gathered[position].tolist() == rows.tolist() and int(position.max()) < 4


def test_ranks_that_cannot_be_are_refused(dataset):
    for rank, world in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"rank is {rank}, world is {world}"):
            dataset(rank, world)


def test_what_does_not_belong_together_is_refused(dataset, stores, pairs):
    plan, reader = dataset().plan, SideReader(stores[1], DOCUMENT, None)
    with pytest.raises(ValueError, match="orders other pairs"):
        PairDataset(copy.deepcopy(pairs), plan, query=reader, document=reader)
    with pytest.raises(ValueError, match="NoneType has no `augment`"):
        PairDataset(pairs, plan, query=reader, document=reader, augment=True)


def test_augmented_images_differ_by_epoch_and_only_then(dataset):
    plain, augmented = dataset(), dataset(augment=True)
    epoch = plain.plan.steps_per_epoch
    assert leaves(augmented[0]) == leaves(dataset(augment=True)[0]) != leaves(plain[0])

    images = [data[0].document.fields["image"][data[0].document.present[:, 0]] for data in (augmented, plain)]
    assert len({tuple(noise.flatten().tolist()) for noise in images[0] - images[1]}) == len(images[0]), "each its own"

    def shown(number):
        return {
            row: batch.document.fields["image"][at].flatten().tolist()
            for batch in (augmented[step] for step in range(number * epoch, (number + 1) * epoch))
            for row, at in zip(batch.document_id.tolist(), batch.document_row.tolist(), strict=True)
            if row % 6
        }

    first, second = shown(0), shown(1)
    assert first.keys() == second.keys() and all(first[row] != second[row] for row in first)


def test_features_take_the_place_of_reading(stores, tmp_path):
    features = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", dtype=np.float16, shape=(DOCUMENTS, 4))
    features[:] = np.arange(DOCUMENTS)[:, None]
    side = {name: DOCUMENT[name] for name in ("title", "image")}  # another order than the store's, and not all
    rows = np.array([6, 50, 1])
    for records, expected in ((stores[1], rows), (stores[1].subset(np.arange(DOCUMENTS)[::-1]), DOCUMENTS - 1 - rows)):
        batch = SideReader(records, side, TinyPreprocess(), {"image": features})(rows)
        assert isinstance(batch.fields["image"], Features) and batch.fields["image"].value.dtype == torch.float16
        assert batch.fields["image"].value[:, 0].tolist() == expected.tolist()
        assert batch.present.tolist() == [[bool(row % 7), bool(row % 6)] for row in expected.tolist()]
    with pytest.raises(ValueError, match="Features of image have 3 rows, the records 90"):
        SideReader(stores[1], side, TinyPreprocess(), {"image": features[:3]})
    with pytest.raises(KeyError, match="Features are given for 'photo'"):
        SideReader(stores[1], side, TinyPreprocess(), {"photo": features})
    with pytest.raises(KeyError, match="no field 'query'; they have image, title, brand"):
        SideReader(stores[1], QUERY, TinyPreprocess())


def test_rows_without_any_image(stores):
    batch = SideReader(stores[1], DOCUMENT, TinyPreprocess())(np.array([0, 6]))
    assert batch.fields["image"].shape == (2, 3, 2, 2) and not batch.fields["image"].any()
    assert batch.fields["image"].dtype == torch.uint8 and not batch.present[:, 0].any()


def test_an_image_that_cannot_be_decoded_names_its_place(tmp_path):
    side = {"image": Field(Modality.image)}
    with ShardWriter(tmp_path, "documents", side=side) as writer:
        writer.write("sku-1", {"image": b"broken"})
    reader = SideReader(RecordStore(tmp_path, "documents", side), side, TinyPreprocess())
    words = r"shard documents-00000.tar, row 0, id 'sku-1': image field image cannot be decoded \(no such format\)"
    with pytest.raises(ValueError, match=words):
        reader(np.array([0]))


def test_each_text_is_encoded_once_while_it_stays():
    preprocess = TinyPreprocess()
    cache = TextCache(preprocess, capacity=4)
    for texts in (["a", "b", "a"], ["b", "c"], ["a", "d"], ["e", "a"], ["b", "a", "e", "d"]):
        assert cache(texts).tolist() == [tokens(text) for text in texts]
        assert len(cache._slot) <= 4 and len(set(cache._slot.values())) == len(cache._slot)
    assert preprocess.texts == ["a", "b", "c", "d", "e", "b"], "b was the one not seen for longest when e came"


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 50])
def test_any_sequence_of_texts_is_encoded_right(capacity):
    cache, rng = TextCache(TinyPreprocess(), capacity=capacity), np.random.default_rng(capacity)
    for _ in range(200):
        texts = [f"text {n}" for n in rng.integers(0, 9, rng.integers(1, 12))]
        assert cache(texts).tolist() == [tokens(text) for text in texts]


def test_row_blocks_embed_a_corpus_in_order(stores):
    blocks = [np.arange(start, min(start + 32, DOCUMENTS)) for start in range(0, DOCUMENTS, 32)]
    data = RowsDataset(SideReader(stores[1], DOCUMENT, TinyPreprocess()), blocks)
    alone, helped = ([leaves(b) for b in DataLoader(data, batch_size=None, num_workers=w)] for w in (0, 2))
    assert alone == helped and len(alone) == len(data) == 3
    titles = torch.cat([data[block].fields["title"] for block in range(3)])
    assert titles.tolist() == [tokens(stores[1][row]["title"] or "") for row in range(DOCUMENTS)]
