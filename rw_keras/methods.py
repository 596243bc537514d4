"""Methods by name: from a feature map to region vectors.

A method is one function: a feature map `(B, H, W, C)` in, region vectors `(B, R, C)` out. What follows is the same
for all: L2 normalisation, PCA-whitening, L2 normalisation, the sum over regions, L2 normalisation. Pass such a
function to `rw_keras.build_descriptor(method=...)`, or give it a name in `METHODS`. One that has an argument
`levels` is given the number of scales.

A method is given a map without negative values: where a network may give some, a ReLU follows it, because sums of activations and
counts of what is above 0 mean nothing otherwise. A method with the decorator `takes_signed` is given the map as it is.
"""

import functools
import inspect
from collections.abc import Callable

import keras

from rw_keras import layers


def rw(
    features: keras.KerasTensor,
    levels: int = 3,
    alpha: float = 2.0,
    beta: float = 2.0,
    epsilon: float = 1.0,
    *,
    spatial_weight: bool = True,
    channel_weight: str | None = "counts",
    regions: bool = True,
    pooling: str = "sum",
) -> keras.KerasTensor:
    """Feature weighting and regional integration: weigh places, weigh channels, sum regions.

    What comes after `epsilon` takes a part of the method away, for an ablation.

    Args:
        features: the feature map.
        levels: scales of the regional grid.
        alpha, beta: see `rw_keras.layers.SpatialWeight`.
        epsilon: see `rw_keras.layers.IDFChannelWeight`.
        spatial_weight: whether places are weighed.
        channel_weight: "counts", "proportions" (as CroW's), or `None` for no weight.
        regions: whether there are any but the whole map.
        pooling: "sum", or "max" as R-MAC's.
    """
    channel_weights = {
        "counts": functools.partial(layers.IDFChannelWeight, epsilon),
        "proportions": layers.CroWChannelWeight,
        None: None,
    }
    poolings = {"sum": (layers.RegionalSumPooling, _whole_sum), "max": (layers.RegionalMaxPooling, mac)}
    for name, value, known in (("channel_weight", channel_weight, channel_weights), ("pooling", pooling, poolings)):
        if value not in list(known):  # a value that cannot be hashed is none of them, too
            raise ValueError(f"The method rw takes {' or '.join(map(repr, known))} as {name}, but got {value!r}.")
    if spatial_weight:
        features = layers.SpatialWeight(alpha, beta, name="spatial_weight")(features)
    if channel_weight:
        features = channel_weights[channel_weight](name="channel_weight")(features)
    over_grid, over_whole_map = poolings[pooling]
    return over_grid(levels, name="regions")(features) if regions else over_whole_map(features)


def root_rw(
    features: keras.KerasTensor, levels: int = 3, alpha: float = 2.0, beta: float = 2.0, epsilon: float = 1.0
) -> keras.KerasTensor:
    """`rw` with the signed square root of its region vectors: not the publication's. Its whitening is to have shrinkage 0.2."""
    return layers.PowerNorm(0.5, name="power_norm")(rw(features, levels, alpha, beta, epsilon))


def rmac(features: keras.KerasTensor, levels: int = 3, include_whole_map: bool = True) -> keras.KerasTensor:
    """R-MAC (Tolias, Sicre and Jegou, 2016): the maximum over each region."""
    return layers.RegionalMaxPooling(levels, include_whole_map, name="regions")(features)


def crow(features: keras.KerasTensor) -> keras.KerasTensor:
    """CroW (Kalantidis, Mellina and Osindero, 2016): weigh places, weigh channels by proportions, sum the whole map."""
    return rw(features, channel_weight="proportions", regions=False)


def spoc(features: keras.KerasTensor, sigma: float = 1 / 3) -> keras.KerasTensor:
    """SPoC (Babenko and Lempitsky, 2015): the sum over the whole map with a Gaussian centre prior."""
    return _whole_sum(layers.CenterPrior(sigma, name="center_prior")(features))


