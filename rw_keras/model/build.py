"""Building the one model: network, method, whitening."""

import functools
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from rw_keras import backbones, layers, methods
from rw_keras._moved import renamed
from rw_keras.backbones import keras_files
from rw_keras.model import preset_folder, presets
from rw_keras.model import whitening as whitenings
from rw_keras.model.descriptor_model import DescriptorModel
from rw_keras.model.recipe import UNSET, Recipe, whitening_layer
from rw_keras.model.recipe import recipe as recipe  # its name for users
from rw_keras.model.scales import checked_scales, multi_scale
from rw_keras.regions import check_levels

# What a whitening is learned on and applied to: each region's vector, or their sum.
WHITEN_ON = ("regions", "global")


def _filled_from_preset(function):
    """Lets `build_descriptor` take from its preset what its caller does not give; its signature shows the publication's values."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def filled(*arguments, **keywords):
        if keywords.get("preset") is None:
            return function(*arguments, **keywords)
        preset = presets.named(keywords["preset"])
        given = signature.bind(*arguments, **keywords).arguments
        parts = preset.parts
        if whitenings.is_of_pairs(given.get("whitening")):
            parts = {**parts, "shrinkage": None}  # the file's, which it was learned with
        return function(**{**parts, **given, "preset": preset})

    return filled


@renamed(whiten="whiten_on")
@_filled_from_preset
def build_descriptor(
    backbone: str | keras.Model = "vgg16",
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    layer: str | None = None,
    method: str | methods.Method = "rw",
    levels: int = 3,
    components: int | None = None,
    shrinkage: float | None = None,
    whitening: str | os.PathLike[str] | None = "auto",
    whiten_on: str = "regions",
    scales: Sequence[float] | None = None,
    preset: str | presets.Preset | None = None,
    name: str | None = None,
) -> DescriptorModel:
    """Builds the model that turns photos into descriptors.

    The stages: the network with its preprocessing; the method (for `"rw"`: SpatialWeight, IDFChannelWeight,
    RegionalSumPooling); L2Norm, PCAWhiten, L2Norm on each region vector; their sum; L2Norm. With `whiten_on="global"`: L2Norm on
    each region vector; their sum; L2Norm, PCAWhiten, L2Norm on that.

    Input: RGB photos `(B, H, W, 3)`, 0..255, uint8 or float, of any size the network takes (16 x 16 and up for
    VGG16). Output: `(B, components)` float32 of unit length (512 by default for VGG16); zero where the
    map is zero.

    Args:
        backbone: the name of a network ("vgg16"), "hub:" and a preset of KerasHub ("hub:dinov2_small"), or any `keras.Model` that
            ends in a feature map; such a model is given RGB 0..255 and does its own preprocessing.
        weights: "imagenet", the path of a file that holds them, or `None` for random ones.
        layer: the layer to cut the network at. Default: the network's own ("block5_conv3" for VGG16; with the method "joint", the
            pooled embedding of a preset of KerasHub).
        method: a name in `rw_keras.methods.METHODS`, or a function from a feature map to region vectors `(B, R, C)`; or "auto":
            "joint" for presets of CLIP and SigLIP, "class_token" for other vision transformers ("signed_gem" for those that have no
            class token), "rw" for all other networks.
        levels: the number of scales of the regional grid, 1 to 16. Default 3.
        components: how many dimensions the whitening keeps. Default: all.
        shrinkage: 0 to 1, see `PCAWhiten`. Default: 0, the publication's, for the publication's method "rw"; for other methods what
            the whitening recommends that is put in, where it does, else the method's own, 0.2 for "root_rw" and 0 for the others.
        whitening: the path of a file that `save_whitening` wrote; `"auto"`: the one that ships with the package where
            it fits this very model, else identity; `None`: identity. A line on standard error says which.
        whiten_on: what is whitened: "regions", each region's vector, as in the publication; or "global", the sum of the region
            vectors, one vector a photo.
        scales: factors of a photo's sides at which its descriptors are added, see `multi_scale`. Default: one, the photo as it is.
        preset: a name in `rw_keras.model.presets.PRESETS`, such as "recommended": what is not given is taken from it, also where
            it says something else than the defaults here. Those are "paper", the publication's.
        name: the model's name.

    Returns:
        A functional `keras.Model` whose `recipe`, a `rw_keras.model.recipe.Recipe`, says what it was made of, and whose `preset`
        what is done with it by default.

    Raises:
        ValueError: for an argument out of range, a preset that there is not, or a whitening file that does not fit, naming the
            field that differs.
        FileNotFoundError: when the weights, or the whitening file, cannot be found.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", name):
        raise ValueError(f"A model's name is made of letters, digits, '_', '.' and '-', but got {name!r}.")
    _check_whiten_on(whiten_on)
    # Before a network is built.
    check_levels(levels, "build_descriptor")
    if method != "auto":
        methods.resolve(method, levels)
    scales = None if scales is None else checked_scales(scales)
    named = whitening is not None and whitening != "auto"
    learned = whitenings.Whitening.load(whitening) if named else None
    if layer is None and isinstance(backbone, str) and backbone.lower().startswith(backbones.HUB):
        layer = {"joint": "joint", "auto": "auto"}.get(method if isinstance(method, str) else "")
    network, backbone_name = backbones.network(backbone, weights, layer)
    built = _single_scale(
        network, backbone_name, method, levels, components, shrinkage, whiten_on, name if scales is None else None
    )
    made = built.recipe  # it hashes the weights
    settled = _settled_shrinkage(shrinkage, made.method)
    # The publication's 0 is that of principal axes; axes from pairs were learned with their shrinkage.
    brings_its_own = shrinkage is None and learned is not None and "pairs" in learned.provenance
    learned = _apply_whitening(built, made, whitening, learned, recommended=settled is None or brings_its_own)
    if brings_its_own:
        settled = whitening_layer(built).shrinkage
    parts = {
        "backbone": backbone_name,
        "layer": None if made.layer == _own_layer(backbone_name) else made.layer,
        "method": made.method,
        "levels": levels,
        "components": components,
        "shrinkage": settled,
        "whitening": str(learned.provenance.get("name")) if named else whitening,
        "whiten_on": whiten_on,
    }
    built.note_preset(_noted(preset, {**parts, "scales": None}))
    if scales is None:
        return built
    model = multi_scale(built, scales, name)
    if preset is not None:
        model.note_preset(_noted(preset, {**parts, "scales": tuple(scales)}))
    return model


