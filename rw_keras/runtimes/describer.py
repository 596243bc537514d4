"""A descriptor model on one runtime: built once, kept on disk, checked against the Keras model, run on pixels."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras._moved import RenamedAttribute
from rw_keras.files import written_whole
from rw_keras.model.photo_regions import without_regions
from rw_keras.model.presets import Preset
from rw_keras.model.recipe import Recipe, digests_of, find_whitening
from rw_keras.runtimes import cache, keras_model, numpy_head, promises, sample_photos
from rw_keras.runtimes import ncnn as ncnn_runtime
from rw_keras.runtimes import openvino as openvino_runtime
from rw_keras.runtimes.keras_backend import BACKENDS, backend

if TYPE_CHECKING:
    import keras

# A module each: PACKAGE and EXTRA that it needs, VARIANTS (precision -> the ways to compute that may keep it), BATCH_PIXELS. All
# but Keras' backends, of which the one that Keras runs on takes the Keras model itself (`keras_model`), make files of a network
# (`make`, SUFFIXES) and give its maps (`load`). One that has the variant "int8" makes files of their own for it, from photos to
# calibrate on (`make_int8`, QUANTISER).
RUNTIMES = {**keras_model.BACKEND_RUNTIMES, "openvino": openvino_runtime, "ncnn": ncnn_runtime}

# The longer side of the photos of a check, in pixels.
_CHECK_SIDE = 320

# Part of the names of what is known, checked and measured of a model, so that an earlier version's counts as not there. Those
# before 3 knew nothing of regions, scales and mean cosines. A network's own files go on being used.
_FORMAT = 3

# Model -> the state that it was in, and its `ModelRuntimes`.
_of_models = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class Describer:
    """Pixels to descriptors by one runtime: `describer(pixels)`, `(B, H, W, 3)` uint8 to `(B, D)` float32; `with_regions(pixels)`
    gives the region vectors as well.

    It stands for the model wherever photos are described: `rw_keras.describe`, `Index.search_photo`. It keeps the weights that the
    model had when it was made; where it is the Keras model itself, not a copy in another precision, it computes with those that
    the model has now.

    Attributes:
        runtime: its name.
        variant: how it computes, such as "bfloat16".
        precision: what it promises, "exact", "fast" or "int8"; of a model built under a mixed-precision policy that policy's name.
        made: the recipe of the model when this was made; `recipe` is that of the weights that it computes with.
        dimensions: of a descriptor.
        cosine: the lowest to the Keras model's descriptors that was found when it was checked.
        batch_pixels: how many pixels go through the network at once; `None`: one photo.
        function: the runtime's: `function(pixels)` gives descriptors, `function(pixels, regions=True)` what `with_regions` gives.
        model: the Keras model, where Keras computes.
        preset: that of the model, see `DescriptorModel.preset`.
    """

    runtime: str
    variant: str
    precision: str
    made: Recipe
    dimensions: int
    cosine: float
    batch_pixels: int | None
    function: Callable[..., Any]
    model: Any = None
    preset: Preset | None = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.function(pixels)

    def with_regions(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Descriptors, and the region vectors that they are the sums of, in one pass of the network.

        Args:
            pixels: `(B, H, W, 3)` uint8.

        Returns:
            Descriptors `(B, D)`, region vectors `(B, R, D)` and boxes `(R, 4)`, float32; see `DescriptorModel.with_regions`. Photos
            of one size have one list of boxes.

        Raises:
            ValueError: for a model that whitens the sum of its regions (`whiten_on="global"`).
        """
        if self.made.whiten_on == "global":
            raise without_regions(f"The model of {self!r}")
        return self.function(pixels, regions=True)

    def __repr__(self) -> str:
        return f"<Describer by {self.runtime} {self.variant}, {self.dimensions} dimensions>"

    @property
    def output_shape(self) -> tuple[None, int]:
        """As a Keras model has it."""
        return None, self.dimensions

    @property
    def recipe(self) -> Recipe:
        """How it makes descriptors."""
        # Another precision than it was built with takes a copy; of a model built under a policy both are that policy's name.
        is_the_model = self.model is not None and (self.variant.startswith("float32") or self.variant == self.precision)
        return Recipe.of(self.model) if is_the_model else self.made

    @property
    def min_side(self) -> int:
        """The fewest pixels a side that the network takes."""
        return self.made.get("min_side", 1)

    engine = RenamedAttribute("runtime")


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """What is known of a model without Keras.

    Attributes:
        recipe: see `rw_keras.model.recipe.Recipe`, without a `max_side`.
        dimensions: of a descriptor.
        network: what the files of its network are known by. A multi-scale model has those of the model that it is made of.
        head: all but its network.
    """

    recipe: Recipe
    dimensions: int
    network: str
    head: numpy_head.Head

    def save(self) -> None:
        steps = self.head.steps
        arrays = {f"{number} {name}": array for number, step in enumerate(steps) for name, array in step.arrays.items()}
        plain = [{"kind": step.kind, "settings": step.settings} for step in steps]
        about = {"recipe": self.recipe.to_dict(), "dimensions": self.dimensions, "network": self.network}
        text = json.dumps({**about, "steps": plain, "scales": self.head.scales})
        with written_whole(cache.folder() / self._name(self.recipe)) as file:
            np.savez(file, about=np.frombuffer(text.encode(), "uint8"), **arrays)

    @classmethod
    def load(cls, recipe: Recipe) -> KnownModel | None:
        """What an earlier process has kept of the model of a recipe; `None` where that is nothing, or cannot be read."""
        recipe = recipe.of_any_size()
        try:
            with np.load(io.BytesIO((cache.folder() / cls._name(recipe)).read_bytes()), allow_pickle=False) as kept:
                about = json.loads(kept["about"].tobytes())
                arrays: list[dict[str, np.ndarray]] = [{} for _ in about["steps"]]
                for name in kept.files:
                    if name != "about":
                        number, _, field = name.partition(" ")
                        arrays[int(number)][field] = kept[name]
            known = Recipe.from_dict(about["recipe"])
        except Exception:  # not there, no zip file, cut short, other fields
            return None
        steps = [numpy_head.Step(step["kind"], step["settings"], own) for step, own in zip(about["steps"], arrays)]
        return cls(known, about["dimensions"], about["network"], numpy_head.Head(steps, about["scales"]))

    @staticmethod
    def _name(recipe):
        return f"model-{cache.key(_FORMAT, recipe.to_dict())}.npz"

    def measured_name(self) -> str:
        """The file of what was checked and measured of this model on this machine."""
        return f"machine-{cache.key(_FORMAT, cache.machine(), self.recipe.to_dict())}.json"

    def stem(self, runtime: str, variant: str = "float32") -> str:
        """The name of a runtime's files of this network, less their suffixes; "int8" has files of its own."""
        own = [variant] if variant == "int8" else []
        return f"{runtime}-{cache.key(self.network, runtime, cache.version(RUNTIMES[runtime].PACKAGE), *own)}"

    def describer(
        self, runtime: str, variant: str, precision: str, recipe: Recipe, cosine: float, function: Callable, model: Any = None
    ) -> Describer:
        """A `Describer` of this model; `recipe` is its own, and may have a `max_side`."""
        batch = RUNTIMES[runtime].BATCH_PIXELS
        return Describer(runtime, variant, precision, recipe, self.dimensions, cosine, batch, function, model)


