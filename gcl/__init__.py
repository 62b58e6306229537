"""Fine-tunes product-search models on a catalog with generalized contrastive learning.

    model = gcl.load("outputs/…")              a run, an exported folder, or a pretrained model
    model.embed_documents([{"title": "…"}])    unit vectors; model.index(products).search("red boots")
    gcl.evaluate({"ours": model}, products=…, queries=…, qrels=…)
    run = gcl.train(products=…, pairs=…, model="lite"); gcl.export(run, out="my_model")

Importing it loads nothing; a name is imported when it is first used. docs/python.md has the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_WHERE = {
    "load": "gcl.api.model", "Model": "gcl.api.model", "Index": "gcl.api.index", "Hits": "gcl.api.index",
    "evaluate": "gcl.api.evaluation", "Evaluation": "gcl.api.evaluation", "Encoder": "gcl.retrieval.embedding.own",
    "train": "gcl.api.runs", "Run": "gcl.api.runs", "export": "gcl.api.runs", "prepare": "gcl.api.runs",
    "doctor": "gcl.api.runs", "Diagnosis": "gcl.api.runs", "open_prepared": "gcl.data.store.prepared",
    "Prepared": "gcl.data.store.prepared",
    "GCLLoss": "gcl.loss.gcl",
}  # fmt: skip
__all__ = [
    "Diagnosis", "Encoder", "Evaluation", "GCLLoss", "Hits", "Index", "Model", "Prepared", "Run", "__version__",
    "doctor", "evaluate", "export", "load", "open_prepared", "prepare", "train",
]  # fmt: skip

if TYPE_CHECKING:
    from gcl.api.evaluation import Evaluation, evaluate
    from gcl.api.index import Hits, Index
    from gcl.api.model import Model, load
    from gcl.api.runs import Diagnosis, Run, doctor, export, prepare, train
    from gcl.data.store.prepared import Prepared, open_prepared
    from gcl.loss.gcl import GCLLoss
    from gcl.retrieval.embedding.own import Encoder

    __version__: str
else:

    def __getattr__(name: str) -> Any:
        from importlib import import_module, metadata

        if name == "__version__":
            try:
                return metadata.version("gcl-trainer")
            except metadata.PackageNotFoundError:  # a checkout on the path, not installed
                return "unknown"
        if name not in _WHERE:
            raise AttributeError(f"module 'gcl' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
