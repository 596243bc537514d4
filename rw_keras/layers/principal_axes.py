"""The axes that a whitening projects onto, in float64: principal axes, and those that tell matching vectors from others."""

from __future__ import annotations

import numpy as np

# Eigenvalues count as at least this share of the largest one. The vectors are float32: below it, an axis
# holds rounding and nothing else, and dividing by its spread would blow that up.
EIGENVALUE_FLOOR = float(np.finfo("float32").eps)


class RunningMoments:
    """Count, mean and covariance of vectors that come in batches, with memory for one batch and one `(d, d)` matrix.

    Attributes:
        count: how many vectors were added.
        mean: `(d,)` float64; `None` before the first.
    """

    def __init__(self) -> None:
        self.count, self.mean, self._products = 0, None, None

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors `(n, d)`, float64.

        Chan, Golub and LeVeque's update: products are taken of differences from each batch's own mean, so a mean far larger than
        the spread costs no digits.
        """
        added, batch_mean = len(vectors), vectors.mean(axis=0)
        vectors = vectors - batch_mean
        products = vectors.T @ vectors
        if self.count == 0:
            self.count, self.mean, self._products = added, batch_mean, products
            return
        total = self.count + added
        shift = batch_mean - self.mean
        self._products += products + np.outer(shift, shift) * (self.count * added / total)
        self.mean += shift * (added / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """`(d, d)`; zeros of one vector."""
        return self._products / max(self.count - 1, 1)


class RunningDifferences:
    """The mean outer product of differences between matching vectors; a pair has no order, so their mean is zero.

    Attributes:
        count: how many differences were added.
    """

    def __init__(self) -> None:
        self.count, self._products = 0, 0.0

    def add(self, differences: np.ndarray) -> None:
        """Adds differences `(n, d)`, float64."""
        self.count += len(differences)
        self._products = self._products + differences.T @ differences

    @property
    def covariance(self) -> np.ndarray:
        """`(d, d)`."""
        return self._products / self.count


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit axes `(d, d)`, one a column, and the variance along each `(d,)`, largest first."""
    variances, axes = np.linalg.eigh(covariance)
    return _with_signs(axes[:, ::-1]), np.maximum(variances[::-1], 0)


def discriminative_axes(covariance: np.ndarray, within: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray, int]:
    """The axes along which vectors differ most, next to how much matching ones do.

    Space is first scaled so that matching vectors differ alike in every direction, by the inverse square root of `W`, which is
    `within` drawn to a multiple of the identity; the principal axes of all vectors there, seen from the space as it was, are the
    columns `v` of `V` with `V' W V = I` and `V' covariance V` diagonal (Mikolajczyk and Matas, 2007; Radenovic, Tolias and Chum,
    2019).

    Args:
        covariance: `(d, d)`, of all vectors.
        within: `(d, d)`, the mean outer product of the differences between matching vectors.
        shrinkage: 0 to 1; `W = (1 - shrinkage) * within + shrinkage * mean(diagonal(within)) * I`.

    Returns:
        The axes `v` at unit length, `(d, d)`, one a column, in general not at right angles, and the eigenvalues `e`, `(d,)`, that
        make `v` of them under this shrinkage (see `undrawn`); both in the order of `v' covariance v`, largest first. Without
        shrinkage `e` is the variance of matching vectors' differences along the axis. And along how many directions matching
        vectors hardly differ: there `W` counts as `EIGENVALUE_FLOOR` of its largest eigenvalue.
    """
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    spreads, directions = np.linalg.eigh(shrunk)
    floor = EIGENVALUE_FLOOR * spreads[-1]
    half = directions / np.sqrt(np.maximum(spreads, floor))
    scaled = half.T @ covariance @ half
    _, turned = np.linalg.eigh((scaled + scaled.T) / 2)
    axes = half @ turned[:, ::-1]
    lengths = np.linalg.norm(axes, axis=0)
    return _with_signs(axes / lengths), undrawn(1 / lengths**2, shrinkage), int(np.sum(spreads <= floor))


def drawn(eigenvalues: np.ndarray, shrinkage: float) -> np.ndarray:
    """Eigenvalues drawn to their mean by `PCAWhiten`'s shrinkage, 0 to 1."""
    return (1 - shrinkage) * eigenvalues + shrinkage * eigenvalues.mean()


def undrawn(variances: np.ndarray, shrinkage: float) -> np.ndarray:
    """The eigenvalues `e` of which `PCAWhiten`'s shrinkage makes these variances, by `drawn`.

    The mean of both sides says that `e` has the same mean. Some may be below 0, since only what is made of them is used.
    """
    return variances if shrinkage == 1 else (variances - shrinkage * variances.mean()) / (1 - shrinkage)


def _with_signs(axes):
    """An axis has no sign of its own; the same data shall give the same values everywhere: its largest element is positive."""
    peaks = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return axes * np.where(peaks < 0, -1, 1)
