"""What clients send and get, as pydantic models: the description of the service (OpenAPI) is made of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Base64 = Annotated[str, Field(json_schema_extra={"format": "byte"}, description="The bytes of a photo in base64.")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1, description="Numbers, as many as the index has dimensions.")]


def _length_of_name(name: str) -> str:
    if not 1 <= len(name) <= 4096:
        raise ValueError("a name has 1 to 4096 characters")
    return name


# Pydantic cannot count the characters of a name that is no UTF-8, which has lone surrogates.
Name = Annotated[
    str,
    AfterValidator(_length_of_name),
    Field(json_schema_extra={"minLength": 1, "maxLength": 4096}, description="The name of a photo in the index."),
]
_NAMES = Field(None, min_length=1, description="Names of photos in the index.")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Negatives(_Asked):
    """What to move away from: a fifth of the mean of these is taken from the mean of the positives (Rocchio)."""

    images: list[Base64] | None = Field(None, min_length=1, description="Photos in base64.")
    names: list[Name] | None = _NAMES
    vectors: list[Vector] | None = Field(None, min_length=1, description="Descriptors.")


class SearchRequest(_Asked):
    """What to search for: photos, names and vectors, in any number together, or the `cursor` of an earlier answer."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "oxford/000317.jpg", "k": 20, "leave_out_query": True}})

    index: str | None = Field(None, description="The name of the index; by default the first one.")
    image: Base64 | None = None
    images: list[Base64] | None = Field(None, min_length=1, description="Several photos, each in base64.")
    name: Name | None = None
    names: list[Name] | None = _NAMES
    vector: Vector | None = None
    vectors: list[Vector] | None = Field(None, min_length=1, description="Several descriptors.")
    negatives: Negatives | None = None
    box: list[Number] | None = Field(
        None,
        min_length=4,
        max_length=4,
        description="x1, y1, x2, y2 in pixels of the upright photo: what of it is asked for. Goes with exactly one photo or name.",
    )
    k: int = Field(20, ge=1, description="How many hits a page has; at most `max_k` of the index.")
    cursor: str | None = Field(None, max_length=128, description="That of an earlier answer, whose next page is asked for.")
    expand: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Query expansion over so many photos, the query among them; 1: none. By default as the index was made for.",
    )
    alpha: Number | None = Field(
        None, ge=0, le=100, description="Goes with `expand`: the power of the cosine that each photo is weighed by. By default 0."
    )
    min_score: Number | None = Field(None, description="Hits with a lower measure are left out.")
    within: str | list[str] | None = Field(
        None,
        description="Only photos whose names begin with this; or conditions on the metadata, all of which hold, such as "
        '["city=Oxford", "year>=2005"].',
    )
    leave_out_query: bool = Field(
        False,
        description="Leave out the photo that is asked with: the names given, and hits with a cosine of 0.9999 or more to a photo "
        "that was sent.",
    )
    rerank: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="Put so many of the best photos in order by their regions; 0: none. By default as the index was made for.",
    )
    smooth: int | None = Field(
        None, ge=0, le=1000, description="Goes with `rerank`: average the scores over so many neighbours; 0: none."
    )
    explain: bool = Field(False, description="Tell which regions of the query and of each hit agree.")


class Pair(BaseModel):
    """A region of the query, and the most similar one of a hit. Boxes are x1, y1, x2, y2 as shares of the sides, 0 to 1, of the
    query's photo or of the box that was cut out of it, and of the hit."""

    query: list[float]
    hit: list[float]
    cosine: float


class Photo(BaseModel):
    """A photo of an index."""

    name: str = Field(description="Bytes that are no UTF-8 stand as the lone surrogates U+DC80 to U+DCFF.")
    size: list[int] | None = Field(description="Width and height in pixels of the upright photo; null where its file is not there.")
    photo: str | None = Field(description="Where its file is; null where it is not there.")
    thumbnail: str | None = Field(description="Where a small one is; null where its file is not there.")


