"""What `model:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from gcl.options import MISSING, path


@dataclass
class Recipe:
    """What this model is usually fine-tuned with: defaults of optim.learning_rate and .freeze, train.epochs and
    .batch_size."""

    learning_rate: float = 1e-5
    epochs: float = 5.0
    batch_size: int = 256
    freeze: list[str] = field(default_factory=list)


@dataclass
class LoraConfig:
    """Adapters instead of the towers' own weights: the arguments of `add_adapters` (gcl/model/lora.py).

    rank: 8 is usual; null: no adapters, the weights themselves are trained. alpha: what they add counts alpha / rank.
    targets: names or shell patterns of layers; null: every linear layer and attention. heads: projections are trained.
    """

    rank: int | None = None
    alpha: float = 16.0
    targets: list[str] | None = None
    dropout: float = 0.0
    heads: bool = True


@dataclass
class ModelConfig:
    """The arguments of `load_model`, a label for folders and tables, and the usual recipe.

    name: an open_clip architecture ("ViT-B-16-SigLIP"), "hf-hub:<owner>/<repository>", "local-dir:<folder>" (a folder
        of open_clip, such as an export of ours, or of transformers with a SiglipModel or CLIPModel in it),
        "hf-text:<repository or folder>" (a text encoder alone), or one of ours: "gcl-tiny", "gcl-lite".
    pretrained: for an architecture's name alone: a tag of open_clip, or a file of weights; null: random weights. With
        any name, "run:<run folder>": the best weights, temperature and bias of an earlier run of that architecture.
    resize: "squash" | "shortest" | "longest"; null: the model's own.
    image_size: side in pixels; null: the model's own. Another one interpolates the position table.
    context_length: tokens read of a text; null: the model's own. Only towers that ignore padding can be given fewer.
    decode: "exact" | "scaled" (faster on large photos, a little different).
    crop: least share of a training image's area that is shown, where the run augments its images.
    channels_last: memory format of the image tower; faster for convolutions.
    lora: adapters are trained instead of the towers' weights, where it has a rank.
    """

    label: str = MISSING
    name: str = path(MISSING)
    pretrained: str | None = path()
    resize: str | None = None
    image_size: int | None = None
    context_length: int | None = None
    decode: str = "exact"
    crop: float = 0.9
    channels_last: bool = False
    lora: LoraConfig = field(default_factory=LoraConfig)
    recipe: Recipe = field(default_factory=Recipe)
