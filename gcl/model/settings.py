"""What `model:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from gcl.errors import ConfigError
from gcl.options import MISSING, Choice, number, path


class Resize(Choice):
    """How an image of other proportions gets the model's size."""

    squash = "squash"  # both sides to the size
    shortest = "shortest"  # the shorter side to the size, centre cropped
    longest = "longest"  # the longer side to the size, padded
    # shortest as the processors of transformers crop: where an odd number of pixels is cut off, one less at the top or
    # on the left
    shortest_transformers = "shortest_transformers"

    @property
    def crops(self) -> bool:
        """Whether the middle is kept and the rest cut off."""
        return self in (Resize.shortest, Resize.shortest_transformers)

    @property
    def in_open_clip(self) -> Resize:
        """The one of open_clip's ways that is nearest."""
        return Resize.shortest if self.crops else self


OWN_RESIZE = "gcl_resize"
"""Where an exported folder says how the run cropped, if its library crops in another way."""


class Decode(Choice):
    """How photos are decoded."""

    exact = "exact"  # to the pixels of open_clip's evaluation transform
    scaled = "scaled"  # large JPEGs at a smaller size first: faster, slightly different


class Head(Choice):
    """What maps an image tower's features to the embedding."""

    linear = "linear"  # the model's own projection
    mlp = "mlp"  # two layers on the trunk's output
    stages = "stages"  # two layers on the trunk's output and on what its stages saw


@dataclass
class Recipe:
    """The usual fine-tuning of a model, from which the defaults of other settings come."""

    learning_rate: float = number(1e-5, above=0, most=1)
    """Default of optim.learning_rate."""
    epochs: float = number(5.0, above=0, most=1e6)
    """Default of train.epochs."""
    batch_size: int = number(256, least=2)
    """Default of train.batch_size."""
    freeze: list[str] = field(default_factory=list)
    """Default of optim.freeze."""


@dataclass
class LoraConfig:
    """Low-rank adapters that are trained instead of the towers' own weights."""

    rank: int | None = number(None, least=1, most=100_000)
    """Rank of the adapters, 8 is usual; null: no adapters, the weights themselves are trained."""
    alpha: float = number(16.0, above=0, most=1e6)
    """The adapters' output is multiplied by alpha / rank."""
    targets: list[str] | None = None
    """Names or shell patterns of layers to adapt (qkv, text.*.mlp.*); null: every linear layer and attention of both
    towers. Convolutions are adapted only if they are named."""
    dropout: float = number(0.0, least=0, below=1)
    """Share of an adapter's input that is dropped in training, at least 0 and below 1."""
    heads: bool = True
    """Whether the projections to the embedding are trained as well."""


@dataclass
class LoadOptions:
    """What can be chosen about a model besides its name: the options of `load_model`."""

    pretrained: str | None = path()
    """Weights of an architecture: a tag of open_clip, or a file; null: random ones. With any model,
    run:<run folder>: the best weights, temperature and bias of an earlier run of the same architecture."""
    resize: Resize | None = None
    """How images of other proportions get the model's size: squash, shortest (side, centre cropped), longest (side,
    padded) or shortest_transformers (cropped to the pixel where the processors of transformers crop); null: the model's
    own way."""
    image_size: int | None = number(None, least=1, most=100_000)
    """Side of the images in pixels; null: the model's own. Another one interpolates the position table."""
    context_length: int | None = number(None, least=1)
    """Tokens read of a text; null: the model's own. Only text towers that ignore padding can be given fewer."""
    decode: Decode = Decode.exact
    """exact, or scaled: large photos are decoded at a smaller size, which is faster and slightly different."""
    crop: float = number(0.9, above=0, most=1)
    """Least share of a training image's area that is shown, above 0 and at most 1, where train.augment is on."""
    channels_last: bool = False
    """Whether the image tower runs in the memory format channels_last, which is faster for convolutions."""
    head: Head = Head.linear
    """What is trained on a frozen image tower: linear, the model's own projection; mlp, two layers in its place; or
    stages, two layers that read mean and deviation of every stage of the tower beside its output."""


@dataclass
class ModelNames:
    """Which model it is, and what it is called."""

    label: str = MISSING
    """The model's name in folders and tables."""
    name: str = path(MISSING)
    """An architecture of open_clip (ViT-B-16-SigLIP), hf-hub:<owner>/<repository>, local-dir:<folder> (a folder of
    open_clip, or of transformers with a SiglipModel or CLIPModel), hf-text:<repository or folder> (a text encoder
    alone), gcl-tiny or gcl-lite."""


@dataclass
class ModelConfig(LoadOptions, ModelNames):  # the names come first
    """A model, how it is loaded, and how it is usually fine-tuned."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters that are trained instead of the towers' weights, if it has a rank."""
    recipe: Recipe = field(default_factory=Recipe)
    """The usual learning rate, epochs, batch size and frozen parts."""

    def check(self) -> None:
        """Raises ConfigError for adapters in a tower that has to be frozen."""
        if self.head is not Head.linear and self.lora.rank is not None:
            raise ConfigError(
                f"model.head={self.head} reads a frozen image tower, and model.lora.rank={self.lora.rank} trains "
                "adapters in it: set model.lora.rank=null, or model.head=linear."
            )


DEFAULTS = LoadOptions()
