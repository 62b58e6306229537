"""The rotation of a run's embeddings: computed from its training data, and kept in the run folder.

Every export of the same weights must have the same coordinates, so the first one that needs the rotation keeps its
principal axes, in rotations/principal-<digest of the weights>.npz, and later ones read them. They are computed from the
unit vectors of every field of the training half's products and queries, at most _MOST of each, drawn evenly. The
vectors come from `embed`, whose blocks have the same bits on any number of ranks, and are added up in their order on
every rank; the first rank's axes are everybody's.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gcl.data.store.prepared import Prepared
from gcl.data.store.records import Stored
from gcl.distributed.ranks import agree, of_first_rank, world
from gcl.files.atomic import write_bytes
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import model_hash
from gcl.model.rotated import keeps_ones, why_not
from gcl.model.rotation import Rotation, gram, principal_axes
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.run.folder import RunFolder
from gcl.schema import SideName

_MOST = 10_000  # products, and queries: ten for each number of wide embeddings


def rotation_of(encoder: object, prepared: Prepared, options: EmbedOptions) -> Rotation | None:
    """From the training half; None for what cannot be rotated, and where the catalog has no training pairs."""
    if not isinstance(encoder, DualEncoder) or why_not(encoder) or not len(prepared.pairs):
        return None
    axes: np.ndarray | None = None
    error = None
    blocks = [
        embedded[:, field]
        for side, records, rows in _trained_on(prepared)
        for embedded in [embed(encoder, records.subset(rows), side, options).embedding]
        for field in range(embedded.shape[1])
    ]
    if world()[0] == 0:
        try:
            axes = principal_axes(gram(blocks))
        except Exception as caught:
            error = caught
    agree(error)
    shared = of_first_rank(axes)
    assert shared is not None
    return Rotation(shared, keeps_ones(encoder))


def _trained_on(prepared: Prepared) -> list[tuple[SideName, Stored, np.ndarray]]:
    """(side, store, rows) of the training half, at most _MOST of each side."""
    pairs = prepared.pairs
    return [
        ("document", prepared.documents, _some(np.unique(pairs.document))),
        ("query", prepared.queries, _some(np.unique(pairs.query))),
    ]


def _some(rows: np.ndarray) -> np.ndarray:
    """At most _MOST of the rows, evenly."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).astype(np.int64))]


def kept_rotation(run: RunFolder, encoder: DualEncoder) -> Rotation | None:
    """The one that the run folder has for these weights. Raises ValueError for a file that is damaged."""
    path = _place(run, encoder)
    if not path.is_file():
        return None
    if path.stat().st_size > 8 * encoder.width**2 + 10_000:
        raise ValueError(_damaged(path))
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            rotation, digest = Rotation(archive["principal"], keeps_ones(encoder)), str(archive["digest"])
        fits = rotation.principal.shape == (encoder.width, encoder.width) and rotation.digest == digest
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zlib.error, BadZipFile) as error:
        raise ValueError(_damaged(path)) from error
    if not fits:
        raise ValueError(_damaged(path))
    return rotation


def keep_rotation(run: RunFolder, encoder: DualEncoder, rotation: Rotation) -> None:
    """For later exports of the same weights."""
    path, content = _place(run, encoder), io.BytesIO()
    np.savez(content, principal=rotation.principal, digest=np.array(rotation.digest))
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, content.getvalue())


def _place(run: RunFolder, encoder: DualEncoder) -> Path:
    return run.path / "rotations" / f"principal-{model_hash(encoder)[:16]}.npz"


def _damaged(path: Path) -> str:
    return (
        f"{path} is not whole: it holds the rotation that earlier exports of this run have. Restore it from a copy; or "
        "remove it, and never search vectors of earlier exports with those of later ones."
    )
