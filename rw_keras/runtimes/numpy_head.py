"""What stands between the feature map and the descriptor, stated once more in NumPy.

A process that computes the map without Keras ends it here. Each function is a layer of `rw_keras.layers` (or the one of Keras
that a method uses) in float32, with the same guards, to 1e-6; why they are there is said in the layer. The head is read from the
Keras model's own layers and kept as plain values and arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.regions import region_axes, region_boxes, region_windows, window_masks
from rw_keras.runtimes.numpy_scale import scaled

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Step:
    """A layer of the head.

    Attributes:
        kind: the layer's class, a key of `_STEPS`.
        settings: what its function takes, plain values.
        arrays: what it has learned.
    """

    kind: str
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Head:
    """All of a descriptor model but its network.

    Attributes:
        steps: from the feature map to the descriptor.
        scales: `factor` and `min_side` of each scale of a multi-scale model, whose descriptors are added; `None`: one scale.
    """

    steps: list[Step]
    scales: list[dict[str, Any]] | None = None

    @property
    def has_regions(self) -> bool:
        """Whether the descriptor is a sum of whitened region vectors."""
        kinds = [step.kind for step in self.steps]
        return "RegionSum" in kinds and "PCAWhiten" not in kinds[kinds.index("RegionSum") :]

    def function(self, feature_maps: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
        """What `Describer.function` is, of a function from pixels to feature maps."""

        def described(pixels, regions=False):
            scales = [{"factor": 1.0, "min_side": 1}] if self.scales is None else self.scales
            each = [run(self.steps, feature_maps(scaled(pixels, **scale)), regions) for scale in scales]
            descriptors, vectors, boxes = zip(*each)
            descriptors = descriptors[0] if self.scales is None else _l2_norm(sum(descriptors), axis=-1)
            return (descriptors, np.concatenate(vectors, axis=1), np.concatenate(boxes)) if regions else descriptors

        return described


def run(steps: list[Step], features: np.ndarray, regions: bool = False) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Takes feature maps `(B, H, W, C)` to descriptors `(B, D)`, region vectors `(B, R, D)` and their boxes `(R, 4)`, float32.

    Vectors and boxes as `DescriptorModel.with_regions` gives them; `None` where `regions` are not wanted.
    """
    values, vectors, boxes = np.asarray(features, "float32"), None, np.zeros((0, 4), "float32")
    for step in steps:
        if regions and step.kind.startswith("Regional"):
            boxes = region_boxes(*values.shape[1:3], **step.settings)
        if regions and step.kind == "RegionSum":
            vectors = values
        values = _STEPS[step.kind][0](values, **step.settings, **step.arrays)
    if vectors is None:
        return values, None, None
    count = vectors.shape[1]
    if len(boxes) != count:
        whole = np.array([[0, 0, 1, 1]], "float32")
        boxes = whole if count == 1 else np.zeros((count, 4), "float32")
    return values, vectors, boxes


def split(model: keras.Model) -> tuple[keras.Model, Head]:
    """The network of a descriptor model, up to its feature map `(B, h, w, C)`, and the head; of a multi-scale model the network of
    the model within.

    Raises:
        ValueError: for a model that does not end in layers of this package, naming the layer.
    """
    inner = getattr(model, "inner", None)
    if inner is not None:
        from rw_keras.model.region_outputs import scales_of

        network, head = split(inner)
        scales = [{"factor": layer.factor, "min_side": layer.min_side} for layer in scales_of(model)]
        return network, Head(head.steps, scales)
    import keras

    steps, tensor = [], model.outputs[0]
    while True:
        layer = tensor._keras_history.operation
        inputs = layer._inbound_nodes[tensor._keras_history.node_index].input_tensors
        if not _is_stated(layer) or len(inputs) != 1:
            break
        steps.append(_step(layer))
        tensor = inputs[0]
    if not steps or len(tensor.shape) != 4 or tensor.shape[-1] is None:
        raise ValueError(
            f"Only Keras computes {model.name!r}: its layer {layer.name!r} ({type(layer).__name__}), after the feature map, "
            'is none that the other runtimes know; use runtime="keras" and precision="exact".'
        )
    return keras.Model(model.inputs[0], tensor, name=f"{model.name}_network"), Head(steps[::-1])


