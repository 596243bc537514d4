"""How a model makes its descriptors: its recipe, by which models are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from rw_keras import layers


def smallest_side(model: Any) -> int:
    """The fewest pixels a side that leave the model a feature map."""
    return getattr(model, "recipe", {}).get("min_side", 1)


def recipe(model: keras.Model) -> dict[str, Any]:
    """How a model makes its descriptors, as plain values: two models with the same recipe make the same ones.

    Args:
        model: any `keras.Model`; one of `build_descriptor` says more.

    Returns:
        A dictionary: backbone, layer, method, levels, min_side, `weights` (SHA-256 of everything but the whitening),
        and `whitening` (`None`, or what it was learned on, with components, shrinkage and SHA-256). `whiten` where that is
        "global", and `scales` where the model is multi-scale.
    """
    import keras

    from rw_keras import backbones
    from rw_keras.backbones.weights import digest

    layer = find_whitening(model)
    apart = {id(variable) for variable in layer.variables} if layer else set()
    known = dict(getattr(model, "recipe", None) or {"backbone": backbones.name_of_own(model)})
    known["weights"] = digest(keras.ops.convert_to_numpy(v) for v in model.weights if id(v) not in apart)
    learned = {key: value for key, value in (known.get("whitening") or {}).items() if key != "photo_ids"}
    known["whitening"] = None
    if layer and layer.adapted:
        learned["components"], learned["shrinkage"] = layer.components, layer.shrinkage
        learned["digest"] = digest(keras.ops.convert_to_numpy(v) for v in layer.variables)
        known["whitening"] = learned
    return known


def whitening_layer(model: keras.Model) -> layers.PCAWhiten:
    """The `PCAWhiten` of a model, or a ValueError that says it has none."""
    layer = find_whitening(model)
    if layer is None:
        raise ValueError(f"The model {model.name!r} has no PCAWhiten layer to learn; build it with rw_keras.build_descriptor.")
    return layer


def find_whitening(model):
    from rw_keras import layers

    if isinstance(model, layers.DescriptorModel):
        model = model.inner or model
    return next((stage for stage in model.layers if isinstance(stage, layers.PCAWhiten)), None)
