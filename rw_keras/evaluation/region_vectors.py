"""Region vectors of many methods from one pass of the network, kept on disk and shared by every setting."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tqdm

from rw_keras import backbones, layers, methods
from rw_keras.backbones.weights import digest
from rw_keras.description.describe import describe_each
from rw_keras.files import written_whole
from rw_keras.photos.reading import Box
from rw_keras.runtimes import cache

# Photos whose region vectors lie in one file of each method, and that are computed again when one of them has changed.
_CHUNK = 64

PhotoAndBox = tuple[pathlib.Path, Box | None]


class RegionVectors:
    """Region vectors of unit length, of several methods on one network.

    What has been computed is kept in files of 64 photos, a method each, under names that tell the network and its weights, the
    method's layers, `max_side`, the photos' names, sizes and times, and their boxes: a change makes other files. With a method
    that is new, the network runs once more, for that method alone.

    Args:
        network: photos `(B, H, W, 3)` -> feature map, of `rw_keras.backbones.network`.
        wanted: key -> (method, levels): a name in `rw_keras.methods.METHODS` or a function, and its number of scales.
        folder: where the files lie; made where it does not exist.
        max_side: the longer side of a photo is reduced to this many pixels.
        progress: whether to show a progress bar on standard error.
    """

    def __init__(
        self,
        network: keras.Model,
        wanted: Mapping[str, tuple[str | methods.Method, int]],
        folder: str | os.PathLike[str],
        *,
        max_side: int | None = 1024,
        progress: bool = True,
    ) -> None:
        signed = network.outputs[0]
        rectified = backbones.non_negative(signed)
        self._input, self.channels = network.input, signed.shape[-1]
        self._regions, self._tags = {}, {}
        for key, (method, levels) in wanted.items():
            own = keras.Input(signed.shape[1:])  # a model for each: their layers have the same names
            function, name, _ = methods.resolve(method, levels)
            if name.partition("(")[0] in methods.OF_TOKENS:
                raise ValueError(
                    f"Region vectors of the method {name} are not kept, because it needs the tokens beside the map; describe the "
                    "photos with it, and compare indices with rw-keras evaluate."
                )
            takes_signed, regions = methods.is_for_signed_maps(function), function(own)
            features = signed if takes_signed else rectified
            # The same layers make other vectors of another map.
            self._tags[key] = backbones.digest_of_stages(own, regions) + (methods.SIGNED if takes_signed else "")
            self._regions[key] = keras.Model(own, layers.L2Norm()(regions), name=f"head_{len(self._regions)}")(features)
        weights = digest(keras.ops.convert_to_numpy(variable) for variable in network.weights)
        self._about = [weights, network.name, network.output_names[0], max_side, cache.version("rw_keras")]
        self._folder, self._max_side, self._progress = pathlib.Path(folder), max_side, progress
        self._min_side = backbones.smallest_side(network)

    def compute(self, photos: Sequence[PhotoAndBox], keys: Sequence[str] | None = None, words: str = "region vectors") -> None:
        """Computes what is not on disk yet.

        Args:
            photos: (path, box or `None`) of each.
            keys: of which methods. Default: all.
            words: beside the progress bar.

        Raises:
            ValueError: for photos that cannot be read, all of them named. What was computed is kept.
        """
        keys = list(self._regions if keys is None else keys)
        models, unreadable = {}, []
        chunks = [(chunk, self._missing(chunk, keys)) for chunk in _chunks(photos)]
        chunks = [(chunk, missing) for chunk, missing in chunks if missing]
        total = sum(len(chunk) for chunk, _ in chunks)
        with tqdm.tqdm(total=total, desc=words, unit="photo", disable=not (self._progress and total)) as bar:
            for chunk, missing in chunks:
                if missing not in models:
                    models[missing] = keras.Model(self._input, [self._regions[key] for key in missing])
                found = {key: [] for key in missing}
                paths, boxes = zip(*chunk)
                described = describe_each(models[missing], paths, boxes, max_side=self._max_side, min_side=self._min_side)
                failed = len(unreadable)
                for path, outputs, error in described:
                    bar.update()
                    if error is not None:
                        unreadable.append(f"{path}: {error}")
                        continue
                    outputs = outputs if isinstance(outputs, list) else [outputs]  # Keras unpacks a list of one
                    for key, vectors in zip(missing, outputs):
                        found[key].append(vectors[0])
                if len(unreadable) > failed:
                    continue
                for key, arrays in found.items():
                    with written_whole(self._file(chunk, key)) as file:
                        np.savez(file, counts=[len(array) for array in arrays], vectors=np.concatenate(arrays))
        if unreadable:
            listed = "".join(f"\n  {reason}" for reason in unreadable)
            raise ValueError(
                f"{len(unreadable)} photos cannot be read, and a table would be of another set; get them again, or remove "
                f"them:{listed}"
            )

    def blocks(self, key: str, photos: Sequence[PhotoAndBox]) -> Iterator[np.ndarray]:
        """The vectors of one method, 64 photos at a time: `(n, R, C)` float32, zeros after a photo's last region.

        `compute` has to have been called with the very same list of photos.
        """
        for chunk in _chunks(photos):
            with np.load(self._file(chunk, key)) as kept:
                counts, vectors = kept["counts"], kept["vectors"]
            block = np.zeros((len(chunk), counts.max(), self.channels), "float32")
            block[np.arange(counts.max()) < counts[:, None]] = vectors
            yield block

    def _missing(self, chunk, keys):
        return tuple(key for key in keys if not self._file(chunk, key).exists())

    def _file(self, chunk, key):
        state = [[path.name, path.stat().st_size, path.stat().st_mtime_ns, box] for path, box in chunk]
        tag = hashlib.sha256(json.dumps([self._about, state]).encode("utf8", "surrogateescape")).hexdigest()[:16]
        return self._folder / f"{tag}-{self._tags[key]}.npz"


def _chunks(photos):
    return [photos[start : start + _CHUNK] for start in range(0, len(photos), _CHUNK)]
