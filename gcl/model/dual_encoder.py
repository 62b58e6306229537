"""Two towers and a schema: from one side of a batch to one unit vector per record.

1. `embed_fields`: the present values of all fields of one modality go through that tower together: equal images and
   equal texts once, padding cut off, a frozen trunk without a gradient. The vectors of a set's images become one, their
   mean at length 1. [B, F, D], zeros where a field is absent.
2. `fuse`: the weighted mean of each record's present fields, at length 1. [B, D].
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl.data.batches.batch import Features, ImageSets, SideBatch
from gcl.model.fusion import fuse, fuse_images
from gcl.model.preprocess import Preprocess
from gcl.model.query_weights import QueryWeights
from gcl.model.tokens import Tokenizer
from gcl.model.towers import OpenClipModel, Tower, embedding_width, tower
from gcl.schema import SIDES, Modality, Schema, SideName


@dataclass(frozen=True)
class Origin:
    """Where a model came from, and all that open_clip needs to build it again.

    name, pretrained: as given to `load_model`. model_cfg, preprocess_cfg: the halves of an open_clip_config.json.
    tokenizer: open_clip's, as loaded. rotation: the digest of the rotation in its weights (gcl/model/rotation.py).
    """

    name: str
    pretrained: str | None
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tokenizer: Tokenizer
    rotation: str | None = None


class DualEncoder(nn.Module):
    """An open_clip model read through a catalog's schema.

    The state dict is the open_clip model's own under `model.`; pixel statistics and field weights are not saved.
    The model's temperature and bias are read (`scale_bias`) and never trained here: the loss owns them.

    Args:
        model: open_clip's CLIP or CustomTextCLIP, or a TextOnly.
        schema: the two sides' fields.
        preprocess: what turns bytes and strings into the tensors this model takes.
        origin: kept for export.
        channels_last: run the image tower in that memory format (faster for convolutions).

    Raises:
        ValueError: the schema names a field of a modality the model has no tower for.
    """

    _gain: Tensor  # [1, 3, 1, 1]: uint8 pixels times gain plus offset are normalised
    _offset: Tensor
    _query_weight: Tensor  # [F]
    _document_weight: Tensor

    def __init__(
        self,
        model: nn.Module,
        schema: Schema,
        preprocess: Preprocess,
        *,
        origin: Origin | None = None,
        channels_last: bool = False,
    ):
        super().__init__()
        self.origin = origin
        self.adapters: Any = None  # of model.lora, while they are trained (gcl/model/lora.py)
        self.by_query: QueryWeights | None = None  # what weighs a document's fields in place of constant weights
        self.model = cast(OpenClipModel, model)
        self.preprocess = preprocess
        self.channels_last = channels_last
        for parameter in (self.model.logit_scale, self.model.logit_bias):
            if parameter is not None:
                parameter.requires_grad_(False)
        if channels_last and self.model.visual is not None:
            self.model.visual.to(memory_format=torch.channels_last)
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("_gain", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_offset", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self._adopt(schema)

    def with_schema(self, schema: Schema) -> DualEncoder:
        """The same towers (shared, not copied) read through another schema. What weighs the fields of documents is for
        these fields alone."""
        other = copy.copy(self)
        other.by_query = self.by_query if schema.document == self.schema.document else None
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        other._adopt(schema)
        return other

    def _adopt(self, schema: Schema) -> None:
        schema.check()
        for side in SIDES:
            for name, field in schema.side(side).items():
                if self.tower(field.modality) is None:
                    raise ValueError(
                        f"data.{side}.{name} is {field.modality.value}, and this model has no {field.modality.value} "
                        f"tower: choose another model, or leave the field out (~data.{side}.{name})."
                    )
            weight = torch.tensor([field.weight for field in schema.side(side).values()], device=self._gain.device)
            self.register_buffer(f"_{side}_weight", weight.float(), persistent=False)
        self.schema = schema

    def train(self, mode: bool = True) -> DualEncoder:
        """Training mode for what is trained and evaluation mode for what is frozen, whatever mode they came in.

        A frozen part has nothing to drop and no batch statistics to move: with adapters, that is every layer without.
        """
        super().train(mode)
        if mode:
            rest_frozen(self.model)
            for modality in Modality:
                if (part := self.tower(modality)) is not None and part.trunk_frozen:
                    part.rest()
        return self

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return embedding_width(self.model)

    @property
    def scale_bias(self) -> tuple[float, float | None]:
        """The checkpoint's temperature as the logarithm of the scale, and its bias (None: it has none)."""
        bias = self.model.logit_bias
        return float(self.model.logit_scale), None if bias is None else float(bias)

    def write_scale_bias(self, log_scale: float, bias: float | None = None) -> None:
        """Puts what the loss has learned into the model, for export; a model without a bias gets one if it is given."""
        with torch.no_grad():
            self.model.logit_scale.fill_(log_scale)
        if bias is not None:
            value = torch.full_like(self.model.logit_scale, bias)
            self.model.logit_bias = nn.Parameter(value, requires_grad=False)

    def tower(self, modality: Modality) -> Tower | None:
        """The model's tower for a modality, or None if it has none."""
        return tower(self.model, modality)

    def required_tower(self, modality: Modality) -> Tower:
        """The tower of a modality that the schema has."""
        part = self.tower(modality)
        assert part is not None, f"a schema with {modality.value} fields is refused where there is no tower"
        return part

    def frozen_trunk(self, modality: Modality) -> bool:
        """True if the trunk of this modality's tower is not trained: its features may be computed once and kept."""
        part = self.tower(modality)
        return part is not None and part.trunk_frozen

    def trained_trunks(self) -> list[str]:
        """The modalities whose tower's trunk is trained."""
        return [m.value for m in Modality if self.tower(m) is not None and not self.frozen_trunk(m)]

    def trunk_names(self, modality: Modality) -> list[str]:
        """Patterns over the names of the open_clip model's parameters that fit those of a trunk, for optim.freeze."""
        part, names = self.tower(modality), {}
        for name, module in self.model.named_modules():
            names[id(module)] = f"{name}.*"
        names |= {id(parameter): name for name, parameter in self.model.named_parameters()}
        parts = () if part is None else part.trunk_parts
        return [names[id(p)] for p in parts if isinstance(p, nn.Parameter) or next(p.parameters(), None) is not None]

    def unused_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of towers that no field of the schema reaches. Freeze them: DDP waits for every gradient."""
        used = {field.modality for side in SIDES for field in self.schema.side(side).values()}
        for modality in Modality:
            if modality not in used and (part := self.tower(modality)) is not None:
                yield from part.parameters()

    def trunk_features(self, modality: Modality, value: Tensor) -> Tensor:
        """value: uint8 images [n, 3, S, S] or tokens [n, L] -> the trunk's output [n, E], float32.

        A frozen trunk runs in evaluation mode and without a gradient. Equal images and equal texts are encoded once.
        """
        part = self.required_tower(modality)
        if not part.trunk_frozen:
            return self._run_trunk(part, modality, value)
        part.rest()
        with torch.no_grad():
            return self._run_trunk(part, modality, value)

    def _run_trunk(self, part: Tower, modality: Modality, value: Tensor) -> Tensor:
        if modality is Modality.image:
            rows, inverse = distinct_images(value)
            if len(rows) == len(value):
                return part.trunk(self._pixels(value))
            return part.trunk(self._pixels(value[rows]))[inverse]
        tokens = value if part.trim is None else part.trim(value)
        tokens, inverse = torch.unique(tokens, dim=0, return_inverse=True)
        return part.trunk(tokens)[inverse]

    def _pixels(self, image: Tensor) -> Tensor:
        """uint8 [n, 3, S, S] -> normalised float."""
        assert image.dtype == torch.uint8, f"images come as uint8, not {image.dtype}"
        image = torch.addcmul(self._offset, image, self._gain)
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    def embed_fields(self, batch: SideBatch, side: SideName) -> Tensor:
        """batch of B records -> unit vectors [B, F, D], zeros where a field is absent. Only present rows are encoded.

        All text fields of the side go through the text tower in one call, all image fields through the image tower in
        one. A modality of which the batch holds nothing still takes part in the gradient (with zero).
        """
        fields = self.schema.side(side)
        records, width = len(batch.present), self.width
        slots, embeddings, idle = [], [], []  # per modality: where its embeddings belong in [B * F], and they
        for modality in Modality:
            columns = [column for column, field in enumerate(fields.values()) if field.modality is modality]
            if not columns:
                continue
            embedded = self._embed_modality(batch, [*fields], columns, modality)
            if embedded is None:
                idle.append(self._nothing(modality))
            else:
                slots.append(embedded[0])
                embeddings.append(embedded[1])
        wide = embeddings[0].dtype if embeddings else torch.float32
        out = torch.zeros(records * len(fields), width, dtype=wide, device=self._gain.device)
        if slots:
            out = out.index_copy(0, torch.cat(slots), torch.cat(embeddings))
        for nothing in idle:
            out = out + nothing
        return out.view(records, len(fields), width)

    def _embed_modality(
        self, batch: SideBatch, names: list[str], columns: list[int], modality: Modality
    ) -> tuple[Tensor, Tensor] | None:
        """-> where in the flattened [B * F] the n present fields of these columns belong, and their unit vectors; None
        if no value is present."""
        slots: dict[bool, list[Tensor]] = {True: [], False: []}  # by: is it a cached feature
        values: dict[bool, list[Tensor]] = {True: [], False: []}
        for column in columns:
            rows, value = present_values(batch, names[column], column)
            if not len(rows):
                continue
            cached = isinstance(value, Features)
            values[cached].append(value.value if isinstance(value, Features) else value)
            slots[cached].append(rows * len(names) + column)
        features = []
        if values[False]:
            features.append(self.trunk_features(modality, torch.cat(values[False])))
        if values[True]:
            if not self.frozen_trunk(modality):
                raise ValueError(f"Cached {modality.value} features were given, but their trunk is being trained.")
            features.append(torch.cat(values[True]).to(self._gain))
        if not features:
            return None
        embedding = self.required_tower(modality).head(torch.cat(features))
        embedding = F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=-1)
        slot = torch.cat(slots[False] + slots[True])
        sets = any(isinstance(batch.fields[names[column]], ImageSets) for column in columns)
        return fuse_images(embedding, slot) if sets else (slot, embedding)

    def _nothing(self, modality: Modality) -> Tensor:
        """Zero, with a gradient of zero for every trained parameter of the tower: DDP's hooks must fire."""
        trained = [p for p in self.required_tower(modality).parameters() if p.requires_grad and p.numel()]
        return sum((p.flatten()[0] * 0 for p in trained), self._gain.new_zeros(()))

    def forward(self, batch: SideBatch, side: SideName) -> Tensor:
        """batch of B records -> fused unit vectors [B, D]."""
        return self.fuse(self.embed_fields(batch, side), batch.present, side)

    def fuse(self, embedding: Tensor, present: Tensor, side: SideName, weight: Tensor | None = None) -> Tensor:
        """embedding[B, F, D], present[B, F] -> [B, D] by weight[F], or the schema's weights of this side."""
        return fuse(embedding, getattr(self, f"_{side}_weight") if weight is None else weight, present)


