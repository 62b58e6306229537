"""Rows -> tensors: the one path that training, validation and search take from stored records to model input.

1. Reader: a SideReader turns rows of one side into a SideBatch: texts are tokenized (each different one once, by
   TextCache), images decoded, cached features looked up, and `present` says which values there are. The images of a
   field that is a set lie one after another, with the record that each belongs to.
2. Dataset: a PairDataset reads a step of the plan, a RowsDataset a block of a corpus.
3. Collating: a rank reads its share of a global batch's distinct records (`share`); every pair says by row which of all
   ranks' records it means.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gcl.data.batches.lookups import KnownScores, Lookups, TeacherVectors
from gcl.data.batches.order import BatchOrder
from gcl.data.store.prepared import Pairs
from gcl.data.store.records import Records, Subset, Value, first_images, images_of
from gcl.data.store.remote_shards import RemoteShard
from gcl.schema import Field, Modality


class Features(NamedTuple):
    """A frozen trunk's cached output in the place of the raw input."""

    value: Tensor  # [B, …]


class ImageSets(NamedTuple):
    """All images of B records' sets, record after record."""

    value: Tensor | Features  # uint8 [I, 3, S, S], or features [I, …]
    row: Tensor  # int64 [I], ascending: the record that each belongs to


class SideBatch(NamedTuple):
    """One side of B records."""

    fields: dict[str, Tensor | Features | ImageSets]  # image: uint8 [B, 3, S, S]; text: int64 [B, L]
    present: Tensor  # bool [B, F], F in the order of the schema


class PairBatch(NamedTuple):
    """One rank's share of a global batch of N pairs over W ranks, those of score 0, its additional documents, last.

    `query` and `document` hold this rank's contiguous share of the batch's distinct records, equally many on every
    rank. Once all ranks' embeddings are gathered in rank order, `query_row` and `document_row` say which of them
    belongs to which pair. The rest is the same on every rank.
    """

    query: SideBatch
    document: SideBatch
    query_row: Tensor  # int64 [N]
    document_row: Tensor  # int64 [N]
    score: Tensor  # float32 [N]
    query_id: Tensor  # int64 [N], row in the store
    document_id: Tensor  # int64 [N]
    step: int
    known: dict[str, KnownScores | TeacherVectors] | None = None  # what was looked up for the batch


class Transform(Protocol):
    """How a model reads its input."""

    def image(self, data: bytes) -> Tensor: ...  # uint8 [3, S, S]
    def text(self, texts: list[str]) -> Tensor: ...  # int64 [n, L]


class Augmenting(Transform, Protocol):
    """A Transform that can also draw variants of training images."""

    def augment(self, data: bytes, generator: np.random.Generator, /) -> Tensor: ...  # uint8 [3, S, S]


class TextCache:
    """text -> token ids, for the last `capacity` different strings: each is tokenized once while it stays.

    The ids lie in one table, so a batch is one fancy index. Pickling leaves the contents behind.
    """

    def __init__(self, preprocess: Transform, capacity: int = 1 << 15) -> None:
        self.preprocess, self.capacity = preprocess, capacity
        self._slot: OrderedDict[str, int] = OrderedDict()
        self._table = torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slot": OrderedDict(), "_table": torch.empty(0)}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids int64 [n, L]."""
        distinct = dict.fromkeys(texts)
        if len(distinct) > self.capacity:
            return self.preprocess.text(list(texts))
        new = []
        for text in distinct:
            if text in self._slot:
                self._slot.move_to_end(text)  # what this batch uses is never what makes room for its new strings
            else:
                new.append(text)
        if new:
            tokens = self.preprocess.text(new)
            if not len(self._table):
                self._table = torch.empty(self.capacity, *tokens.shape[1:], dtype=tokens.dtype)
            used = len(self._slot)
            slots = list(range(used, min(used + len(new), self.capacity)))
            slots += [self._slot.popitem(last=False)[1] for _ in range(len(new) - len(slots))]
            self._table[slots] = tokens
            self._slot.update(zip(new, slots, strict=True))
        return self._table[[self._slot[text] for text in texts]]


