"""Searching with photos: described as an index's own were, and compared with what made it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rw_keras.model.recipe import Recipe, max_side_of, smallest_side
from rw_keras.retrieval.filters import Within
from rw_keras.retrieval.orientations import orientations_of, search_orientations
from rw_keras.retrieval.rerank import Rerank
from rw_keras.retrieval.searching import Searchable

if TYPE_CHECKING:
    import keras

    from rw_keras.photos.reading import Box, Photo
    from rw_keras.runtimes import Describer


def text_vector(recipe: Recipe, text: str, encoder: Callable[[str], np.ndarray] | None = None) -> np.ndarray:
    """The vector `(D,)` of a text in the space of the descriptors that a recipe makes.

    Args:
        recipe: the model's.
        text, encoder: see `PhotoSearchable.search_text`.

    Raises:
        ValueError: for descriptors that share no space with texts.
    """
    if recipe.method != "joint":
        raise ValueError(
            f"Descriptors of {recipe.backbone!r} by the method {recipe.method!r} share no space with texts; describe the photos "
            'with CLIP or SigLIP, such as build_descriptor("hub:clip_vit_base_patch16", method="joint"), or search with a photo.'
        )
    if recipe.whitening:
        raise ValueError(
            f"The descriptors are whitened as learned on {recipe.whitening.get('name')!r}, which moves them out of the space that "
            "they share with texts; describe the photos with whitening=None."
        )
    if encoder is None:
        from rw_keras.backbones import HUB, TextPart  # loads Keras

        if not recipe.backbone.startswith(HUB):
            raise ValueError(
                f"The text part of {recipe.backbone!r}, a network of your own, is not known; pass "
                "encoder=rw_keras.backbones.TextPart(backbone, preprocessor)."
            )
        encoder = TextPart.of_preset(recipe.backbone.removeprefix(HUB))
    return np.asarray(encoder(text), "float32")


class PhotoSearchable(Searchable):
    """An index that knows what made it, so that a photo can be asked with: a folder's, or one in Milvus."""

    def search_photo(
        self,
        model: keras.Model | Describer,
        photo: Photo,
        box: Box | None = None,
        k: int = 10,
        expand: int | None = None,
        *,
        rerank: int | Rerank | str | None = "auto",
        orientations: int = 1,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[tuple[str, float]]:
        """Describes a photo as the index's own were described, and searches.

        Args:
            model: the model that made the index, or what `rw_keras.runtimes.load` made of it: the runtime may be another one.
            photo, box: see `rw_keras.describe`.
            k, expand, within, min_score, alpha: see `search`.
            rerank: see `search`; the region vectors of the photo come from the model. "auto", the default: as `search_defaults`
                have it, where the index holds region vectors.
            orientations: 4: all quarter turns of the photo are described, in four times the time, and the best one of each hit
                counts, for photos that lie on their side; see `rw_keras.retrieval.search_orientations`. Default 1: as it is.

        Raises:
            ValueError: when the model makes other descriptors than the index holds, naming what differs.
        """
        from rw_keras.description.describe import describe
        from rw_keras.photos.reading import read_image
        from rw_keras.photos.remote import opened

        if isinstance(rerank, str) and rerank == "auto":
            rerank = self.default_rerank
        if rerank is not None:
            self.check_rerank(rerank)
        self.check_model(model)
        max_side = max_side_of(self.recipe)
        turned = orientations_of(read_image(opened(photo), box, max_side, smallest_side(model)), orientations)
        queries = describe(model, turned, max_side=max_side, regions=rerank is not None)
        options = {"rerank": rerank, "within": within, "min_score": min_score, "alpha": alpha}
        return search_orientations(self, queries, k, expand, **options)

    def search_text(
        self,
        model: keras.Model | Describer,
        text: str,
        k: int = 10,
        *,
        encoder: Callable[[str], np.ndarray] | None = None,
        within: Within | None = None,
        min_score: float | None = None,
    ) -> list[tuple[str, float]]:
        """Searches with words, in an index of descriptors that share a space with texts: those of CLIP or SigLIP, method "joint".

        Cosines of texts and photos are far lower than those of two photos: with CLIP about 0.3 is high.

        Args:
            model: the model that made the index, or what `rw_keras.runtimes.load` made of it.
            text: what to look for, such as "a red telephone box".
            k, within, min_score: see `search`.
            encoder: a text -> its vector, such as a `rw_keras.backbones.TextPart`. Default: the text part of the model's preset of
                KerasHub, which is loaded the first time.

        Raises:
            ValueError: for a model without a text part, or one that is whitened, and as `search_photo`.

        Example:

        >>> model = rw_keras.build_descriptor("hub:clip_vit_base_patch16", method="joint")
        >>> index = rw_keras.retrieval.Index.from_folder(model, "photos/")
        >>> index.search_text(model, "a red telephone box")
        """
        self.check_model(model)
        vector = text_vector(Recipe.of(model), text, encoder)
        if vector.shape != (self.dimensions,):
            raise ValueError(
                f"The text's vector has the shape {vector.shape}, and the index {self.dimensions} dimensions; give the encoder "
                "that belongs to the model."
            )
        return self.search(vector, k, within=within, min_score=min_score)

    def check_model(self, model: keras.Model | Describer) -> None:
        """Raises a ValueError that names what differs, when `model` is not of the recipe that made this index.

        Which runtime computes is not in the recipe: within their promises all give the same hits. Warns where the index was
        described at a precision that promises nothing known here.
        """
        from rw_keras.runtimes import PRECISIONS
        from rw_keras.runtimes.describer import described_with

        if self.recipe is None:
            raise ValueError("The index does not say what made it; describe the photo yourself and call `search`.")
        own = Recipe.from_dict(self.recipe, "The index's recipe").of_any_size()
        differing = own.differences(Recipe.of(model).of_any_size(), "the model's")
        if differing:
            raise ValueError(f"The index was made by another model: {'; '.join(differing)}. Use the model that made it.")
        unknown = [made for made in self.described_with if made.get("precision") not in PRECISIONS]
        # The policy of a model in mixed precision promises nothing, but that model's own queries are of the same precision.
        if unknown and any(dict(made) != described_with(model) for made in unknown):
            warnings.warn(
                f"The index was described by {unknown[0].get('runtime')!r} at the precision {unknown[0].get('precision')!r}, and "
                f"only {', '.join(PRECISIONS)} are known here: cosines may be off; describe the photos again.",
                stacklevel=2,
            )