def rest_frozen(module: nn.Module) -> None:
    """Puts every part of a module whose parameters are all frozen into evaluation mode.

    What has no parameters of its own (dropout, stochastic depth) belongs to the part that holds it.

    >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()).requires_grad_(False), nn.Linear(2, 2))
    >>> rest_frozen(net)
    >>> net[0][1].training, net[1].training
    (False, True)
    """
    for child in module.children():
        trained = [parameter.requires_grad for parameter in child.parameters()]
        if trained and not any(trained):
            child.eval()
        else:
            rest_frozen(child)


def present_values(batch: SideBatch, name: str, column: int) -> tuple[Tensor, Tensor | Features]:
    """The values of a field that are there, and the record [n] that each belongs to: of a set, one for each image."""
    value, present = batch.fields[name], batch.present[:, column]
    if isinstance(value, ImageSets):
        return value.row, value.value
    rows = present.nonzero()[:, 0]
    if len(rows) == len(present):
        return rows, value
    return rows, Features(value.value[rows]) if isinstance(value, Features) else value[rows]


def distinct_images(image: Tensor, look: int = 256) -> tuple[Tensor, Tensor]:
    """image uint8 [n, 3, S, S] -> rows[u], the first of each different image, and inverse[n]: image[rows][inverse] is
    the image again.

    Only images that agree in about `look` bytes spread over them are compared in full.

    >>> rows, inverse = distinct_images(torch.tensor([4, 9, 4], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2))
    >>> rows, inverse
    (tensor([0, 1]), tensor([0, 1, 0]))
    """
    flat, number = image.flatten(1), torch.arange(len(image), device=image.device)
    sample = flat[:, :: max(1, flat.shape[1] // look)]
    group = torch.unique(sample, dim=0, return_inverse=True)[1]
    first = torch.full_like(number, len(image)).scatter_reduce(0, group, number, "amin")[group]  # [n]
    copies = (first != number).nonzero()[:, 0]
    others = copies[(flat[copies] != flat[first[copies]]).any(1)]  # alike in the sample alone: encoded for themselves
    first[others] = others
    return torch.unique(first, return_inverse=True)
