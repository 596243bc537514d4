import importlib
import os
from collections.abc import Mapping
from typing import Any

import keras

from rw_keras.backbones.keras_alone import keras_alone
from rw_keras.layers.photo_model import PhotoModel, check_min_side
from rw_keras.model import region_outputs
from rw_keras.model.presets import PRESETS, Preset
from rw_keras.model.recipe import Recipe, recipe_with_digests


@keras.saving.register_keras_serializable(package="rw_keras")
class DescriptorModel(PhotoModel):
    """A functional `keras.Model` that knows how its descriptors come about.

    A model around another descriptor model, such as a multi-scale one, has that one's recipe, with what it adds.

    Args:
        inputs, outputs, name: see `keras.Model`.
        recipe: what it is made of, a `Recipe` or its dictionary, saved with the model. What its weights say is left to them.
        preset: the `Preset` that it was built by, or its dictionary, saved with the model. Default: none.

    Raises:
        ValueError: for a recipe with a field of another kind than it has, or a preset that is none.
    """

    OWN_ARGUMENTS = ("recipe", "preset")

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        made = kwargs.pop("recipe", None) or {}
        if not isinstance(made, Mapping):
            raise ValueError(f"A model's `recipe` is a dictionary, but got {made!r}.")
        check_min_side(made.get("min_side", 1))
        Recipe.from_dict(made, "A model's `recipe`")
        self._made = {field: value for field, value in made.items() if field != "weights"}
        preset = kwargs.pop("preset", None)
        self._preset = preset if preset is None or isinstance(preset, Preset) else Preset.from_dict(preset)
        super().__init__(inputs, outputs, name=name, **kwargs)

    @property
    def inner(self) -> "DescriptorModel | None":
        """The descriptor model that this one is built around, such as the one of a multi-scale model."""
        return next((stage for stage in self.layers if isinstance(stage, DescriptorModel)), None)

    @property
    def recipe(self) -> Recipe:
        """How it makes descriptors, with the weights and the whitening that it has now."""
        return recipe_with_digests(self._all_made(), self)

    @property
    def preset(self) -> Preset | None:
        """The preset that it was built by, which says what is done with it by default; `None` where there is none."""
        return self._preset

    def note_preset(self, preset: Preset | None) -> None:
        """Notes the preset that it was built by."""
        self._preset = preset

    @property
    def min_side(self) -> int:
        return self._all_made().get("min_side", 1)

    @property
    def scales(self) -> tuple[float, ...]:
        """The factors of a multi-scale model; none for a model of one scale."""
        return tuple(self._all_made().get("scales") or ())

    @property
    def whitening_provenance(self) -> dict[str, Any] | None:
        """What its whitening was learned on, with hashes of the photos' names (`photo_ids`); `None` where nothing is noted."""
        noted = self._all_made().get("whitening")
        return None if noted is None else dict(noted)

    def with_regions(self) -> keras.Model:
        """The model that gives the region vectors beside the descriptor, in one pass. It shares the weights; one is made, and kept.

        Input: photos `(B, H, W, 3)`, as this model takes them. Outputs, float32:

        - descriptors `(B, D)`, this model's own;
        - vectors `(B, R, D)`, what a descriptor is the sum of: whitened, of unit length, zeros for a region where nothing is. Of a
          multi-scale model those of all scales, one scale after the other;
        - boxes `(B, R, 4)`, alike for all photos of a batch: x1, y1, x2, y2 of each region as shares of the photo's sides, 0 to 1.
          Zeros where it is not known where regions lie, as with a method of one's own that does not pool over the regional grid.

        Raises:
            ValueError: for a model that whitens the sum of its regions (`whiten_on="global"`).

        Example:

        >>> descriptors, vectors, boxes = model.with_regions()(photos)
        """
        return region_outputs.with_regions(self)

    def note_whitening(self, provenance: Mapping[str, Any]) -> None:
        """Notes what the whitening that it has now was learned on."""
        self._made["whitening"] = dict(provenance)

    def note_max_side(self, max_side: int | None) -> None:
        """Notes the size that photos are to be described at, in pixels of the longer side; `describe` takes it as its default."""
        self._made["max_side"] = max_side

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], **parts: Any) -> "DescriptorModel":
        """Builds a model by a preset's name, or loads the one of a folder that `save_to_preset` wrote.

        Args:
            preset: a name, such as "recommended"; or a folder, of which "./fast" is one that is called as a preset.
            parts: arguments of `build_descriptor`, such as `weights`, which replace parts of a preset. A folder takes none.

        Raises:
            FileNotFoundError: when there is no such folder, or weights cannot be found.
            ValueError: when it is no preset, or damaged: its digests are compared. Handles of hubs, such as "hf://", are not
                taken; download the folder first.

        Example:

        >>> model = rw_keras.DescriptorModel.from_preset("recommended")
        >>> model.save_to_preset("my_preset")
        >>> same = rw_keras.DescriptorModel.from_preset("my_preset")
        """
        if preset in PRESETS:
            # `build_descriptor` is built upon this class, so no import at the top of this file can name it.
            build = importlib.import_module("rw_keras.model.build")
            return build.build_descriptor(preset=preset, **parts)
        if "://" in os.fspath(preset):
            raise ValueError(f"{preset} is an address; download the folder, and pass its path.")
        if not os.path.isdir(preset):
            raise FileNotFoundError(
                f"There is no preset {os.fspath(preset)!r}, and no folder of that name; the presets are {', '.join(PRESETS)}."
            )
        if parts:
            raise ValueError(f"{', '.join(parts)} does not go with {preset}: a saved model has its own parts.")
        from rw_keras.model import preset_folder  # needs the backbones, which may be what loads this class

        model = preset_folder.load(preset)
        if not isinstance(model, cls):
            raise ValueError(f"{preset} holds a {type(model).__name__}, and no {cls.__name__}.")
        return model

    def save_to_preset(self, folder: str | os.PathLike[str]) -> None:
        """Writes the model to a folder that `from_preset` loads, and that can be put on a hub as it is.

        In it: `config.json`, which says how the model was made and what goes with it, with versions and digests; its
        architecture; `model.weights.h5`, the whitening among them; `README.md`, a card. A new folder appears whole or not at all.
        In one that is there already, what else lies there stays, and so does its card; one that a killed save leaves half
        replaced is refused when it is loaded.

        Raises:
            ValueError: when `folder` is something else than a preset, or an empty folder.
            OSError: when it cannot be written.
        """
        from rw_keras.model import preset_folder

        preset_folder.save(self, folder)

    @keras_alone()
    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """`keras.Model.save`: a `.keras` file, which every backend loads."""
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the model for other processes, by Keras' names of the formats: the files are those of `rw_keras.export_*`.

        Needs Keras on TensorFlow.

        Args:
            filepath: what is written; its ending is the format's own, see there.
            format: "tf_saved_model" (`rw_keras.export_saved_model`), "onnx" (`export_onnx`), "openvino" (`export_openvino`) or
                "litert" (`export_litert`).
            verbose: whether to print a line when it is written. Default: no.
            input_signature: not taken, since the signatures are settled.
            kwargs: what the function of the format takes, such as `max_side`.

        Raises:
            ValueError: for another format, or an argument that the format does not take.
            FileExistsError, ImportError, RuntimeError: see `rw_keras.export_saved_model`.
        """
        from rw_keras.export.formats import export_model

        export_model(self, filepath, format, verbose, input_signature, **kwargs)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Not done: the model would no longer be what its recipe says, and Keras quantises no convolutions.

        Raises:
            ValueError: always; it names what there is in 8 bits.
        """
        raise ValueError(
            f"The model {self.name!r} stays as its recipe says; compute it in 8 bits with rw_keras.runtimes.load(model, "
            'precision="int8"), export it with int8=True, or quantize a network before it is the backbone of a model.'
        )

    @keras_alone()
    def get_config(self):
        config = super().get_config()
        del config["min_side"]  # it is the recipe's
        # A file of a model without one stays as earlier versions read it.
        preset = {} if self._preset is None else {"preset": self._preset.to_dict()}
        return {**config, "recipe": dict(self._made), **preset}

    def _all_made(self):
        # The inner one's as it is now: a whitening may be learned after.
        inner = self.inner
        return self._made if inner is None else {**inner._all_made(), **self._made}