class SideReader:
    """Rows of one side's records -> SideBatch.

    Prompts are applied by replacing "{}". A missing image is zeros, a missing text is encoded as ""; `present` is
    False there. `features` replaces reading: {field: array [rows, …]} (a memory map will do), one row per record of
    the store (of a set, one per image), also where `store` is only some rows of one.
    Raises ValueError naming shard, row and id when a stored image cannot be decoded.
    """

    def __init__(
        self,
        store: Records,
        side: Mapping[str, Field],
        preprocess: Transform,
        features: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.store, self.side, self.preprocess = store, dict(side), preprocess
        self.features = dict(features or {})
        if unknown := self.features.keys() - self.side.keys():
            raise KeyError(f"Features are given for {min(unknown)!r}, but the fields are {', '.join(self.side)}.")
        if missing := self.side.keys() - store.side.keys():
            raise KeyError(f"The records have no field {min(missing)!r}; they have {', '.join(store.side)}.")
        whole = store.store if isinstance(store, Subset) else store
        self._first_image = {name: first_images(whole, name) for name in self.features if self.side[name].is_set}
        for name, value in self.features.items():
            rows = self._first_image[name][-1] if name in self._first_image else len(whole)
            if len(value) != rows:
                raise ValueError(f"Features of {name} have {len(value):,} rows, the records {rows:,}.")
        self._feature_row = store.rows if self.features else np.empty(0, np.int64)
        self._columns = [list(store.side).index(name) for name in self.side]
        self._tokens = TextCache(preprocess)
        self._image_shape: tuple[int, ...] | None = None

    def present(self, rows: np.ndarray) -> np.ndarray:
        """bool [n, F]: which fields each record has."""
        return self.store.present(rows)[:, self._columns]

    def remote_shards(self, rows: np.ndarray) -> set[RemoteShard]:
        """Those of an object store that these rows are read from."""
        shards_of = getattr(self.store, "remote_shards", None)  # a list in memory has none
        return shards_of(rows) if shards_of and any(name not in self.features for name in self.side) else set()

    def __call__(
        self,
        rows: np.ndarray,
        *,
        augment_seed: tuple[int, ...] | None = None,
        shown: np.ndarray | None = None,
    ) -> SideBatch:
        """rows: int64 [B]. augment_seed: draw training images with `preprocess.augment`, each from (seed, its row).
        shown: bool [B, F], which fields the records may show; the others are absent, and not read. None: all."""
        rows = np.asarray(rows, dtype=np.int64)
        present = self.present(rows)
        if shown is not None:
            present &= shown
        fields: dict[str, Tensor | Features | ImageSets] = {}
        for (name, field), has in zip(self.side.items(), present.T, strict=True):
            if name in self._first_image:
                fields[name] = self._image_set_features(name, rows, has)
            elif name in self.features:
                fields[name] = Features(torch.from_numpy(np.array(self.features[name][self._feature_row[rows]])))
            elif field.modality is Modality.text:
                fields[name] = self._texts(name, field, rows, has)
            elif field.is_set:
                fields[name] = self._image_sets(name, rows, has, augment_seed)
            else:
                fields[name] = self._images(name, rows, has, augment_seed)
        return SideBatch(fields, torch.from_numpy(present))

    def _values(self, name: str, rows: np.ndarray, has: np.ndarray) -> list[Value]:
        """The field's values in these rows, None where `has` (bool [B]) is False."""
        if has.all():
            return self.store.column(name, rows)
        values: list[Value] = [None] * len(rows)
        for place, value in zip(np.flatnonzero(has).tolist(), self.store.column(name, rows[has]), strict=True):
            values[place] = value
        return values

    def _texts(self, name: str, field: Field, rows: np.ndarray, has: np.ndarray) -> Tensor:
        values = cast("list[str | None]", self._values(name, rows, has))
        if field.prompt == "{}":
            return self._tokens([value or "" for value in values])
        return self._tokens([field.prompt.replace("{}", value) if value else "" for value in values])

    def _images(self, name: str, rows: np.ndarray, has: np.ndarray, augment_seed: tuple[int, ...] | None) -> Tensor:
        batch: Tensor | None = None
        for position, data in enumerate(cast("list[bytes | None]", self._values(name, rows, has))):
            if data is None:
                continue
            image = self._image(name, data, int(rows[position]), augment_seed)
            if batch is None:
                self._image_shape = tuple(image.shape)
                batch = torch.zeros(len(rows), *image.shape, dtype=image.dtype)
            batch[position] = image
        return self._blank(len(rows)) if batch is None else batch

    def _image_sets(
        self, name: str, rows: np.ndarray, has: np.ndarray, augment_seed: tuple[int, ...] | None
    ) -> ImageSets:
        images, owner = [], []
        for position, value in enumerate(self._values(name, rows, has)):
            for place, data in enumerate(images_of(value)):
                images.append(self._image(name, data, int(rows[position]), augment_seed, place))
                owner.append(position)
        if images:
            self._image_shape = tuple(images[0].shape)
        return ImageSets(torch.stack(images) if images else self._blank(0), torch.tensor(owner, dtype=torch.int64))

    def _image_set_features(self, name: str, rows: np.ndarray, has: np.ndarray) -> ImageSets:
        first = self._first_image[name]
        start = first[self._feature_row[rows]]
        count = (first[self._feature_row[rows] + 1] - start) * has
        owner = np.repeat(np.arange(len(rows)), count)
        image = np.arange(len(owner)) + np.repeat(start - (np.cumsum(count) - count), count)
        return ImageSets(Features(torch.from_numpy(np.array(self.features[name][image]))), torch.from_numpy(owner))

    def _image(
        self, name: str, data: bytes, row: int, augment_seed: tuple[int, ...] | None, place_in_set: int = 0
    ) -> Tensor:
        try:
            if augment_seed is None:
                return self.preprocess.image(data)
            seed = [*augment_seed, row, list(self.side).index(name), *([place_in_set] if place_in_set else [])]
            return cast(Augmenting, self.preprocess).augment(data, np.random.Generator(np.random.Philox(seed=seed)))
        except (ValueError, OSError, RuntimeError) as error:
            raise ValueError(f"{self.store.place(row)}: image field {name} cannot be decoded ({error}).") from error

    def _blank(self, count: int) -> Tensor:
        """No record of this batch has an image: zeros, in the preprocess's `size` (height, width) if it has one."""
        shape = self._image_shape or (3, *getattr(self.preprocess, "size", (1, 1)))
        return torch.zeros(count, *shape, dtype=torch.uint8)


class PairDataset(Dataset):
    """Global steps of a plan as one rank sees them: `dataset[step]` -> PairBatch.

    For a DataLoader with `batch_size=None, sampler=range(first_step, last_step)`: neither the number of workers nor
    of ranks changes which pairs a step holds. Images are augmented when the preprocess has `augment` and `augment`
    is True, from (seed, epoch, position, row): the same after a resume and on any number of ranks.
    lookups: what `PairBatch.known` holds.
    """

    def __init__(
        self,
        pairs: Pairs,
        plan: BatchOrder,
        *,
        query: SideReader,
        document: SideReader,
        rank: int = 0,
        world: int = 1,
        augment: bool = False,
        lookups: Lookups | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}, world is {world}: a rank lies between 0 and world - 1.")
        if pairs is not plan.pairs:
            raise ValueError("The plan orders other pairs than the ones given here: build it from these.")
        if augment and not hasattr(document.preprocess, "augment"):
            raise ValueError(f"{type(document.preprocess).__name__} has no `augment`: images cannot be augmented.")
        self.pairs, self.plan, self.query, self.document = pairs, plan, query, document
        self.rank, self.world, self.augment, self.lookups = rank, world, augment, lookups or Lookups()
        self._shows = pairs.shows(document.side)  # [kinds of pairs, F]

    def __len__(self) -> int:
        return self.plan.steps_per_epoch

    def __getitem__(self, step: int) -> PairBatch:
        pairs = self._pairs(step)
        query_id, document_id = pairs.query, pairs.document
        query, query_row = share(query_id, self.rank, self.world)
        document, shown, document_row = self._documents(pairs)
        seed = (self.plan.seed, self.plan.epoch_of(step), self.plan.position_of(step)) if self.augment else None
        return PairBatch(
            self.query(query, augment_seed=seed and (*seed, 0)),
            self.document(document, augment_seed=seed and (*seed, 1), shown=shown),
            query_row,
            document_row,
            torch.from_numpy(np.asarray(pairs.score, dtype=np.float32)),
            torch.from_numpy(query_id),
            torch.from_numpy(document_id),
            step,
            self.lookups.among(query_id, document_id),
        )

    def remote_shards(self, step: int) -> set[RemoteShard]:
        """Those of an object store that this rank reads a step from, except for what was mined as the run went."""
        mined = self.plan.negatives is not None and self.plan.negatives.mined is not None
        pairs = self.pairs.take(self.plan.batch(step)) if mined else self._pairs(step)
        query, _ = share(pairs.query, self.rank, self.world)
        return self.query.remote_shards(query) | self.document.remote_shards(self._documents(pairs)[0])

    def _documents(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray | None, Tensor]:
        """This rank's rows, which fields each shows (None: all), and of which of all ranks' documents each pair is."""
        if pairs.hidden is None:
            row, place = share(pairs.document, self.rank, self.world)
            return row, None, place
        # A document that some pairs show whole and others without a field is two records to be read and embedded.
        kinds = len(pairs.hides)
        key, place = share(pairs.document * kinds + pairs.hidden, self.rank, self.world)
        return key // kinds, self._shows[key % kinds], place

    def _pairs(self, step: int) -> Pairs:
        """Those of the plan, and then those that say what is not relevant."""
        pairs = self.pairs.take(self.plan.batch(step))
        if not self.plan.negatives:
            return pairs
        queries, first = np.unique(pairs.query, return_index=True)
        place, document = self.plan.negatives.of_batch(step, queries)
        if pairs.hidden is not None:  # what shows nothing else has nothing to be embedded by
            weighed = np.array([field.weight > 0 for field in self.document.side.values()])
            shown = self.document.present(document) & self._shows[pairs.hidden[first[place]]] & weighed
            place, document = place[shown.any(axis=1)], document[shown.any(axis=1)]
        # Shown as the query's own document is: what it lacks must not tell the two apart.
        hidden = None if pairs.hidden is None else np.concatenate([pairs.hidden, pairs.hidden[first[place]]])
        score = np.concatenate([pairs.score, np.zeros(len(place), pairs.score.dtype)])
        query = np.concatenate([pairs.query, queries[place]])
        return Pairs(query, np.concatenate([pairs.document, document]), score, hidden, pairs.hides)


class RowsDataset(Dataset):
    """Blocks of rows of one side, in order: `dataset[i]` -> SideBatch. For embedding a corpus."""

    def __init__(self, reader: SideReader, row_blocks: Sequence[np.ndarray]) -> None:
        self.reader, self.row_blocks = reader, row_blocks

    def __len__(self) -> int:
        return len(self.row_blocks)

    def __getitem__(self, block: int) -> SideBatch:
        return self.reader(self.row_blocks[block])

    def place(self, block: int) -> str:
        """Where the first record of a block lies, for messages."""
        return self.reader.store.place(int(self.row_blocks[block][0]))


def rows_of(batch: SideBatch, start: int, stop: int) -> SideBatch:
    """Records start … stop - 1 of a side's batch."""
    fields: dict[str, Tensor | Features | ImageSets] = {}
    for name, value in batch.fields.items():
        if isinstance(value, ImageSets):
            first, last = torch.searchsorted(value.row, value.row.new_tensor([start, stop])).tolist()
            fields[name] = ImageSets(_slice(value.value, first, last), value.row[first:last] - start)
        else:
            fields[name] = _slice(value, start, stop)
    return SideBatch(fields, batch.present[start:stop])


def _slice(value: Tensor | Features, start: int, stop: int) -> Tensor | Features:
    return Features(value.value[start:stop]) if isinstance(value, Features) else value[start:stop]


def cut(batch: SideBatch, most: int, *, by_rows: bool = False) -> list[SideBatch]:
    """A batch in pieces of at most `most` records, and at most `most` images of each set unless one record alone has
    more. by_rows: however many images they have, so that batches of equally many records make equally many pieces."""
    rows = len(batch.present)
    ends = [] if by_rows else _ends_of_sets(batch)
    pieces, start = [], 0
    while start < rows:
        stop = min(start + most, rows)
        for end in ends:
            before = end[start - 1] if start else 0
            stop = min(stop, max(start + 1, int(np.searchsorted(end, before + most, side="right"))))
        pieces.append(rows_of(batch, start, stop))
        start = stop
    return pieces


def size_of(batch: SideBatch) -> int:
    """What `cut` counts: the records of a batch, or the images of a set if those are more."""
    return max([len(batch.present), *(int(end[-1]) for end in _ends_of_sets(batch) if len(end))])


def _ends_of_sets(batch: SideBatch) -> list[np.ndarray]:
    """Of each field that is a set, the number of images of records 0 … i, [B]."""
    rows = len(batch.present)
    return [
        np.cumsum(np.bincount(value.row.cpu().numpy(), minlength=rows))
        for value in batch.fields.values()
        if isinstance(value, ImageSets)
    ]


def share(rows: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, Tensor]:
    """One rank's part of the distinct rows [U / world], and each row's position among all of them [N].

    The distinct rows are padded to a multiple of `world` by repeating the last; no position points at the padding.

    >>> share(np.array([7, 3, 7, 9]), 1, 2)
    (array([9, 9]), tensor([1, 0, 1, 2]))
    """
    distinct, position = np.unique(rows, return_inverse=True)
    each = -(-len(distinct) // world)
    padded = np.pad(distinct, (0, each * world - len(distinct)), mode="edge")
    return padded[rank * each : (rank + 1) * each], torch.from_numpy(position.reshape(-1))