class ModelRuntimes:
    """A Keras model, and what runtimes have made of it. One a model, until its weights change."""

    def __init__(self, model):
        from rw_keras import backbones
        from rw_keras.backbones.keras_alone import keras_alone

        self._model = weakref.ref(model)
        self._functions: dict[tuple[str, str], Callable] = {}
        self._maps: dict[tuple[str, str], Callable] = {}
        made = Recipe.of(model).of_any_size()
        with keras_alone():
            self.network, head = numpy_head.split(model)
        stages = backbones.digest_of_stages(self.network.inputs, self.network.outputs)
        self.known = KnownModel(made, model.output_shape[-1], cache.key(made.weights, stages), head)

    @property
    def model(self) -> keras.Model:
        return self._model()

    @classmethod
    def of(cls, model: keras.Model) -> ModelRuntimes:
        """That of a model as it is now: its weights, and the settings of its whitening that may be changed.

        Raises:
            ValueError: for a model whose head, or whose precision, other runtimes do not know.
        """
        policy = keras_model.computes_in(model)
        if policy != "float32":
            raise ValueError(
                f"The model {model.name!r} computes in {policy}, as it was built, and other runtimes, and precisions, are those of "
                'models in float32; use runtime="keras" and precision="exact", or build it with the policy "float32".'
            )
        layer = find_whitening(model)
        settings = (layer.shrinkage, layer.mask_zero) if layer else None
        state = digests_of(model), settings
        if model not in _of_models or _of_models[model][0] != state:
            _of_models[model] = state, cls(model)
        return _of_models[model][1]

    def function(self, runtime: str, variant: str) -> Callable[..., Any]:
        """What `Describer.function` is, built where it is not.

        Raises:
            ImportError: where the runtime's package is not installed.
            ValueError: for a network that the runtime cannot compute.
            OSError: when the cache cannot be written.
        """
        if (runtime, variant) not in self._functions:
            check_installed(runtime)
            if runtime in BACKENDS:
                function = keras_model.load(self.model, variant)
            else:
                function = self.known.head.function(self._feature_maps(runtime, variant))
            self._functions[runtime, variant] = function
        return self._functions[runtime, variant]

    def _feature_maps(self, runtime, variant):
        """The runtime's function from pixels to feature maps: the one of the model within, where there is one."""
        inner = getattr(self.model, "inner", None)
        if inner is not None:
            return ModelRuntimes.of(inner)._feature_maps(runtime, variant)
        if (runtime, variant) not in self._maps:
            module = RUNTIMES[runtime]
            files = cache.build(self.known.stem(runtime, variant), module.SUFFIXES, lambda: self._make(module, variant))
            self._maps[runtime, variant] = module.load(files, variant)
        return self._maps[runtime, variant]

    def _make(self, module, variant):
        if variant != "int8":
            return module.make(self.network)
        check_installed(module.__name__.rpartition(".")[2], variant)
        return module.make_int8(self.network, sample_photos.for_calibration(self._side()))

    @functools.cached_property
    def _reference(self):
        """What a check's photos are, see `sample_photos.for_check`; these photos; and what the Keras model makes of them."""
        kind, photos = sample_photos.for_check(self._side())
        # Of odd and of even sides: padding may be right for the one and wrong for the other.
        photos = [photos[0], photos[1][:-1, :-1], photos[1]]
        function = keras_model.load(self.model, "float32")
        return kind, photos, promises.outputs(function, photos, self.known.head.has_regions)

    def _side(self):
        """The longer side of the photos that are checked and calibrated on."""
        return max(_CHECK_SIDE, 2 * self.known.recipe.get("min_side", 1))

    def check(self, runtime: str, variant: str) -> dict[str, Any]:
        """How a runtime's descriptors compare with the Keras model's, on this machine; found out once.

        Returns:
            What `promises.compared` gives; `seconds` of the last photo; `photos`, "embedded" or "generated".
        """
        name, field = self.known.measured_name(), f"{runtime} {variant}"
        found = cache.read_json(name).get("checks", {}).get(field)
        if found is None:
            function, with_regions = self.function(runtime, variant), self.known.head.has_regions
            kind, photos, reference = self._reference
            is_reference = (runtime, variant) == (backend(), "float32")
            outputs = reference if is_reference else promises.outputs(function, photos, with_regions)
            found = promises.compared(outputs, reference, with_regions)
            found |= {"seconds": least_seconds(function, photos[-1][None], 2), "photos": kind}
            record(name, "checks", field, found)
            self.known.save()
        return found

    def describer(self, runtime: str, variant: str, precision: str) -> Describer:
        """The runtime, checked.

        Raises:
            ValueError: when its descriptors are not as close to the Keras model's as the precision promises; and as for `function`.
        """
        function, check = self.function(runtime, variant), self.check(runtime, variant)
        if not promises.keeps(check, precision):
            raise ValueError(f'{runtime} in {variant} gives {promises.broken(check, precision)}; use runtime="keras".')
        model = self.model if runtime in BACKENDS else None
        return self.known.describer(runtime, variant, precision, Recipe.of(self.model), check["cosine"], function, model)


