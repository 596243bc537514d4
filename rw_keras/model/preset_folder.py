"""A model in a folder that people and hubs can read: what it is in JSON, its weights, a card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pathlib
import secrets
import shutil
from typing import Any

import keras

from rw_keras.backbones import keras_files, licence_of
from rw_keras.backbones.keras_alone import keras_alone
from rw_keras.files import checked_path
from rw_keras.model.presets import default_max_side
from rw_keras.model.recipe import Recipe, provenance_in_words

CONFIG, ARCHITECTURE, WEIGHTS, CARD = "config.json", "architecture.json", "model.weights.h5", "README.md"
_FORMAT = "rw_keras preset 1"


@keras_alone()
def save(model: Any, folder: str | os.PathLike[str]) -> None:
    """`DescriptorModel.save_to_preset`."""
    folder = _checked_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.parent / f".preset-{secrets.token_hex(8)}"
    staged.mkdir()
    try:
        (staged / ARCHITECTURE).write_text(json.dumps(keras.saving.serialize_keras_object(model)) + "\n", "utf8")
        model.save_weights(staged / WEIGHTS)
        about = _about(model, {name: _digest(staged / name) for name in (ARCHITECTURE, WEIGHTS)})
        (staged / CARD).write_text(_card(model), "utf8")
        (staged / CONFIG).write_text(json.dumps(about, indent=2) + "\n", "utf8")
        if not folder.exists():
            os.rename(staged, folder)
            return
        if not (folder / CARD).exists():  # somebody may have written more into one that is there
            os.replace(staged / CARD, folder / CARD)
        for name in (WEIGHTS, ARCHITECTURE, CONFIG):  # the one that has the digests of the others comes last
            os.replace(staged / name, folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@keras_alone()
def load(folder: str | os.PathLike[str]) -> Any:
    """The model of a folder that `save` wrote, checked against its digests. Nothing in it runs.

    Raises:
        FileNotFoundError: when there is no such folder, or a file of it is missing.
        ValueError: when it is no preset, damaged, or of a later version.
    """
    folder = pathlib.Path(folder)
    about = _config(folder)
    for name, expected in about["files"].items():
        if name not in (ARCHITECTURE, WEIGHTS):
            raise ValueError(f"{folder} is no preset that this version of rw_keras reads: it has a file {name!r}.")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is a preset without its file {name}; get the whole folder again.")
        if _digest(folder / name) != expected:
            raise ValueError(f"{folder / name} is not the file that {CONFIG} was written for: get the whole folder again.")
    try:
        keras_files.check_hdf5(folder / WEIGHTS)
        model = keras.saving.deserialize_keras_object(json.loads((folder / ARCHITECTURE).read_text("utf8")), safe_mode=True)
        model.load_weights(folder / WEIGHTS)
        differing = Recipe.from_dict(about["recipe"], f"The recipe in {CONFIG}").differences(Recipe.of(model), "the model's")
        if about["preset"] != (None if model.preset is None else model.preset.to_dict()):
            differing.append("its preset is another one than the model's")
    except Exception as error:  # each library has errors of its own
        raise ValueError(f"{folder} cannot be loaded: {keras_files.reason(error)}") from error
    if differing:
        raise ValueError(f"{folder / CONFIG} is not of the model beside it: {'; '.join(differing)}; get the whole folder again.")
    return model


def is_one(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it is a preset of this package, of whatever version."""
    try:
        return str(json.loads(pathlib.Path(folder, CONFIG).read_text("utf8"))["format"]).startswith("rw_keras preset")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _checked_target(folder):
    folder = checked_path(folder)
    if folder.exists() and not is_one(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} is something else than a preset, and is left as it is; choose another name.")
    return folder


def _config(folder):
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no preset folder {folder}; write one with save_to_preset.")
    if not is_one(folder):
        raise ValueError(f"{folder} is no preset: it has no {CONFIG} that save_to_preset wrote.")
    about = json.loads((folder / CONFIG).read_text("utf8"))
    if about["format"] != _FORMAT:
        raise ValueError(f"{folder} is a {about['format']!r}, and this version of rw_keras reads {_FORMAT!r}; install a later one.")
    if (
        not isinstance(about.get("files"), dict)
        or set(about["files"]) < {ARCHITECTURE, WEIGHTS}
        or {"recipe", "preset"} - set(about)
    ):
        raise ValueError(f"{folder / CONFIG} is damaged; get the whole folder again.")
    return about


def _about(model, files):
    made = model.recipe
    return {
        "format": _FORMAT,
        "model": model.name,
        "preset": None if model.preset is None else model.preset.to_dict(),
        "recipe": made.to_dict(),
        "preprocessing": {
            "pixels": "RGB, 0 to 255, (batch, height, width, 3), upright",
            "max_side": default_max_side(model),
            "min_side": model.min_side,
        },
        "output": {"dimensions": model.output_shape[-1], "norm": "L2"},
        "versions": {"rw_keras": importlib.metadata.version("rw_keras"), "keras": keras.__version__},
        "licence_of_the_weights": _licence(made),
        "files": files,
    }


def _licence(made):
    return licence_of(made.get("backbone") or "")


def _card(model):
    made, side = model.recipe, default_max_side(model)
    scales = f" at the scales {', '.join(f'{scale:.4g}' for scale in made.scales)}" if made.scales else ""
    learned = f"whitened as learned on {provenance_in_words(made.whitening)}" if made.whitening else "not whitened"
    return f"""---
library_name: keras
pipeline_tag: image-feature-extraction
tags: [keras, rw_keras, instance-retrieval]
---
# {model.name}

One descriptor of {model.output_shape[-1]} dimensions for a photo, to find photos of the same thing: `{made.get("method")}` on
{made.get("backbone")}{scales}, {learned}. Longer side of photos: {side or "no limit"}{" pixels" if side else ""}.

```python
import rw_keras

model = rw_keras.DescriptorModel.from_preset("FOLDER")
rw_keras.describe(model, "photo.jpg")
```

Licence of the network's weights: {_licence(made)}.
`{CONFIG}` says how the model was made, with the digests of all files.
"""


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