def mac(features: keras.KerasTensor) -> keras.KerasTensor:
    """MAC (Razavian et al., 2016; Tolias, Sicre and Jegou, 2016): the maximum over the whole map."""
    pooled = keras.layers.GlobalMaxPooling2D(data_format="channels_last", dtype="float32", name="whole_map")(features)
    return _one_region(pooled)


def gem(features: keras.KerasTensor, p: float = 3.0) -> keras.KerasTensor:
    """GeM (Radenovic, Tolias and Chum, 2019): the generalised mean over the whole map."""
    return _one_region(layers.GeMPooling(p, name="whole_map")(features))


def plain_sum(features: keras.KerasTensor) -> keras.KerasTensor:
    """The sum over the whole map, no weights, no regions: the baseline."""
    return _whole_sum(features)


def takes_signed(method: "Method") -> "Method":
    """A decorator for a method that is given maps as they are, below 0 in places, without a ReLU.

    Raises:
        ValueError: for a method of the package, which would change for everybody; decorate a function of your own that calls it.
    """
    if method in globals().get("METHODS", {}).values():
        raise ValueError(f"{method.__name__} is a method of the package; decorate a function of your own that calls it.")
    method.takes_signed = True
    return method


@takes_signed
def mean(features: keras.KerasTensor) -> keras.KerasTensor:
    """The mean of a signed map, because averaging is what tokens of self-supervised networks are usually compared by."""
    return _whole_sum(features)


@takes_signed
def signed_gem(features: keras.KerasTensor, p: float = 3.0) -> keras.KerasTensor:
    """GeM of absolute powers with their signs, because a mean of absolute values alone would make opposite channels alike."""
    return _one_region(layers.SignedGeMPooling(p, name="whole_map")(features))


@takes_signed
def signed_rmac(features: keras.KerasTensor, levels: int = 3) -> keras.KerasTensor:
    """R-MAC of a signed map, because a maximum needs no sign: what responds most in each region stays, below 0 too."""
    return layers.RegionalMaxPooling(levels, name="regions")(features)


@takes_signed
def signed_rw(features: keras.KerasTensor, levels: int = 3, alpha: float = 2.0, beta: float = 2.0) -> keras.KerasTensor:
    """`rw` with the length of a place's feature for the sum of its channels, which cancel in a signed map, and without the
    channel weight, because "above 0" says nothing of how often a signed channel fires."""
    weighed = layers.NormWeight(alpha, beta, name="spatial_weight")(features)
    return layers.RegionalSumPooling(levels, name="regions")(weighed)


@takes_signed
def class_token(features: keras.KerasTensor) -> keras.KerasTensor:
    """A vision transformer's class token, because DINOv2's and DINOv3's own retrieval figures are of it."""
    return _one_region(_whole_photo(features))


@takes_signed
def class_rw(features: keras.KerasTensor, levels: int = 3, alpha: float = 2.0, beta: float = 2.0) -> keras.KerasTensor:
    """`signed_rw` with the class token as one more region, because it has seen the whole photo, and the regions have the place."""
    regions = signed_rw(features, levels, alpha, beta)
    return layers.OneMoreRegion(name="regions_and_class")(regions, whole=_whole_photo(features))


@takes_signed
def joint(features: keras.KerasTensor) -> keras.KerasTensor:
    """The pooled embedding of CLIP or SigLIP as it is, because a text's lives in the same space; the network is cut at "joint"."""
    if tuple(features.shape[1:3]) != (1, 1):
        raise ValueError(
            f"The method joint takes a pooled embedding, a map of one cell, but the network gives the shape "
            f"{tuple(features.shape)}; "
            'take CLIP or SigLIP of KerasHub, such as "hub:clip_vit_base_patch16", or cut your own at it: '
            'rw_keras.backbones.hub(backbone, converter, layer="joint").'
        )
    return _one_region(features)


def _whole_photo(features):
    """The class token `(B, 1, 1, C)`."""
    tokens = tokens_of(features)
    if tokens is None:
        raise ValueError(
            "The network has no class token: its map does not come from rw_keras.layers.TokensToMap with prefix_tokens of 1 or "
            "more; take another method, such as signed_gem, or a vision transformer that has one, such as DINOv2."
        )
    return layers.ClassToken(name="class_token")(tokens)


