"""What each method makes of a feature map, in float64 NumPy: CroW and R-MAC as the public programs of their authors and of
others compute them, told in words of our own; all others by their formulas."""

import math

import numpy as np
from layers import reference


def crow(features):
    """CroW of each photo `(B, 1, C)`: place weights from channel sums, channel weights from the shares of places that fire."""

    def of_photo(photo):
        places = photo.sum(axis=0)
        places = np.sqrt(places / np.sqrt((places**2).sum()))
        shares = [np.count_nonzero(channel) / channel.size for channel in photo]
        channels = [math.log(sum(shares) / share) if share > 0 else 0.0 for share in shares]
        return (photo * places).sum(axis=(1, 2)) * channels

    photos = np.asarray(features, "float64").transpose(0, 3, 1, 2)
    return np.stack([of_photo(photo) for photo in photos])[:, None]


def rmac_grid(height, width, levels=3):
    """R-MAC's windows without the whole map (top, left, side), in floating point as it is customary: by the corners of windows
    around centres, of which the longer axis has the number in 2..7 whose overlap is nearest to 0.4."""
    shorter = min(height, width)
    gaps = (max(height, width) - shorter) / (np.arange(2.0, 8.0) - 1)
    extra = int(np.argmin(abs((shorter**2 - shorter * gaps) / shorter**2 - 0.4))) + 1
    grid = []
    for level in range(1, levels + 1):
        side = math.floor(2 * shorter / (level + 1))
        half = math.floor(side / 2 - 1)

        def starts(length, count, side=side, half=half):
            gap = (length - side) / (count - 1) if count > 1 else 0.0
            return [math.floor(half + number * gap) - half for number in range(count)]

        rows = starts(height, level + (extra if height > width else 0))
        columns = starts(width, level + (extra if width > height else 0))
        grid += [(top, left, side) for top in rows for left in columns]
    return grid


def rmac(features, levels=3, include_whole_map=True):
    """The maximum over each window `(B, R, C)`, the whole map first."""
    features = np.asarray(features, "float64")
    _, height, width, _ = features.shape
    found = [features.max(axis=(1, 2))] if include_whole_map else []
    for top, left, side in rmac_grid(height, width, levels):
        found.append(features[:, top : top + side, left : left + side].max(axis=(1, 2)))
    return np.stack(found, axis=1)


def rw(features, levels=3, spatial_weight=True, channel_weight="counts", regions=True, pooling="sum", **weights):
    """Our own method, with parts of it switched off."""
    places = reference.spatial_weight(features, **weights) if spatial_weight else 1
    channels = {
        "counts": reference.channel_weight,
        "proportions": reference.channel_weight_by_proportions,
        None: lambda features: 1,
    }[channel_weight](features)
    features = np.asarray(features, "float64") * places * channels
    if not regions:
        levels = 0
    return {"sum": reference.region_sums, "max": reference.region_maxima}[pooling](features, levels)


def signed_mean(features, p=3.0):
    """The generalised mean `(B, C)` of powers with their signs."""
    features = np.asarray(features, "float64")
    largest = np.abs(features).max(axis=(1, 2), keepdims=True)
    scaled = features / np.where(largest > 0, largest, 1)
    means = (np.sign(scaled) * np.abs(scaled) ** p).mean(axis=(1, 2))
    return np.sign(means) * np.abs(means) ** (1 / p) * largest[:, 0, 0]


def length_weight(features, alpha=2.0, beta=2.0):
    """What each place is multiplied by, `(B, H, W, 1)`: its length over the norm of all lengths, and a root of that."""
    lengths = np.linalg.norm(np.asarray(features, "float64"), axis=-1, keepdims=True)
    largest = lengths.max(axis=(1, 2, 3), keepdims=True)
    share = lengths / np.where(largest > 0, largest, 1)
    total = (share**alpha).sum(axis=(1, 2), keepdims=True) ** (1 / alpha)
    return (share / np.where(total > 0, total, 1)) ** (1 / beta)


# The region vectors `(B, R, C)` of each method by name, up to a factor above 0: a descriptor takes their directions alone.
REGIONS = {
    "rw": rw,
    "root_rw": lambda features: reference.signed_power(rw(features)),
    "rmac": rmac,
    "crow": crow,
    "spoc": lambda features: reference.centred(features).sum(axis=(1, 2))[:, None],
    "mac": lambda features: np.asarray(features, "float64").max(axis=(1, 2))[:, None],
    "gem": lambda features: reference.generalised_mean(features)[:, None],
    "sum": lambda features: np.asarray(features, "float64").sum(axis=(1, 2))[:, None],
    "mean": lambda features: np.asarray(features, "float64").mean(axis=(1, 2))[:, None],
    "signed_gem": lambda features: signed_mean(features)[:, None],
    "signed_rmac": lambda features: rmac(features),
    "signed_rw": lambda features: reference.region_sums(np.asarray(features, "float64") * length_weight(features)),
}