class Hit(Photo):
    """A photo that was found."""

    rank: int = Field(description="1 is the best.")
    cosine: float = Field(description="With the query, or with the expanded query.")
    score: float | None = Field(description="That of its regions, where it was re-ranked.")
    metadata: dict[str, Any] = Field(description="Column -> value.")
    regions: list[Pair] | None = Field(None, description="With `explain`: regions that agree, the most similar first.")


class Took(BaseModel):
    """Seconds that the request took, by stage; `queue` is all waiting."""

    queue: float
    decode: float
    network: float
    search: float
    whole: float


class SearchAnswer(BaseModel):
    """A page of hits."""

    index: str
    generation: int | None = Field(description="The state of the index that was searched.")
    hits: list[Hit]
    cursor: str | None = Field(description="Asks for the next page of this very ranking; null on the last one.")
    total: int = Field(description="How many hits can be paged to.")
    measure: str = Field(description='What the first hits stand in order by: "cosine", or "score" where they were re-ranked.')
    took: Took


class EmbedRequest(_Asked):
    """A photo to describe."""

    index: str | None = Field(None, description="Describe as the photos of this index were; by default the first one.")
    image: Base64 | None = None
    box: list[Number] | None = Field(None, min_length=4, max_length=4, description="As for a search.")


class EmbedAnswer(BaseModel):
    """A descriptor."""

    descriptor: list[float] = Field(description="Of unit length; zeros for a photo on which nothing is.")
    recipe: dict[str, Any] = Field(description="How it was made.")


class Reranking(BaseModel):
    """How the first hits are re-ranked by default."""

    count: int
    smooth: int | None


class IndexAbout(BaseModel):
    """An index that is served."""

    name: str
    photos: int
    dimensions: int
    generation: int | None
    recipe: dict[str, Any]
    preset: str | None = Field(description="The name of the preset that it was made with, where it is known.")
    metadata: dict[str, str] = Field(description='Column -> "integer", "number" or "text".')
    rerank: Reranking | None
    expand: int | None = Field(description="Query expansion by default.")
    has_regions: bool = Field(description="Whether it keeps the region vectors that re-ranking compares.")
    has_photos: bool = Field(description="Whether the folder of its photos is there.")
    can_write: bool = Field(description="Whether photos can be put and deleted, with a token.")
    max_k: int


class Limits(BaseModel):
    """What a request may hold, so that a client need not send what is refused."""

    body_bytes: int
    megapixels: float = Field(description="Millions of pixels of one photo.")
    images: int = Field(description="Photos, names and vectors of one query.")


class IndexesAnswer(BaseModel):
    """The indices that are served; the first is the default."""

    indexes: list[IndexAbout]
    limits: Limits


class PutAnswer(BaseModel):
    """A photo that was put."""

    name: str
    replaced: bool = Field(description="Whether there was one of this name.")


class DuplicatesAnswer(BaseModel):
    """Groups of photos that are almost the same, the largest first."""

    groups: list[list[Photo]]
    cursor: str | None
    total: int = Field(description="How many groups there are.")


class TensorAbout(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int]


class ModelAbout(BaseModel):
    """A model, in the words of KServe's protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]


class ServerAbout(BaseModel):
    """The service, in the words of KServe's protocol."""

    name: str
    version: str
    extensions: list[str]


class Tensor(_Asked):
    """An input of an inference, or one of its outputs."""

    name: str
    shape: list[int] | None = None
    datatype: str | None = None
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferRequest(_Asked):
    """An inference. The input `image_bytes` `(n,)` of BYTES has the photos, in JSON as base64; the input `box` `(n, 4)` of FP32,
    which may be left out, what of each is asked for."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=2)
    outputs: list[Tensor] | None = None


class InferAnswer(BaseModel):
    """The descriptors `(n, D)` of FP32, as the output `descriptor`."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]