def _noted(preset, parts):
    """The preset to note in a model of these parts: where none is given, "paper" if they are its."""
    if preset is not None:
        return preset.but(**parts)
    paper = presets.PRESETS["paper"]
    return paper if paper.but(**parts) == paper else None


def _settled_shrinkage(shrinkage, method):
    """What is known of a shrinkage before a whitening is: that of the publication's method is 0 where none is given."""
    return 0.0 if shrinkage is None and _is_the_publications(method) else shrinkage


def _own_layer(backbone):
    """Where a network of the package is cut by default; `None` for one of a user's own."""
    function = backbones.BACKBONES.get(backbone)
    return None if function is None else inspect.signature(function).parameters["layer"].default


def _single_scale(network, backbone_name, method, levels, components, shrinkage, whiten_on, name):
    """The model on a network, not whitened yet."""
    features = network.outputs[0]
    method = methods.automatic(features) if method == "auto" else method
    function, method_name, used_levels = methods.resolve(method, levels)
    takes_signed = methods.is_for_signed_maps(function)
    if not takes_signed:
        features = backbones.non_negative(features)
    regions = function(features)
    if len(getattr(regions, "shape", ())) != 3:
        raise ValueError(
            f"The method {method_name} returned {regions!r}; it has to return region vectors (batch, regions, channels)."
        )
    function_name = method_name.partition("(")[0].rpartition(".")[2]
    if method_name not in methods.METHODS:
        tokens = methods.tokens_of(features)
        start = features if tokens is None else [features, tokens]
        digest = backbones.digest_of_stages(start, regions)
        # The same layers make other vectors of a map that is not rectified.
        method_name = f"{method_name} {digest}{methods.SIGNED if takes_signed else ''}"
    if shrinkage is None:
        shrinkage = methods.SHRINKAGE.get(method_name.partition("(")[0], 0.0)
    stages = head_stages(layers.PCAWhiten(components, shrinkage, name="whitening"), whiten_on)
    return DescriptorModel(
        network.input,
        through(stages, regions),
        name=name or re.sub(r"[^A-Za-z0-9_.-]", "", f"{function_name}_{network.name}"),
        recipe=Recipe(
            backbone=backbone_name,
            layer=network.output_names[0],
            method=method_name,
            levels=used_levels,
            min_side=backbones.smallest_side(network),
            whitening=None,
            whiten_on=whiten_on,
        ),
    )


def head_stages(whitening: layers.PCAWhiten, whiten_on: str = "regions") -> list[keras.layers.Layer]:
    """The layers that take region vectors to a descriptor: the one place that orders norms, whitening and sum.

    `"regions"`: L2Norm, whitening, L2Norm on each vector; their sum; L2Norm. `"global"`: L2Norm on each vector; their sum; L2Norm,
    whitening, L2Norm on that.

    Args:
        whitening: the layer to use; the others are new.
        whiten_on: "regions" or "global".

    Returns:
        The layers in their order, for `through`.

    Raises:
        ValueError: for another `whiten_on`.
    """
    _check_whiten_on(whiten_on)
    total = layers.RegionSum(name="region_sum")
    first, between, second = (whitening, "whitened_norm", total) if whiten_on == "regions" else (total, "sum_norm", whitening)
    norms = [layers.L2Norm(name=name) for name in ("region_norm", between, "descriptor")]
    return [norms[0], first, norms[1], second, norms[2]]


def through(stages: Iterable[keras.layers.Layer], values: Any) -> Any:
    """What comes of a tensor, or of an array, that goes through layers one after the other."""
    for stage in stages:
        values = stage(values)
    return values


def _check_whiten_on(whiten_on):
    if whiten_on not in WHITEN_ON:
        raise ValueError(f"whiten_on is one of {', '.join(map(repr, WHITEN_ON))}, but got {whiten_on!r}.")