def tokens_of(features: keras.KerasTensor) -> keras.KerasTensor | None:
    """The tokens `(B, T, C)`, a class token first, that `TokensToMap` made a map of; `None` for any other map."""
    last = features._keras_history.operation
    if isinstance(last, keras.layers.ReLU):  # a signed map's, for a method that takes none
        return tokens_of(last.input)
    return last.input[0] if isinstance(last, layers.TokensToMap) and last.prefix_tokens else None


def automatic(features: keras.KerasTensor) -> str:
    """The method that `build_descriptor(method="auto")` takes for a network's map.

    "joint" for a pooled embedding, a map of one cell; "class_token" for a vision transformer that has one; "signed_gem" for one
    that has none; "rw", the publication's, for every other network.
    """
    if tuple(features.shape[1:3]) == (1, 1):
        return "joint"
    if isinstance(features._keras_history.operation, layers.TokensToMap):
        return "signed_gem" if tokens_of(features) is None else "class_token"
    return "rw"


def is_for_signed_maps(method: "Method") -> bool:
    """Whether a method, perhaps with arguments of one's own, is given a map as it is."""
    while isinstance(method, functools.partial):
        if getattr(method, "takes_signed", False):
            return True
        method = method.func
    return getattr(method, "takes_signed", False)


def _whole_sum(features):
    # The mean: it has the same direction.
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32", name="whole_map")(features)
    return _one_region(pooled)


def _one_region(pooled):
    return keras.layers.Reshape((1, pooled.shape[-1]), dtype="float32", name="regions")(pooled)


Method = Callable[..., keras.KerasTensor]

METHODS: dict[str, Method] = {
    "rw": rw,
    "root_rw": root_rw,
    "rmac": rmac,
    "crow": crow,
    "spoc": spoc,
    "mac": mac,
    "gem": gem,
    "sum": plain_sum,
    "mean": mean,
    "signed_gem": signed_gem,
    "signed_rmac": signed_rmac,
    "signed_rw": signed_rw,
    "class_token": class_token,
    "class_rw": class_rw,
    "joint": joint,
}

# Those that are given a map which is nowhere below 0, and those that are given it as it is.
OF_RECTIFIED_MAPS = tuple(name for name, function in METHODS.items() if not is_for_signed_maps(function))
OF_SIGNED_MAPS = tuple(name for name in METHODS if name not in OF_RECTIFIED_MAPS)

# How the name of another such method ends in a recipe.
SIGNED = "-signed"
# Those that need the tokens which the map was made of.
OF_TOKENS = ("class_token", "class_rw")

# The shrinkage that a method's whitening is meant to have; 0 for all others.
SHRINKAGE: dict[str, float] = {"root_rw": 0.2}


def resolve(method: str | Method, levels: int) -> tuple[Method, str, int | None]:
    """The function of a method and the name that a recipe knows it by.

    Args:
        method: a name in `METHODS`, or a function.
        levels: the number of scales, given to methods that take one.

    Returns:
        The function, of the feature map alone; its name; and the levels it uses, or `None`.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}, auto, or pass a function.")
        name, function = method, METHODS[method]
    elif callable(method):
        name, function = _name(method), method
    else:
        raise ValueError(f"A method is a name or a function, but got {method!r}; choose one of {', '.join(METHODS)}.")
    parameters = inspect.signature(function).parameters
    if "levels" not in parameters:
        return function, name, None
    if isinstance(function, functools.partial) and "levels" in function.keywords:
        return function, name, function.keywords["levels"]
    return functools.partial(function, levels=levels), name, levels


def _name(function):
    if isinstance(function, functools.partial):
        given = [repr(value) for value in function.args]
        given += [f"{key}={value!r}" for key, value in sorted(function.keywords.items())]
        return f"{_name(function.func)}({', '.join(given)})"
    for name, known in METHODS.items():
        if known is function:
            return name
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