def record(name: str, part: str, field: str, value: Any) -> None:
    """Adds to a JSON file of the cache. Two processes at once may lose one of two entries, which is then found out again."""
    measured = cache.read_json(name)
    measured.setdefault(part, {})[field] = value
    cache.write_json(name, {"machine": cache.machine(), **measured})


def usable() -> tuple[str, ...]:
    """The names of the runtimes that this process can use where they are installed: of Keras' backends the one that it runs on."""
    return tuple(name for name in RUNTIMES if name not in BACKENDS or name == backend())


def least_seconds(function: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, runs: int) -> float:
    """How long the fastest of some runs takes."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        function(pixels)
        times.append(time.perf_counter() - began)
    return min(times)


def check_installed(runtime: str, variant: str = "float32") -> None:
    """Raises an ImportError that says what to install, where the package of a runtime, or of a variant of it, is not there."""
    module = RUNTIMES[runtime]
    install = f'install it with: pip install "rw_keras[{module.EXTRA}]"'
    if importlib.util.find_spec(module.PACKAGE) is None:
        raise ImportError(f"The runtime {runtime} is not installed; {install}")
    try:
        openvino_runtime.imported(module.PACKAGE)  # of which OpenVINO would else report its use
    except ImportError as error:
        raise ImportError(f"The runtime {runtime} cannot be loaded ({error}); {install.replace('it', 'it again', 1)}") from error
    if variant == "int8" and module.QUANTISER and importlib.util.find_spec(module.QUANTISER) is None:
        raise ImportError(f"The runtime {runtime} quantises networks with {module.QUANTISER}, which is not installed; {install}")


def described_with(model: keras.Model | Describer) -> dict[str, str]:
    """What computes a model's descriptors, as an index's manifest notes it: runtime, precision, and what it computes in.

    Of a model built under a mixed-precision policy the last two are that policy's name.
    """
    if isinstance(model, Describer):
        return {"runtime": model.runtime, "precision": model.precision, "computes_in": model.variant}
    policy = keras_model.computes_in(model)
    return {"runtime": backend(), "precision": "exact" if policy == "float32" else policy, "computes_in": policy}
