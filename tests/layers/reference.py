"""The publications' formulas in float64 NumPy, read from their text and not from the layers; and maps to try them on.

Numbers of formulas are those of the publication of `rw`.

A feature map is `(B, H, W, C)`, with `X >= 0`.
"""

from fractions import Fraction

import numpy as np

# Height x width of the maps that the layers are compared on: single cells, lines, the square of a 224-pixel photo,
# the map of a 3:4 photo either way up, a panorama, and one larger than most.
SIZES = [(1, 1), (1, 9), (9, 1), (3, 4), (2, 5), (7, 30), (14, 14), (24, 32), (32, 24), (17, 90), (64, 48)]

RELATIVE_ERROR = 2e-5  # what float32 leaves of the float64 value, with room to sum thousands


def spatial_weight(features, alpha=2.0, beta=2.0):
    """Formulas 2 and 3: `(B, H, W, 1)`. A zero map has zero weights."""
    sums = np.asarray(features, "float64").sum(axis=-1, keepdims=True)
    # Multiplying the map changes no weight, and keeps the powers within float64's range.
    largest = sums.max(axis=(1, 2), keepdims=True)
    sums = sums / np.where(largest > 0, largest, 1)
    norm = (sums**alpha).sum(axis=(1, 2), keepdims=True) ** (1 / alpha)
    return (sums / np.where(norm > 0, norm, 1)) ** (1 / beta)


def channel_weight(features, epsilon=1.0):
    """Formulas 4 and 5: `(B, 1, 1, C)`. A zero map has zero weights."""
    counts = (np.asarray(features) > 0).sum(axis=(1, 2), keepdims=True).astype("float64")
    total = counts.sum(axis=-1, keepdims=True)
    return np.log(np.where(total > 0, total / (epsilon + counts), 1))


def channel_weight_by_proportions(features):
    """CroW's: `(B, 1, 1, C)`. A channel that never fires has zero weight."""
    shares = (np.asarray(features) > 0).mean(axis=(1, 2), keepdims=True, dtype="float64")
    fires = shares > 0
    return np.log(np.where(fires, shares.sum(axis=-1, keepdims=True) / np.where(fires, shares, 1), 1))


def center_prior(height, width, sigma=1 / 3):
    """SPoC's: `(height, width)`, a Gaussian of the distance between the middles of a cell and of the map."""
    spread = sigma * min(height, width) / 2
    squares = [[(y + 0.5 - height / 2) ** 2 + (x + 0.5 - width / 2) ** 2 for x in range(width)] for y in range(height)]
    return np.exp(-np.array(squares) / (2 * spread**2))


def centred(features, sigma=1 / 3):
    """The map under SPoC's prior."""
    return np.asarray(features, "float64") * center_prior(*features.shape[1:3], sigma)[:, :, None]


def generalised_mean(features, p=3.0):
    """GeM: `(B, C)`. A zero channel stays zero."""
    features = np.maximum(np.asarray(features, "float64"), 0)
    # The mean of a multiple is the multiple of the mean: so no power leaves float64's range.
    largest = features.max(axis=(1, 2), keepdims=True)
    return largest[:, 0, 0] * ((features / np.where(largest > 0, largest, 1)) ** p).mean(axis=(1, 2)) ** (1 / p)


def signed_power(values, exponent=0.5):
    """Each element's magnitude to a power, under its sign."""
    values = np.asarray(values, "float64")
    return np.sign(values) * np.abs(values) ** exponent


def weighted(features, alpha=2.0, beta=2.0, epsilon=1.0):
    """Formula 1, both weights taken from the original map."""
    return spatial_weight(features, alpha, beta) * channel_weight(features, epsilon) * np.asarray(features, "float64")


def extra_windows(height, width):
    """How many more windows the longer axis has: the t in 1..6 whose overlap is nearest to 0.4, the smallest on a tie."""
    shorter, longer = min(height, width), max(height, width)
    if shorter == longer:
        return 0

    def distance(t):
        return abs(1 - Fraction(longer - shorter, t) / shorter - Fraction(4, 10))

    return min(range(1, 7), key=distance)  # min keeps the first of equals


