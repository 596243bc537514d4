"""Learned whitenings: keeping one in a file with its provenance, putting it into a model, and the shipped ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from rw_keras import layers
from rw_keras._moved import names
from rw_keras.files import checked_path, written_whole
from rw_keras.model.recipe import Recipe, learned_from, provenance_in_words, whitening_layer

# Of the photos learned from, the hashes of so many names are kept (the smallest ones, which is a fair draw): enough
# to see that a set it is tested on has photos in common, however large both are.
PHOTO_IDS = 1024

# What has to be the same in the model a whitening was learned with and the one it is used in.
_FIELDS = ("backbone", "layer", "method", "levels", "weights", "whiten")


@dataclasses.dataclass
class Whitening:
    """What `fit_whitening` learned.

    Attributes:
        mean: `(d,)` float32, the mean of the vectors learned from.
        eigenvectors: `(d, k)` float32, one axis a column, strongest first.
        eigenvalues: `(d,)` float32, the whole spectrum as found, largest first; of a whitening from pairs see
            `rw_keras.layers.PCAWhiten`.
        recipe: the model it was learned with: backbone, layer, method, levels, SHA-256 of the weights; `whiten` where it is
            "global".
        provenance: `name` of the set, `photos` learned from and their `regions` (of a model that whitens global vectors:
            `vectors`), `max_side`, `photo_ids` (hashes of the photos' names) and, where known, `scales`,
            `pairs` (how many pairs of photos it was learned from, where it was from pairs), `recommended_shrinkage` and a `note`.
        failures: (photo, reason) for each photo that could not be read and was left out; not kept in the file.
    """

    mean: np.ndarray
    eigenvectors: np.ndarray
    eigenvalues: np.ndarray
    recipe: dict
    provenance: dict
    failures: list = dataclasses.field(default_factory=list)

    def describe(self) -> str:
        """The provenance in words: "paris6k (322 photos, 6780 regions, max_side 512)"."""
        return provenance_in_words(self.provenance)

    def differences(self, recipe: Mapping[str, Any]) -> list[str]:
        """In which fields the model of `recipe` differs from the one this was learned with, in words."""
        return Recipe.from_dict(self.recipe, "The whitening's recipe").differences(recipe, "the model's", _FIELDS)

    def photos_in_common(self, names: Iterable[str]) -> int:
        """How many of the photos `names` are known to be among those learned from."""
        return photos_in_common(self.provenance, names)

    def apply(self, model: keras.Model) -> None:
        """Sets the model's `PCAWhiten` layer, and notes the provenance in the model; of a multi-scale one, in the model within."""
        model = getattr(model, "inner", None) or model
        layer = whitening_layer(model)
        kept = layer.eigenvectors.shape[1]
        if self.eigenvectors.shape[1] < kept:
            raise ValueError(
                f"The whitening has {self.eigenvectors.shape[1]} components, fewer than the model's {kept}; build the model "
                f"with components={self.eigenvectors.shape[1]} or fewer."
            )
        layer.assign(self.mean, self.eigenvectors, self.eigenvalues, learned_from(self.provenance)[0] or 1)
        model.note_whitening(self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to `path`, an `.npz` file, whole or not at all."""
        path = check_file(path)
        about = json.dumps({"recipe": self.recipe, "provenance": self.provenance})
        arrays = {name: np.asarray(getattr(self, name), "float32") for name in ("mean", "eigenvectors", "eigenvalues")}
        with written_whole(path) as file:
            np.savez(file, about=np.array(about), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Whitening:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is none, or cut short.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no whitening file {path}; write one with rw_keras.save_whitening.")
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in ("mean", "eigenvectors", "eigenvalues")}
            return cls(**arrays, recipe=about["recipe"], provenance=about["provenance"])
        except Exception as error:  # not a zip file, cut short, other arrays
            raise ValueError(f"{path} is not a whitening that rw_keras.save_whitening wrote: {error}.") from error


def check_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a whitening to write, or a ValueError for one that no whitening is kept in."""
    path = checked_path(path)
    if path.suffix != ".npz":
        raise ValueError(f"A whitening is kept in an .npz file, but got {path}; call it {path.with_suffix('.npz')}.")
    return path


def is_of_pairs(whitening: str | os.PathLike[str] | None) -> bool:
    """Whether `build_descriptor(whitening=...)` names the file of a whitening that was learned from pairs."""
    if whitening is None or whitening == "auto":
        return False
    return "pairs" in Whitening.load(whitening).provenance


def photos_in_common(provenance: Mapping[str, Any], names: Iterable[str]) -> int:
    """How many of the photos `names` are known to be among those a whitening was learned from."""
    known = set(provenance.get("photo_ids", ()))
    return len(known & {photo_id(name) for name in names})


def shipped() -> list[Whitening]:
    """The whitenings that come with the package."""
    folder = pathlib.Path(__file__).parent / "whitenings"
    return [Whitening.load(path) for path in sorted(folder.glob("*.npz"))]


def save_whitening(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a model's whitening, with its provenance, to an `.npz` file that `build_descriptor(whitening=path)` reads.

    Raises:
        ValueError: when the model has not learned one, or `path` does not end in .npz.
    """
    layer = whitening_layer(model)
    if not layer.adapted:
        raise ValueError(f"The model {model.name!r} has no whitening to save; learn one with rw_keras.fit_whitening.")
    provenance = {"name": "unnamed", counted(model): layer.count, **(model.whitening_provenance or {})}
    Whitening(*arrays_of(layer), recipe=made_of_model(model), provenance=provenance).save(path)


def counted(model: keras.Model) -> str:
    """The provenance's word for the vectors that a model whitens."""
    return "vectors" if model.recipe.whiten_on == "global" else "regions"


def made_of_model(model: keras.Model) -> dict[str, Any]:
    """What a whitening belongs to: the model's recipe but for the whitening itself, which is no part of what it is learned on."""
    return {field: value for field, value in Recipe.of(model).items() if field in _FIELDS}


def arrays_of(layer: layers.PCAWhiten) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a layer has learned: mean `(d,)`, axes `(d, k)` and eigenvalues `(d,)`."""
    mean, axes, eigenvalues = (keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.eigenvectors, layer.eigenvalues))
    return mean, axes, eigenvalues


def photo_id(name: str | os.PathLike[str]) -> str:
    """A short hash of a photo's file name, without folder and ending."""
    return hashlib.sha256(pathlib.PurePath(name).stem.lower().encode("utf8", "surrogateescape")).hexdigest()[:16]


# Where it was in earlier versions.
__getattr__ = names(__name__, fit_whitening="description.learning")