def _is_stated(layer):
    kind, module = type(layer).__name__, type(layer).__module__
    if kind == "Reshape" and len(layer.target_shape) != 2:
        return False
    if kind.startswith("Global") and (layer.data_format != "channels_last" or layer.keepdims):
        return False
    # Not a class of the same name from elsewhere, and none derived from ours.
    return kind in _STEPS and module.startswith(("rw_keras.layers.", "keras."))


def _step(layer):
    kind = type(layer).__name__
    config = layer.get_config()
    arrays = {}
    if kind == "PCAWhiten":
        arrays = {name: np.array(getattr(layer, name), "float32") for name in ("mean", "eigenvectors", "eigenvalues")}
    return Step(kind, {name: config[name] for name in _STEPS[kind][1]}, arrays)


def _spatial_weight(features, alpha, beta):
    return _weighed(features, features.sum(axis=-1, keepdims=True), alpha, beta)


def _norm_weight(features, alpha, beta):
    largest = np.abs(features).max(axis=(1, 2, 3), keepdims=True)
    scaled = features / np.where(largest > 0, largest, np.float32(1))
    return _weighed(features, np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True)), alpha, beta)


def _weighed(features, sums, alpha, beta):
    largest = sums.max(axis=(1, 2), keepdims=True)
    share = sums / np.where(largest > 0, largest, np.float32(1))
    active = share > 0
    share = np.where(active, share, np.float32(1))
    total = np.where(active, share**alpha, np.float32(0)).sum(axis=(1, 2), keepdims=True)
    norm = np.log(np.where(total > 0, total, np.float32(1))) / alpha
    return features * np.where(active, np.exp((np.log(share) - norm) / beta), np.float32(0))


def _counts(features):
    """How many places of each channel are above 0, `(B, 1, 1, C)`. A product, which is faster than counting, and as exact."""
    batch, height, width, channels = features.shape
    fires = (features > 0).reshape(batch, height * width, channels).astype("float32")
    return (np.ones((1, height * width), "float32") @ fires)[:, :, None]


def _log_of_ratio(ratio, excess):
    """`ln(ratio)`; see `rw_keras.layers.base.log_of_ratio`."""
    equal = ratio == 1
    slope = np.where(equal, np.float32(1), np.log(ratio) / np.where(equal, np.float32(1), ratio - 1))
    return slope * excess


def _idf_channel_weight(features, epsilon):
    counts = _counts(features)
    total = counts.sum(axis=-1, keepdims=True)
    ratio = np.where(total > 0, total / (epsilon + counts), np.float32(1))
    excess = np.where(total > 0, (total - counts - epsilon) / (epsilon + counts), np.float32(0))
    return features * _log_of_ratio(ratio, excess)


def _crow_channel_weight(features):
    counts = _counts(features)
    others = counts.sum(axis=-1, keepdims=True) - counts
    fires = counts > 0
    excess = np.where(fires, others / np.where(fires, counts, np.float32(1)), np.float32(0))
    return features * _log_of_ratio(1 + excess, excess)


def _center_prior(features, sigma):
    height, width = features.shape[1:3]
    spread = np.float32(sigma * min(height, width) / 2)

    def along(length):
        middles = np.arange(length, dtype="float32") + np.float32(0.5)
        return np.exp(np.float32(-0.5) * np.square((middles - np.float32(length / 2)) / spread))

    return features * (along(height)[:, None] * along(width)[None])[None, :, :, None]


def _regional_sum_pooling(features, levels, include_whole_map):
    batch, height, width, channels = features.shape
    windows = region_windows(height, width, levels, include_whole_map)
    rows = window_masks(windows[:, 0], windows[:, 2], height)
    columns = window_masks(windows[:, 1], windows[:, 3], width)
    masks = (rows[:, :, None] & columns[:, None, :]).reshape(len(windows), height * width).astype("float32")
    return masks @ features.reshape(batch, height * width, channels)