def windows(height, width, levels=3, include_whole_map=True):
    """The grid: (top, left, bottom, right) of each window, the whole map first, then scale by scale, row by row."""
    extra = extra_windows(height, width)

    def starts(length, side, count):
        return [0 if count == 1 else i * (length - side) // (count - 1) for i in range(count)]

    found = [(0, 0, height, width)] if include_whole_map else []
    for level in range(1, levels + 1):
        side = max(1, 2 * min(height, width) // (level + 1))
        tops = starts(height, side, level + extra if height > width else level)
        lefts = starts(width, side, level + extra if width > height else level)
        found += [(top, left, top + side, left + side) for top in tops for left in lefts]
    return found


def region_sums(features, levels=3, include_whole_map=True):
    """Formulas 6 and 7: `(B, R, C)`. No levels leave the whole map."""
    features = np.asarray(features, "float64")
    grid = windows(*features.shape[1:3], levels, include_whole_map)
    return np.stack([features[:, top:bottom, left:right].sum(axis=(1, 2)) for top, left, bottom, right in grid], axis=1)


def region_maxima(features, levels=3, include_whole_map=True):
    """R-MAC's: `(B, R, C)`, over the windows of formula 7."""
    grid = windows(*features.shape[1:3], levels, include_whole_map)
    return np.stack([features[:, top:bottom, left:right].max(axis=(1, 2)) for top, left, bottom, right in grid], axis=1)


def unit(vectors, axis=-1):
    """Vectors of length 1; a zero vector stays zero."""
    vectors = np.asarray(vectors, "float64")
    largest = np.abs(vectors).max(axis=axis, keepdims=True)
    vectors = vectors / np.where(largest > 0, largest, 1)  # so that no square leaves float64's range
    lengths = np.sqrt((vectors**2).sum(axis=axis, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


def principal_axes(vectors):
    """Mean `(d,)`, axes `(d, d)` one a column, and variances along them `(d,)`, the largest first."""
    vectors = np.asarray(vectors, "float64")
    mean = vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(vectors - mean, rowvar=False))
    return mean, axes[:, ::-1], variances[::-1]


def whitened(vectors, mean, axes, variances, shrinkage=0.0):
    """PCA-whitening with eigenvalues drawn towards their mean; a zero vector stays zero. Keeps as many axes as are given."""
    vectors, mean, axes, variances = (np.asarray(array, "float64") for array in (vectors, mean, axes, variances))
    scale = np.sqrt((1 - shrinkage) * variances + shrinkage * variances.mean())[: axes.shape[1]]
    found = vectors.any(axis=-1, keepdims=True)
    return np.where(found, (vectors - mean) @ axes / scale, 0)


def descriptor(regions, whiten=None):
    """Formula 8: region vectors `(B, R, C)` to unit descriptors; `whiten` takes unit vectors to whitened ones."""
    vectors = unit(regions)
    return unit(unit(vectors if whiten is None else whiten(vectors)).sum(axis=1))


def dense_map(height, width, channels=8, batch=2, seed=0):
    """A float32 map whose every element is above 0, each within 1:1000 of the largest."""
    return np.random.default_rng(seed).uniform(1e-3, 1, (batch, height, width, channels)).astype("float32")


def sparse_map(height, width, channels=8, batch=2, seed=0):
    """A float32 map as a ReLU leaves it: channels fire at 1 to 60 % of the places, the last one never."""
    random = np.random.default_rng(seed)
    rates = np.append(np.linspace(0.01, 0.6, channels - 1), 0)
    fires = random.random((batch, height, width, channels)) < rates
    fires[:, 0, 0, 0] = True  # so that no map is all zero by chance
    return np.where(fires, random.gamma(1, 20, fires.shape), 0).astype("float32")


def hot_map(height, width, channels=8, batch=2):
    """A float32 map of zeros with one element above 0 in each photo, near the middle and in the last corner."""
    features = np.zeros((batch, height, width, channels), "float32")
    features[0, height // 2, width // 2, 1] = 3.5
    features[1:, -1, -1, -1] = 0.7
    return features


def uneven_map(height, width, channels=8, batch=2, seed=0):
    """A sparse float32 map in which one element is a million times as large as the others."""
    features = sparse_map(height, width, channels, batch, seed)
    features[:, height // 3, width // 3, 2] = 2e7
    return features


MAPS = {
    "sparse": sparse_map,
    "dense": dense_map,
    "one hot element": hot_map,
    "one loud element": uneven_map,
    "tiny": lambda height, width: sparse_map(height, width) * np.float32(1e-12),
    "huge": lambda height, width: sparse_map(height, width) * np.float32(1e12),
    "zero": lambda height, width: np.zeros((2, height, width, 8), "float32"),
}


def resizing(before, after):
    """`(after, before)`: antialiased bicubic resizing of a line of pixels, one new pixel at a time (Keys' cubic, a = -0.5)."""
    matrix = np.zeros((after, before))
    step = before / after  # old pixels from one new pixel to the next
    for new in range(after):
        for old in range(before):
            x = abs((new + 0.5) * step - (old + 0.5)) / max(step, 1)
            if x < 1:
                matrix[new, old] = 1.5 * x**3 - 2.5 * x**2 + 1
            elif x < 2:
                matrix[new, old] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(photos, height, width):
    """Photos `(B, H, W, C)` at another size."""
    rows, columns = resizing(photos.shape[1], height), resizing(photos.shape[2], width)
    return np.einsum("ph,qw,bhwc->bpqc", rows, columns, np.asarray(photos, "float64"), optimize=True)
