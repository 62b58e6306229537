"""What the interface takes and gives, as openapi.json describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Form, Query
from pydantic import BaseModel, Field

from gcl.serve.engine import MOST_RESULTS

MOST_SEARCHES = 100
MOST_INPUTS = 512

WEIGHTS_EXAMPLE = '{"image": 0.9, "title": 0.1}'
FILTERS_EXAMPLE = '{"category": ["Shoes", "Bags"], "price": {"from": 10, "to": 50}}'
_TEXT = "what somebody would type"
_K = "results per model"
_WEIGHTS = f"weights of the products' fields as JSON, for example {WEIGHTS_EXAMPLE}; by default those of the catalog"
_FILTERS = f"which products are searched, as JSON, for example {FILTERS_EXAMPLE}"
_LIKE = "the id of a product to be like"
_MIX = "share of the picture or product next to the text, from 0 to 1"
_IMAGE = "the picture as a data URL (data:image/jpeg;base64,…), or its address where the server fetches those"

TextForm = Annotated[str | None, Form(description=_TEXT)]
ResultsForm = Annotated[int, Form(ge=1, le=MOST_RESULTS, description=_K)]
WeightsForm = Annotated[str | None, Form(description=_WEIGHTS)]
FiltersForm = Annotated[str | None, Form(description=_FILTERS)]
LikeForm = Annotated[str | None, Form(description=_LIKE)]
MixForm = Annotated[float | None, Form(description=_MIX)]
TextQuery = Annotated[str | None, Query(description=_TEXT)]
ResultsQuery = Annotated[int, Query(ge=1, le=MOST_RESULTS, description=_K)]
WeightsQuery = Annotated[str | None, Query(description=_WEIGHTS)]
FiltersQuery = Annotated[str | None, Query(description=_FILTERS)]
LikeQuery = Annotated[str | None, Query(description=_LIKE)]
MixQuery = Annotated[float | None, Query(description=_MIX)]


class Product(BaseModel):
    """One result of one model."""

    place: int = Field(description="1 is the best")
    id: str
    title: str
    score: float = Field(description="cosine similarity of query and product")
    picture: str | None = Field(description="where its picture is, on this server")
    pictures: int = Field(description="how many pictures it has")
    places: dict[str, int] = Field(description="its place with each model; 0: not among the results")


class ModelResults(BaseModel):
    """What one model found, best first."""

    model: str
    results: list[Product]


class Answer(BaseModel):
    """What every model found for one search."""

    models: list[ModelResults]
    milliseconds: float


class Search(BaseModel):
    """A text, a picture, a product to be like, or a text with one of these."""

    text: str | None = Field(None, description=_TEXT)
    picture: str | None = Field(None, description=_IMAGE)
    like: str | None = Field(None, description=_LIKE)
    mix: float | None = Field(None, description=_MIX)
    k: int = Field(10, ge=1, le=MOST_RESULTS, description=_K)
    weights: dict[str, Any] | None = Field(None, description=f"for example {WEIGHTS_EXAMPLE}")
    filters: dict[str, Any] | None = Field(None, description=f"for example {FILTERS_EXAMPLE}")


class Searches(BaseModel):
    """Several searches at once."""

    searches: list[Search] = Field(min_length=1, max_length=MOST_SEARCHES)


class Answers(BaseModel):
    """One answer for each search, in their order."""

    answers: list[Answer]


class ProductDetails(BaseModel):
    """A product in full."""

    id: str
    title: str
    link: str | None = Field(description="its own page, where the products table has a column of links")
    texts: dict[str, str] = Field(description="the text fields that it has")
    columns: dict[str, str | float] = Field(description="its values in the further columns that can be filtered by")
    pictures: list[str] = Field(description="where its pictures are, on this server")


class FieldInfo(BaseModel):
    """A field of the products and its weight in the catalog's schema."""

    modality: str
    weight: float


class FilterInfo(BaseModel):
    """A column to filter by: one of its values with the number of products each has, or a range of numbers."""

    values: dict[str, int] | None = None
    least: float | None = None
    most: float | None = None


class CatalogInfo(BaseModel):
    """What can be searched, with what, and how."""

    name: str
    products: int
    models: list[str]
    fields: dict[str, FieldInfo]
    filters: dict[str, FilterInfo]
    text: bool = Field(description="whether the models take a text")
    picture: bool = Field(description="whether the models take a picture")
    mix: float = Field(description="share of a picture or product next to a text, unless a search names one")
    by_query: list[str] = Field(description="models of which each search weighs the fields, unless it names weights")


class Embeddings(BaseModel):
    """What to embed, in the form of OpenAI's interface."""

    model: str = Field(description="one of the models of /api/catalog")
    input: Any = Field(
        description="A text, or a picture as a data URL, as a query; a product as an object of its fields, for example "
        '{"title": "Red boots", "image": "data:image/jpeg;base64,…"}; or a list of up to '
        f"{MOST_INPUTS} of these",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {}}]},
    )
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: of little-endian float32")
    dimensions: int | None = Field(None, description="the model's width, if given: vectors are not cut")


class Embedding(BaseModel):
    """One vector, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the texts had, as far as the model reads them."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """A vector for each input, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Refusal(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "there is no such product or model"},
    413: {"model": Refusal, "description": "the request has too many bytes, or a picture too many pixels"},
    415: {"model": Refusal, "description": "a picture that cannot be read, or is too elongated"},
    422: {"model": Refusal, "description": "an empty search, or settings out of range"},
}