def _regional_max_pooling(features, levels, include_whole_map):
    vectors = [features.max(axis=(1, 2))] if include_whole_map else []
    for tops, lefts, side in region_axes(*features.shape[1:3], levels):
        strips = [features[:, top : top + side].max(axis=1) for top in tops]
        vectors += [strip[:, left : left + side].max(axis=1) for strip in strips for left in lefts]
    return np.stack(vectors, axis=1)


def _gem_pooling(features, p):
    largest = features.max(axis=(1, 2), keepdims=True)
    fires = largest > 0
    scaled = features / np.where(fires, largest, np.float32(1))
    powers = np.where(scaled > 0, np.where(scaled > 0, scaled, np.float32(1)) ** p, np.float32(0))
    means = powers.sum(axis=(1, 2), keepdims=True) / np.float32(max(features.shape[1] * features.shape[2], 1))
    return np.where(fires, largest * np.where(fires, means, np.float32(1)) ** (1 / p), np.float32(0))[:, 0, 0]


def _signed_gem_pooling(features, p):
    magnitudes = np.abs(features)
    largest = magnitudes.max(axis=(1, 2), keepdims=True)
    scaled = magnitudes / np.where(largest > 0, largest, np.float32(1))
    powers = np.where(scaled > 0, np.where(scaled > 0, scaled, np.float32(1)) ** p, np.float32(0)) * np.sign(features)
    means = powers.sum(axis=(1, 2), keepdims=True) / np.float32(max(features.shape[1] * features.shape[2], 1))
    return (largest * np.sign(means) * np.abs(means) ** (1 / p))[:, 0, 0]


def _reshape(values, target_shape):
    return values.reshape(len(values), *target_shape)


def _power_norm(values, exponent):
    magnitudes = np.abs(values)
    return np.sign(values) * (np.sqrt(magnitudes) if exponent == 0.5 else magnitudes**exponent)


def _l2_norm(values, axis):
    largest = np.abs(values).max(axis=axis, keepdims=True)
    zero = largest == 0
    scaled = values / np.where(zero, np.float32(1), largest)
    squares = (scaled * scaled).sum(axis=axis, keepdims=True)
    return scaled / np.sqrt(np.where(zero, np.float32(1), squares))


def _pca_whiten(vectors, shrinkage, mask_zero, mean, eigenvectors, eigenvalues):
    largest = eigenvalues.max()
    spread = np.float32(1 - shrinkage) * eigenvalues + np.float32(shrinkage) * eigenvalues.mean()
    # `rw_keras.layers.pca_whiten.EIGENVALUE_FLOOR`
    spread = np.maximum(spread, np.finfo("float32").eps * largest)[: eigenvectors.shape[1]]
    scale = 1 / np.sqrt(np.where(largest > 0, spread, np.float32(1)))
    whitened = (vectors - mean) @ eigenvectors * scale
    return np.where((vectors != 0).any(axis=-1, keepdims=True), whitened, np.float32(0)) if mask_zero else whitened


# The layer's class -> its function, and the fields of its configuration that the function takes.
_STEPS = {
    "SpatialWeight": (_spatial_weight, ("alpha", "beta")),
    "NormWeight": (_norm_weight, ("alpha", "beta")),
    "IDFChannelWeight": (_idf_channel_weight, ("epsilon",)),
    "CroWChannelWeight": (_crow_channel_weight, ()),
    "CenterPrior": (_center_prior, ("sigma",)),
    "RegionalSumPooling": (_regional_sum_pooling, ("levels", "include_whole_map")),
    "RegionalMaxPooling": (_regional_max_pooling, ("levels", "include_whole_map")),
    "GlobalMaxPooling2D": (lambda features: features.max(axis=(1, 2)), ()),
    "GlobalAveragePooling2D": (lambda features: features.mean(axis=(1, 2)), ()),
    "GeMPooling": (_gem_pooling, ("p",)),
    "SignedGeMPooling": (_signed_gem_pooling, ("p",)),
    "Reshape": (_reshape, ("target_shape",)),
    "PowerNorm": (_power_norm, ("exponent",)),
    "L2Norm": (_l2_norm, ("axis",)),
    "PCAWhiten": (_pca_whiten, ("shrinkage", "mask_zero")),
    "RegionSum": (lambda vectors: vectors.sum(axis=1), ()),
}
