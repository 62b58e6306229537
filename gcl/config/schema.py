"""Everything a run's config may say, typed: the ground that conf/ is composed on. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.data.catalog import Catalog
from gcl.model.settings import ModelConfig

MISSING: Any = "???"  # OmegaConf's word for a value that a YAML or the command line must give


class Form(Enum):
    softmax = "softmax"
    sigmoid = "sigmoid"


class Direction(Enum):
    both = "both"
    query = "query"
    document = "document"


class Normalizer(Enum):
    weight = "weight"
    count = "count"


class SigmoidWeight(Enum):
    """What a pair's weight counts for in the sigmoid form: its target and its negatives, or its target alone."""

    pair = "pair"
    target = "target"


class Repeat(Enum):
    """What another pair of the same query (or the same document) is to this one."""

    ignore = "ignore"
    negative = "negative"
    positive = "positive"


class NonFinitePolicy(Enum):
    """What happens at a step whose loss or gradient is no number. It never reaches the weights."""

    stop = "stop"
    skip = "skip"
    rollback = "rollback"


@dataclass
class TermConfig:
    """One contrast of the loss: a part of the query ("fused" or a field) against a part of the document."""

    query: str = "fused"
    document: str = "fused"
    weight: float = 1.0


@dataclass
class LossConfig:
    """Generalized contrastive loss. scale and bias null: the checkpoint's own."""

    form: Form = Form.softmax
    score_to_weight: Any = MISSING
    direction: Direction = Direction.both
    normalizer: Normalizer = Normalizer.weight
    same_query: Repeat = Repeat.ignore
    same_document: Repeat = Repeat.ignore
    sigmoid_weight: SigmoidWeight = SigmoidWeight.pair
    terms: list[TermConfig] = field(default_factory=lambda: [TermConfig()])
    scale: float | None = None
    bias: float | None = None
    learn_scale: bool = True
    learn_bias: bool = True
    max_scale: float = 100.0
    tile: Any = "auto"


@dataclass
class RuleConfig:
    rate: float = 1.0
    weight_decay: float | None = None


@dataclass
class OptimConfig:
    """optimizer and schedule are nodes; freeze and rules are patterns over parameter names (shell wildcards)."""

    learning_rate: float = MISSING
    weight_decay: float = 0.02
    clip_norm: float | None = 1.0
    warmup: float = 0.05
    layer_decay: float = 1.0
    freeze: list[str] = field(default_factory=list)
    rules: dict[str, RuleConfig] = field(default_factory=dict)
    optimizer: Any = MISSING
    schedule: Any = MISSING


@dataclass
class PlanConfig:
    """Which pairs meet in a batch. unique: "query" or "document", none of them twice in a batch. documents_per_query:
    so many pairs of one query lie in the same batch, where it has them. drop_last: leave out an epoch's last, partial
    batch."""

    unique: str | None = None
    documents_per_query: int | None = None
    drop_last: bool = False


@dataclass
class TrainConfig:
    """How long and how wide. batch_size counts pairs over all GPUs: it is the contrastive batch.

    spike_factor: a loss or gradient norm above this many times its running median is recorded with its batch.
    loader_patience: seconds without a batch after which the watchdog speaks. allow_change: keys that a resumed run may
    have other values of than it began with. compile: true, or a backend's name for torch.compile. micro_batch: rows,
    or "auto" for the most that fit.
    """

    batch_size: int = MISSING
    epochs: float = MISSING
    max_steps: int | None = None
    micro_batch: Any = None
    accumulate: int = 1
    checkpoint_every: int | None = None
    validate_every: Any = 1.0
    patience: int | None = None
    workers: int = 2
    cache_features: bool = True
    augment: bool = False
    compile: Any = False
    resume: str | None = None
    allow_change: list[str] = field(default_factory=list)
    nonfinite: NonFinitePolicy = NonFinitePolicy.stop
    max_skips: int = 10
    spike_factor: float | None = 5.0
    loader_patience: float | None = 60.0


