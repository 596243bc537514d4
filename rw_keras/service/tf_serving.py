"""TF Serving as what computes: a model of `rw_keras.export_saved_model`, asked over REST."""

from __future__ import annotations

import base64
import io
import itertools
import urllib.parse
from typing import Any

import httpx
import numpy as np
from PIL import Image

from rw_keras.description.describe import describe
from rw_keras.files import printable
from rw_keras.model.recipe import Recipe, max_side_of
from rw_keras.retrieval import Index
from rw_keras.runtimes import Describer
from rw_keras.service.photo_files import PhotoFiles

NAME = "tf-serving"
# Photos of one request, which TF Serving describes one after the other.
_TOGETHER_PIXELS = 512 * 384
# Photos of the index that are described to compare, and the least cosine: weights in 16 bits keep it, another model does not.
_COMPARED, _LEAST = 3, 0.999
# Photos that are tried for this, where files are not there any more.
_TRIED = 50


class TFServing:
    """A model that TF Serving serves.

    A photo is decoded and reduced here, as for every other runtime, and travels as BMP, which loses nothing: so the pixels are
    those of the definition, and a photo that cannot be decoded, or is too large, costs the server nothing.

    Args:
        address: of the model, such as "http://127.0.0.1:8501/v1/models/rw_vgg16".
        timeout: seconds without an answer.

    Raises:
        ValueError: for another address.
    """

    def __init__(self, address: str, timeout: float = 30) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.startswith("/v1/models/") or parts.query:
            raise ValueError(f"TF Serving's address is http(s)://host:port/v1/models/NAME, but got {printable(address)!r}.")
        self.address = address.rstrip("/")
        self._client = httpx.Client(timeout=timeout)

    def function(self, pixels: np.ndarray, regions: bool = False) -> Any:
        """What `rw_keras.runtimes.Describer.function` is.

        Raises:
            OSError: when the server cannot be asked, or answers with an error.
        """
        photos = [{"b64": base64.b64encode(_bmp(photo)).decode("ascii")} for photo in pixels]
        signature = "regions" if regions else "serving_default"
        body = {"signature_name": signature, "instances": [{"image_bytes": photo} for photo in photos]}
        rows = self._asked("POST", ":predict", json=body).get("predictions")
        try:
            if not regions:
                plain = [row["descriptor"] if isinstance(row, dict) else row for row in rows]
                return np.array(plain, "float32").reshape(len(pixels), -1)
            vectors = np.array([row["regions"] for row in rows], "float32")
            return np.array([row["descriptor"] for row in rows], "float32"), vectors, np.array(rows[0]["boxes"], "float32")
        except (KeyError, TypeError, ValueError):
            raise OSError(f"{self.address} does not answer as a model of rw_keras does.") from None

    def describer(self, index: Index) -> Describer:
        """What stands for the model of an index.

        Raises:
            OSError: when the server cannot be asked.
            ValueError: when it gives descriptors of other dimensions, or no region vectors where the index compares such.
        """
        if index.recipe is None:
            raise ValueError("The index does not say what made it, so no photo can be described as its own were.")
        made, dimensions = Recipe.from_dict(index.recipe, "The index's recipe"), index.dimensions
        side = max(64, 2 * made.get("min_side", 1))
        black = np.zeros((1, side, side, 3), "uint8")
        found = self.function(black)
        if found.shape != (1, dimensions):
            raise ValueError(
                f"{self.address} gives {found.shape[-1]} dimensions, and the index has {dimensions}; serve its own model."
            )
        if index.regions is not None:
            try:
                self.function(black, regions=True)
            except OSError as error:
                raise ValueError(
                    f"{self.address} gives no region vectors, which the index compares ({error}); export its model again."
                ) from None
        return Describer(NAME, "float32", "exact", made, dimensions, 1.0, _TOGETHER_PIXELS, self.function)

    def compare(self, describer: Describer, index: Index, photos: PhotoFiles) -> str | None:
        """Describes a few photos of the index, whose recipe TF Serving does not know, and compares.

        Args:
            describer: what `describer` gave.
            index: the index.
            photos: its photos.

        Returns:
            What could not be checked, in a sentence; `None` where the model is the index's own.

        Raises:
            ValueError: when it is another model.
        """
        compared, names = 0, _some_names(index)
        for name, position in zip(names, index.positions(names)):
            if position is None:  # it has just left
                continue
            try:
                found = describe(describer, photos.path(name), max_side=max_side_of(index.recipe))
            except (FileNotFoundError, ValueError):  # it is not there, or cannot be decoded any more
                continue
            own = np.asarray(index.descriptors[position], "float32")
            if not own.any():
                continue
            cosine = float(found @ own / np.linalg.norm(own))
            if cosine < _LEAST:
                raise ValueError(
                    f"{self.address} is another model than the one that made the index: the cosine of its descriptor of "
                    f"{printable(name)} to the index's is {cosine:.3f}; serve the index's own model, exported "
                    f"with max_side={max_side_of(index.recipe)} or more. If the photo has changed, update the index first."
                )
            compared += 1
            if compared == _COMPARED:
                break
        if compared:
            return None
        return (
            f"TF Serving does not tell how {self.address} was made, and no photo of the index is there to compare: that it is the "
            "index's model was not checked."
        )

    def _asked(self, method, path, **content):
        try:
            answer = self._client.request(method, self.address + path, **content)
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise OSError(f"{self.address} could not be asked: {error or type(error).__name__}.") from error
        if answer.status_code != 200 or not isinstance(found, dict):
            said = found.get("error") if isinstance(found, dict) else found
            raise OSError(f"{self.address} answered {answer.status_code}: {printable(str(said))[:300]}")
        return found


def _some_names(index):
    """Names of an index: from all over it, where it has them at hand, else the first ones."""
    if isinstance(index.names, list):
        return [index.names[place] for place in np.linspace(0, len(index) - 1, min(len(index), _TRIED)).astype(int)]
    return list(itertools.islice(index.names, _TRIED))


def _bmp(photo):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo, "uint8")).save(buffer, "BMP")
    return buffer.getvalue()