def from_recipe(
    recipe: Mapping[str, Any],
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    whitening: str | os.PathLike[str] = "auto",
    model: str | os.PathLike[str] | None = None,
    preset: str | None = None,
) -> DescriptorModel:
    """Builds the model that a recipe tells of, such as the one of an index.

    Whether its weights and its whitening are those of the recipe shows when the recipes are compared, as `Index.search_photo` does.

    Args:
        recipe: a `Recipe` or its dictionary. Where it has a `max_side`, `describe` takes it as its default.
        weights: see `build_descriptor`.
        whitening: the file of the recipe's whitening, or "auto", see `build_descriptor`; not looked at where the recipe has none.
        model: a `.keras` file of the model, which is loaded in place of all this.
        preset: the name of the preset by which the recipe came about, such as the field `preset` of an index; the model notes it.

    Raises:
        ValueError: for a recipe of which no model can be built, a model file that holds no descriptor model, and as
            `build_descriptor`.
        FileNotFoundError: when a file cannot be found.
    """
    recipe = Recipe.from_dict(recipe)
    built = load_descriptor(model) if model is not None else _built(recipe, weights, whitening, preset)
    if recipe.max_side is not UNSET:
        built.note_max_side(recipe.max_side)
    return built


def _built(recipe, weights, whitening, preset):
    absent = [field for field in ("backbone", "layer", "method", "levels") if getattr(recipe, field) is UNSET]
    if absent:
        raise ValueError(f"No model can be built of a recipe without {', '.join(absent)}; pass the model's file.")
    if recipe.others:
        raise ValueError(
            f"No model can be built of a recipe with {', '.join(map(repr, recipe.others))}, which this version does not know; "
            "install a later rw_keras."
        )
    learned = {} if recipe.whitening is UNSET else recipe.whitening or {}
    # An index keeps the name with what differs, "recommended, but method rw"; the recipe says it all.
    preset = None if preset is None else presets.PRESETS.get(presets.base_name(preset))
    return build_descriptor(
        recipe.backbone,
        weights=weights,
        layer=recipe.layer,
        method=recipe.method,
        levels=recipe.levels or 3,
        components=learned.get("components"),
        shrinkage=learned.get("shrinkage", 0.0),
        whitening=whitening if learned else None,
        whiten_on=recipe.whiten_on,
        scales=recipe.scales,
        preset=preset,
    )


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a descriptor model that `model.save(path)` wrote as a `.keras` file: `keras.saving.load_model`, the layers registered.

    Nothing in the file runs: it is read in Keras' safe mode, and refused where its weights are those of another file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be loaded; it says why.
    """
    try:
        return keras_files.load(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # Keras' own advice is about other formats
        raise ValueError(f"{path} cannot be loaded: {keras_files.reason(error)}") from error


def load_descriptor(path: str | os.PathLike[str]) -> DescriptorModel:
    """`load_model` for a file of a model that `build_descriptor` made, or a folder of `DescriptorModel.save_to_preset`.

    Raises:
        FileNotFoundError, ValueError: as for `load_model`, and for any other model.
    """
    model = preset_folder.load(path) if preset_folder.is_one(path) else load_model(path)
    if not isinstance(model, DescriptorModel) or "min_side" not in model.recipe:
        raise ValueError(f"{path} holds the model {model.name!r}, which is none that rw_keras.build_descriptor made.")
    return model


def _is_the_publications(method):
    """Whether a method, by its name in a recipe, is the publication's, perhaps with arguments of one's own."""
    return method.partition("(")[0] == "rw"


def _apply_whitening(model, made, whitening, learned, recommended):
    """Puts what `build_descriptor(whitening=...)` asks for into the model, and says what that was, and returns it.

    `made` is the recipe of the model. With `recommended`, also the shrinkage that the whitening recommends, where it does.
    """
    if whitening is None:
        return None
    layer = whitening_layer(model)
    if learned is None:
        shipped = [found for found in whitenings.shipped() if not found.differences(made)]
        if not shipped:
            print(
                f"rw_keras: {model.name} is not whitened: no whitening that ships with the package fits this model. Learn one "
                "with rw_keras.fit_whitening, or pass whitening=None to do without.",
                file=sys.stderr,
            )
            return None
        learned = shipped[0]
    else:
        differences = learned.differences(made)
        if differences:
            raise ValueError(f"The whitening {whitening} does not fit this model: {'; '.join(differences)}.")
    advised = learned.provenance.get("recommended_shrinkage")
    if recommended and advised is not None:
        layer.shrinkage = float(advised)
    if "pairs" in learned.provenance and advised is not None and layer.shrinkage != advised:
        raise ValueError(
            f"The whitening {whitening} was learned from pairs with shrinkage {advised:g}, and does not go with shrinkage "
            f"{layer.shrinkage:g}; leave shrinkage out, or learn it again with that one."
        )
    learned.apply(model)
    print(f"rw_keras: {model.name} is whitened as learned on {learned.describe()}, shrinkage {layer.shrinkage:g}.", file=sys.stderr)
    return learned
