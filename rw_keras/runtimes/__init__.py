"""Who computes the feature map: Keras, on its backend, or a runtime that is faster on this machine.

A runtime computes the network up to the feature map; what comes after is stated once in NumPy (`head`). Its files are built from
the Keras model's own layers, kept in `~/.cache/rw_keras/engines` (or below `$XDG_CACHE_HOME`), and checked against that model on
first use. From then on `load_cached` gives the same descriptors in a process that loads neither Keras nor its backend.

Precisions, as cosines to the Keras model's descriptor in float32: "exact" at least 0.999999, "fast" at least 0.9999; of each region
vector 0.99999 and 0.995; "int8" a mean of at least 0.995. A runtime is taken for one where it is close enough on the photos of that
check, for the first two six times as close.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rw_keras._moved import renamed
from rw_keras.model.presets import preset_of
from rw_keras.model.recipe import Recipe
from rw_keras.runtimes import cache
from rw_keras.runtimes.choice import Choice, check_arguments, choose, kept_choice, usual_size
from rw_keras.runtimes.describer import RUNTIMES, Describer, KnownModel, ModelRuntimes, check_installed, usable
from rw_keras.runtimes.keras_backend import BACKENDS, backend, settled_runtime_name
from rw_keras.runtimes.keras_model import computes_in
from rw_keras.runtimes.keras_model import load as load_keras_model
from rw_keras.runtimes.promises import PRECISIONS, keeps

if TYPE_CHECKING:
    import keras

__all__ = ["PRECISIONS", "RUNTIMES", "Choice", "Describer", "choose", "load", "load_cached", "usable", "usual_size"]


@renamed(engine="name")
def load(
    model: keras.Model | Describer, name: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer:
    """A descriptor model on a runtime: built, checked against the Keras model and, where there is a choice, measured.

    The first call for a model on a machine takes seconds, the next ones what the runtime needs to read its files. The weights are
    those that the model has now: after a change, load it again.

    Args:
        model: a model of `build_descriptor`; a `Describer` is given back as it is.
        name: "keras", the model itself on the backend that Keras runs on, which may be called by its name, "tensorflow", "jax" or
            "torch"; "openvino", "ncnn"; or "auto": the fastest of those installed that keeps the promise, see `choose`; Keras where
            the others do not know what comes after the network, such as a layer of one's own.
        precision: "exact", "fast" or "int8".
        size: (height, width) of the photos, to measure at.

    Raises:
        ValueError: for a runtime or a precision that there is not; a backend that Keras does not run on; a network that the runtime
            cannot compute; or when the runtime's descriptors are not as close to the Keras model's as promised.
        ImportError: when the runtime is not installed; it names the line that installs it.
        OSError: when the cache cannot be written.
    """
    check_arguments(name, precision)
    if isinstance(model, Describer):
        return model
    name = settled_runtime_name(name)
    if name != "auto":
        check_installed(name)
    if (name, precision) == (backend(), "exact") or (name == "auto" and _is_without_choice(model, precision)):
        return _keras(model)
    own = ModelRuntimes.of(model)
    if name == "auto" or precision != "exact":
        chosen = choose(model, precision, size, runtimes=None if name == "auto" else (name,))
        name, variant = chosen.runtime, chosen.variant
    else:
        variant = "float32"
    return dataclasses.replace(own.describer(name, variant, precision), preset=preset_of(model))


def _is_without_choice(model, precision):
    """Whether only Keras can compute a model here: no other runtime is there, or they do not know its head, or its precision."""
    others = [name for name in usable() if name not in BACKENDS and importlib.util.find_spec(RUNTIMES[name].PACKAGE)]
    if not others and precision == "exact":
        return True
    try:
        ModelRuntimes.of(model)
    except ValueError:
        return True
    return False


def _keras(model):
    """The Keras model as it was built, which needs no head in NumPy, and so is any model."""
    policy = computes_in(model)
    precision = "exact" if policy == "float32" else policy
    function, batch = load_keras_model(model, "float32"), RUNTIMES[backend()].BATCH_PIXELS
    made, dimensions = Recipe.of(model), model.output_shape[-1]
    return Describer(backend(), policy, precision, made, dimensions, 1.0, batch, function, model, preset_of(model))


@renamed(engine="name")
def load_cached(
    recipe: Mapping[str, Any], name: str = "auto", precision: str = "exact", *, size: tuple[int, int] = (384, 512)
) -> Describer | None:
    """What `load` has built earlier on this machine for the model of a recipe, without loading Keras or its backend.

    Args:
        recipe: that of an index, whose `max_side` `describe` then takes as its default, or of a model.
        name, precision, size: as for `load`.

    Returns:
        The describer; `None` where it was not built, checked or measured here yet, or where Keras is what computes: then the
        model itself is needed, and `load`.

    Raises:
        ValueError: for a runtime or a precision that there is not.
        ImportError: when the runtime is not installed.
    """
    check_arguments(name, precision)
    name = settled_runtime_name(name)
    made = Recipe.from_dict(recipe)
    known = KnownModel.load(made)
    variant = "float32"
    if known is not None and (name == "auto" or precision != "exact"):
        chosen = kept_choice(known, precision, size, None if name == "auto" else (name,))
        name, variant = (chosen.runtime, chosen.variant) if chosen else (backend(), "")
    if known is None or name in BACKENDS:
        return None
    check_installed(name)
    module = RUNTIMES[name]
    check = cache.read_json(known.measured_name()).get("checks", {}).get(f"{name} {variant}", {})
    files = cache.built(known.stem(name, variant), module.SUFFIXES)
    if files is None or not keeps(check, precision):
        return None
    return known.describer(name, variant, precision, made, check["cosine"], known.head.function(module.load(files, variant)))


def __getattr__(name: str) -> Any:
    if name != "ENGINES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    words = "runtimes.ENGINES is called runtimes.RUNTIMES now; the earlier name goes with the next release."
    warnings.warn(words, FutureWarning, stacklevel=2)
    return RUNTIMES
