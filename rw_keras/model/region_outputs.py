"""The model that gives region vectors and where they lie, beside the descriptor that they add to."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import keras

from rw_keras import layers
from rw_keras.layers.regional_pooling import RegionalPooling
from rw_keras.model.photo_regions import without_regions
from rw_keras.model.recipe import find_whitening, smallest_side

# Model -> the one with its regions. Not an attribute of the model, whose parts Keras would save with it.
_made: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()


def with_regions(model: keras.Model) -> keras.Model:
    """`DescriptorModel.with_regions`, for any model with a `RegionSum`.

    Raises:
        ValueError: for a model without one, and for one that whitens what it gives.
    """
    if model not in _made:
        inner = getattr(model, "inner", None)
        outputs = _of_one_scale(model) if inner is None else _of_scales(model, inner)
        _made[model] = layers.PhotoModel(model.inputs[0], outputs, name=f"{model.name}_regions", min_side=smallest_side(model))
    return _made[model]


def scales_of(model: keras.Model) -> list[layers.ImageScale]:
    """The layers that resize the photos of a multi-scale model, in the order of its recipe's scales."""
    factors = {layer.factor: layer for layer in model.layers if isinstance(layer, layers.ImageScale)}
    scales = model.scales
    if not scales or set(scales) != set(factors):
        raise ValueError(
            f"The model {model.name!r} is built around {model.inner.name!r}, but not by rw_keras.multi_scale, so its scales are "
            "not known; build it with rw_keras.multi_scale."
        )
    return [factors[scale] for scale in scales]


def sum_of_scales(descriptors: Sequence[Any]) -> Any:
    """The descriptor of unit length that those of several scales, `(B, D)` each, add to."""
    return layers.L2Norm(name="multi_scale_descriptor")(_joined(keras.layers.Add, descriptors, name="scale_sum"))


def _of_one_scale(model):
    additions = [layer for layer in model.layers if isinstance(layer, layers.RegionSum)]
    if not additions:
        raise ValueError(
            f"The model {model.name!r} has no RegionSum layer that adds regions; build it with rw_keras.build_descriptor."
        )
    # Layers are in the order of the data; a method of one's own may add regions, too.
    addition, whitening = additions[-1], find_whitening(model)
    if whitening is not None and model.layers.index(whitening) > model.layers.index(addition):
        raise without_regions(f"The model {model.name!r}")
    vectors = addition.input
    more = [layer for layer in model.layers if isinstance(layer, layers.OneMoreRegion)]
    grids = [layer for layer in model.layers if isinstance(layer, RegionalPooling)]
    if len(grids) == 1 and vectors.shape[1] != 1:
        grid = grids[0]
        boxes = layers.RegionBoxes(grid.levels, grid.include_whole_map, len(more), name="region_boxes")(
            vectors, features=grid.input
        )
    else:
        boxes = layers.RegionBoxes(name="region_boxes")(vectors)
    return [model.outputs[0], vectors, boxes]


def _of_scales(model, inner):
    each = [with_regions(inner)(scale.output) for scale in scales_of(model)]
    descriptors, vectors, boxes = zip(*each)
    return [
        sum_of_scales(descriptors),
        _joined(keras.layers.Concatenate, vectors, axis=1, name="vectors"),
        _joined(keras.layers.Concatenate, boxes, axis=1, name="boxes"),
    ]


def _joined(layer, tensors, **arguments):
    # Of their own dtype, which a mixed-precision policy would halve.
    return layer(dtype=tensors[0].dtype, **arguments)(list(tensors)) if len(tensors) > 1 else tensors[0]
