import itertools
import numbers
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from rw_keras.layers.base import DescriptorLayer
from rw_keras.layers.principal_axes import (
    EIGENVALUE_FLOOR,
    RunningDifferences,
    RunningMoments,
    discriminative_axes,
    drawn,
    principal_axes,
)


@keras.saving.register_keras_serializable(package="rw_keras")
class PCAWhiten(DescriptorLayer):
    """Projects vectors onto their principal axes and scales every axis to the same variance.

    Learned by `adapt`, on ANOTHER set than the one searched. An axis with eigenvalue `e` is divided by
    the square root of `(1 - shrinkage) * e + shrinkage * mean(e)`; `shrinkage=0` is PCA-whitening as
    feature weighting and regional integration has it, between its two L2 normalisations. Until it has
    been adapted the layer is the identity (the first `components` elements, where fewer are kept), and
    `adapted` is False.

    Where `adapt` is given matching vectors as well, the whitening is learned from them ("discriminative" whitening; Mikolajczyk and
    Matas, 2007; Radenovic, Tolias and Chum, 2019): matching vectors differ alike along every axis, and the axes come in the
    order of how much all vectors differ along them. `shrinkage` then draws the covariance of their differences to a multiple of
    the identity, and counts while it is learned: one that is changed afterwards gives another whitening than one learned with it.
    Such axes are not at right angles.

    Input: `(..., d)`; d must be known. A mask is passed on.
    Output: `(..., components)`, float32 (also under a mixed-precision policy).

    Args:
        components: how many axes to keep, the strongest first; `None`, the default, keeps all.
        shrinkage: 0 to 1: how far the eigenvalues are drawn towards their mean. Default 0. With few
            vectors the smallest eigenvalues are mostly noise, and 0.2 serves better.
        mask_zero: whether a zero vector is "no features": it stays zero, where subtracting the
            mean would turn it into a direction, and nothing is learned from it. Default True.

    Attributes:
        mean: `(d,)`, the mean of the vectors learned from.
        eigenvectors: `(d, components)`, one axis of unit length a column; the largest element of each is positive.
        eigenvalues: `(d,)`, of all axes, as found: the variance along each, largest first; of a whitening from matching vectors,
            see `rw_keras.layers.principal_axes.discriminative_axes`.
        count: how many vectors were learned from.

    Raises:
        ValueError: for arguments out of range, more components than d, or an unknown d.

    Example:

    >>> vectors = np.random.rand(1000, 64).astype("float32")
    >>> layer = rw_keras.layers.PCAWhiten(components=32)
    >>> layer.adapt(vectors)
    >>> layer(vectors).shape
    TensorShape([1000, 32])
    """

    def __init__(self, components: int | None = None, shrinkage: float = 0.0, mask_zero: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components = None if components is None else self.whole_number("components", components)
        if isinstance(shrinkage, bool) or not isinstance(shrinkage, numbers.Real) or not 0 <= shrinkage <= 1:
            raise ValueError(f"PCAWhiten takes a number from 0 to 1 as `shrinkage`, but got {shrinkage!r}.")
        self.shrinkage = float(shrinkage)
        self.mask_zero = bool(mask_zero)
        self.supports_masking = True
        self.reset_state()

    def build(self, input_shape):
        dimensions = input_shape[-1]
        if dimensions is None:
            raise ValueError(
                f"PCAWhiten {self.name!r} needs to know the last axis of its input, but the shape is "
                f"{tuple(input_shape)}; give it a tensor whose last axis is fixed."
            )
        kept = self.components or dimensions
        if kept > dimensions:
            raise ValueError(
                f"PCAWhiten {self.name!r} has components={kept}, but its input has only {dimensions} "
                f"dimensions; choose {dimensions} or fewer."
            )

        def state(name, shape, initializer, dtype=self.result_dtype):
            return self.add_weight(name=name, shape=shape, initializer=initializer, dtype=dtype, trainable=False, autocast=False)

        self.mean = state("mean", (dimensions,), "zeros")
        self.eigenvectors = state("eigenvectors", (dimensions, kept), "identity")
        self.eigenvalues = state("eigenvalues", (dimensions,), "ones")
        self._count = state("count", (), "zeros", "int32")
        super().build(input_shape)

    @property
    def count(self) -> int:
        return int(ops.convert_to_numpy(self._count)) if self.built else 0

    @property
    def adapted(self) -> bool:
        """Whether the layer has learned, or been given, a whitening; else it is the identity."""
        return self.count > 0

    def call(self, inputs):
        vectors = self.to_result_dtype(inputs)
        eigenvalues = self.to_result_dtype(self.eigenvalues)
        largest = ops.max(eigenvalues)
        spread = (1 - self.shrinkage) * eigenvalues + self.shrinkage * ops.mean(eigenvalues)
        spread = ops.maximum(spread, EIGENVALUE_FLOOR * largest)[: self.eigenvectors.shape[1]]
        # Vectors that were all the same have no spread at all: then they are only centred.
        scale = ops.rsqrt(ops.where(largest > 0, spread, 1.0))
        centred = vectors - self.to_result_dtype(self.mean)
        whitened = ops.matmul(centred, self.to_result_dtype(self.eigenvectors)) * scale
        if self.mask_zero:
            whitened = ops.where(ops.any(vectors != 0, axis=-1, keepdims=True), whitened, 0.0)
        return whitened

    def adapt(self, data: Any, matching: Any = None) -> None:
        """Learns mean and axes from `data`, forgetting what was learned before.

        One pass, in float64, with memory for one batch and one `(d, d)` matrix; two, with `matching`.

        Args:
            data: an array or tensor `(..., d)`, or a `tf.data.Dataset` or other iterable of such batches.
            matching: pairs of vectors that show the same: a tuple of two arrays `(n, d)`, of which rows match, or an iterable of
                such tuples. They need not be in `data`. Default: none, for principal axes.

        Raises:
            ValueError: when there is no vector in it, or one that is not finite, or of another length; when matching vectors are
                all alike.

        Example:

        >>> vectors = np.random.rand(1000, 64).astype("float32")
        >>> layer = rw_keras.layers.PCAWhiten()
        >>> layer.adapt(vectors, matching=(vectors[:500], vectors[500:]))
        """
        self.reset_state()
        for batch in _batches(data):
            self.update_state(batch)
        if matching is not None:
            for pair in [matching] if _is_a_pair(matching) else matching:
                if not _is_a_pair(pair):
                    raise ValueError(
                        f"PCAWhiten {self.name!r} takes as `matching` a tuple of two arrays (n, d), of which rows match, or an "
                        f"iterable of such tuples, but got {type(pair).__name__} in it."
                    )
                self.update_matching(*pair)
            if self._differences.count == 0:
                raise ValueError(f"PCAWhiten {self.name!r} was given no matching vectors; pass some, or matching=None.")
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Adds a batch of vectors `(..., d)` to the running mean and covariance."""
        vectors = self._checked(data)
        if self.mask_zero:
            vectors = vectors[vectors.any(axis=1)]
        if len(vectors):
            self._moments.add(vectors)

    def update_matching(self, one: Any, other: Any) -> None:
        """Adds vectors that match, `(..., d)` each, the first of `one` with the first of `other`, to the running differences."""
        one, other = self._checked(one), self._checked(other)
        if one.shape != other.shape:
            raise ValueError(f"PCAWhiten {self.name!r} takes as many vectors as match, but got {len(one)} and {len(other)}.")
        if self.mask_zero:
            there = one.any(axis=1) & other.any(axis=1)
            one, other = one[there], other[there]
        if len(one):
            self._differences.add(one - other)

    def _checked(self, data):
        """Vectors `(n, d)` float64 of a batch, for which the layer is built."""
        batch = np.asarray(ops.convert_to_numpy(data))
        if batch.ndim < 1:
            raise ValueError(f"PCAWhiten {self.name!r} learns from vectors, but got the single value {batch}.")
        if not self.built:
            self.build(batch.shape)
        dimensions = self.mean.shape[0]
        if batch.shape[-1] != dimensions:
            raise ValueError(
                f"PCAWhiten {self.name!r} learns from vectors of {dimensions} elements, but got "
                f"an array of the shape {batch.shape}."
            )
        vectors = batch.reshape(-1, dimensions).astype("float64")
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"PCAWhiten {self.name!r} learns from finite vectors, but {np.sum(~np.isfinite(vectors))} "
                "elements are NaN or infinite; remove those vectors."
            )
        return vectors

    def finalize_state(self) -> None:
        """Computes the axes from what `update_state` and `update_matching` have seen.

        Warns where an axis that is kept has next to no variance: it is divided by the square root of
        `EIGENVALUE_FLOOR` (float32's epsilon, 1.2e-7) times the largest eigenvalue instead. So it does where there is a direction
        in which matching vectors hardly differ, as with fewer pairs than dimensions.
        """
        if self._moments.count == 0:
            raise ValueError(
                f"PCAWhiten {self.name!r} has seen no vector to learn from"
                f"{' that is not zero' if self.mask_zero else ''}; call `adapt` with some."
            )
        if self._differences.count:
            self._finalize_matching()
            return
        seen = self._moments.count
        axes, eigenvalues = principal_axes(self._moments.covariance)
        # Vectors that are all the same leave no variance but what rounding has made of their mean.
        rounding = 64 * np.finfo("float64").eps * np.linalg.norm(self._moments.mean)
        if eigenvalues[0] <= rounding**2:
            eigenvalues = np.zeros_like(eigenvalues)
        self.assign(self._moments.mean, axes, eigenvalues, seen)

        kept = self.eigenvectors.shape[1]
        spread = drawn(eigenvalues, self.shrinkage)
        flat = int(np.sum(spread[:kept] <= EIGENVALUE_FLOOR * eigenvalues[0]))
        if seen <= len(eigenvalues) or flat:
            found = "so few do not determine the variance along every axis"
            if flat:
                found = (
                    f"{flat} of the {kept} axes it keeps have next to no variance, and are scaled as if they had "
                    f"{EIGENVALUE_FLOOR:.1e} of the largest"
                )
            warnings.warn(
                f"PCAWhiten {self.name!r} has learned {len(eigenvalues)} dimensions from {seen} vectors: {found}; give it more "
                "vectors, fewer `components`, or a `shrinkage` above 0.",
                stacklevel=2,
            )

    def _finalize_matching(self):
        within = self._differences.covariance
        if not within.any():
            raise ValueError(
                f"PCAWhiten {self.name!r} learns from how matching vectors differ, but the {self._differences.count} pairs are "
                "each one vector twice; pair different photos of the same."
            )
        axes, eigenvalues, flat = discriminative_axes(self._moments.covariance, within, self.shrinkage)
        self.assign(self._moments.mean, axes, eigenvalues, self._moments.count)
        if flat:
            warnings.warn(
                f"PCAWhiten {self.name!r} has learned {len(eigenvalues)} dimensions from {self._differences.count} pairs of "
                f"matching vectors, which hardly differ in {flat} directions: they count as {EIGENVALUE_FLOOR:.1e} of the largest "
                "variance; give it more pairs, or learn with a `shrinkage` above 0.",
                stacklevel=3,
            )

    def reset_state(self) -> None:
        """Forgets the running mean, covariance and differences, not what was learned from earlier ones."""
        self._moments, self._differences = RunningMoments(), RunningDifferences()

    def assign(self, mean: np.ndarray, eigenvectors: np.ndarray, eigenvalues: np.ndarray, count: int) -> None:
        """Takes over a whitening learned elsewhere.

        Args:
            mean: `(d,)`.
            eigenvectors: `(d, k)`, one axis a column, strongest first; k at least the axes kept.
            eigenvalues: `(d,)`, what each axis is divided by the square root of.
            count: how many vectors it was learned from.
        """
        if not self.built:
            self.build(np.shape(mean))
        self.mean.assign(np.asarray(mean, self.result_dtype))
        self.eigenvectors.assign(np.asarray(eigenvectors, self.result_dtype)[:, : self.eigenvectors.shape[1]])
        self.eigenvalues.assign(np.asarray(eigenvalues, self.result_dtype))
        self._count.assign(min(int(count), np.iinfo("int32").max))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.components or input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "components": self.components,
            "shrinkage": self.shrinkage,
            "mask_zero": self.mask_zero,
        }


def _batches(data):
    """The batches in `data`, whichever of the forms `adapt` takes it has."""
    if hasattr(data, "element_spec"):  # a tf.data.Dataset; one of single vectors is put into batches
        spec = data.element_spec[0] if isinstance(data.element_spec, tuple) else data.element_spec
        return _features(data.batch(1024) if spec.shape.rank == 1 else data)
    if hasattr(data, "shape") or not hasattr(data, "__iter__"):
        return [data]
    batches = iter(data)
    first = next(batches, None)
    if first is not None and np.ndim(first[0] if isinstance(first, tuple) else first) < 2:
        return [np.asarray([first, *batches])]  # a plain list of vectors
    return _features(itertools.chain([] if first is None else [first], batches))


def _features(batches):
    return (batch[0] if isinstance(batch, tuple) else batch for batch in batches)


def _is_a_pair(value):
    """Whether it is two arrays of vectors, of which rows match; a tuple of such tuples is not."""
    return isinstance(value, tuple) and len(value) == 2 and all(hasattr(one, "shape") for one in value)