@dataclass
class TrainerConfig:
    """Where it runs: the arguments of lightning.Trainer that name machines; `options` passes any other on."""

    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    strategy: Any = "auto"
    precision: Any = "auto"
    log_every_n_steps: int = 5
    options: dict[str, Any] = field(default_factory=dict)


class Forgetting(Enum):
    """What follows when a retention set lost more than its limit: a warning; exit status 3 at the end as well; or a
    best checkpoint chosen only among those within the limits."""

    warn = "warn"
    fail = "fail"
    choose = "choose"


@dataclass
class RetentionConfig:
    """A general set measured beside the catalog, before and after training: what a model must not forget.

    limit: how much of `metric` the tuned model may lose against the base. metric: by default ndcg@10, and hit@1 (the
    accuracy) for a classification. sample: queries of it that a validation asks; null: all.
    One of: catalog: a name of conf/data or the path of a catalog's YAML; folder: corpus.jsonl, queries.jsonl and
    qrels/test.tsv, as BEIR has them; images: a table of pictures to be told apart by text alone (zero shot), with the
    columns `image` and `label`. classes: names to choose from (null: those of the column); templates: sentences.
    """

    limit: float = 0.02
    metric: str | None = None
    sample: int | None = 500
    catalog: str | None = None
    folder: str | None = None
    images: str | None = None
    image: str = "image"
    label: str = "label"
    classes: list[str] | None = None
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}.", "{}", "a picture of a {}, for sale."])


@dataclass
class BenchmarkSetConfig:
    """One published data set in Parquet files. tables: where they are on the hub, by size. tasks: {name: column whose
    text is the query}; a query's answers are all rows that have its text."""

    tables: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)


@dataclass
class BenchmarkConfig:
    """A published benchmark (gcl/commands/benchmark.py). size: a key of each set's tables. root: a folder with local
    copies of the data sets, by the last part of their hub names. limit: read so many rows of each. image, document_id:
    what the files call them. published: figures of other models by size, task and model, from `source`."""

    size: str = MISSING
    sets: dict[str, BenchmarkSetConfig] = field(default_factory=dict)
    root: str | None = None
    limit: int | None = None
    image: str = "image"
    document_id: str = "item_ID"
    published: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    source: str = ""


@dataclass
class EvaluateConfig:
    """Which tasks and metrics; monitor is the metric that chooses the best checkpoint (mean over the dev tasks).

    part: test, dev or all. queries: at most so many a task, drawn as `sample` says (weight, uniform, largest) with
    `seed`. rescale: relevance becomes 1…100. judged: at most so many judgments a query. ties: ascending, descending,
    listed or published. What these do: gcl/retrieval/tasks/protocol.py. sets: names of data=…, each of them measured.
    cache_gb: how much of cache_dir/embeddings is kept, what was used longest ago going first; 0 keeps nothing.
    compress: smaller vectors to measure beside the full ones: a width (256), int8, binary, "256 int8".
    slices: groups of queries to compare: query_length, head_tail, missing, or any column of the catalog's tables.
    retention: general sets by name; forgetting: what happens when one of them loses more than its limit.
    """

    metrics: list[str] = MISSING
    headline: list[str] = MISSING
    monitor: str = "ndcg@10"
    tasks: list[str] | None = None
    monitor_tasks: list[str] | None = None
    depth: int = 1000
    batch_size: int = 256
    part: str = "test"
    cache_gb: float = 20.0
    compress: list[Any] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    retention: dict[str, RetentionConfig] = field(default_factory=dict)
    forgetting: Forgetting = Forgetting.warn
    queries: int | None = None
    sample: str = "weight"
    seed: int = 1
    rescale: bool = False
    judged: int | None = None
    ties: str = "ascending"
    sets: list[str] = field(default_factory=list)
    benchmark: BenchmarkConfig | None = None


@dataclass
class RunConfig:
    """A run, complete. `cache_dir` holds prepared catalogs and cached features, shared by all runs."""

    data: Catalog = field(default_factory=Catalog)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    logger: Any = None
    callbacks: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    run_dir: str | None = None
    cache_dir: str = "prepared"
    run: str | None = None
    models: list[str] = field(default_factory=list)
    out: str | None = None
