"""What re-ranking by regions costs, warm and from a disk.

    python benchmarks/rerank.py                                            # in memory, 512 dimensions
    python benchmarks/rerank.py --photos 1000000 --stored_dimensions 128   # also from files: 2.9 GB in a temporary folder
    OPENBLAS_NUM_THREADS=1 python benchmarks/rerank.py

First the time of scoring M photos, in memory: by M, by the regions of a photo and of the query, and by what they are kept as; each
is run by turns with the others, and the medians over all rounds are printed. Then, with `--photos`, an index of so many photos is
written, with descriptors of 8 dimensions, so that nothing but the region vectors counts, and 400 random photos of it are scored:
cold, when the system's cache of the files has been given back, in an index that has just been opened, so that every block that is
read is compared with its checksum as well; opened again, with the files in the system's cache; and warm. Each round takes other
photos for the first two.
"""

import functools
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags

from rw_keras.retrieval import Index, rerank
from rw_keras.retrieval.regions import Kept, Regions
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import Segment
from rw_keras.retrieval.writer import Writer

_DIMENSIONS = flags.DEFINE_integer("dimensions", 512, "Elements of a region vector in memory.", lower_bound=1)
_COUNTS = flags.DEFINE_list("counts", ["100", "400"], "How many photos are scored.")
_REGIONS = flags.DEFINE_list("regions", ["21", "60"], "Region vectors of a photo, and of the query.")
_PHOTOS = flags.DEFINE_integer("photos", 0, "Photos of an index in files; 0: none is written.", lower_bound=0)
_STORED = flags.DEFINE_integer("stored_dimensions", 512, "Elements of a region vector in the files.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed runs of each.", lower_bound=1)
_FOLDER = flags.DEFINE_string("folder", None, "Where the index is written. Default: the system's temporary folder.")
_PART = 2048


def _unit(count, dimensions, random):
    rows = random.standard_normal((count, dimensions), dtype="float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _kept(photos, regions, dimensions, dtype, random):
    """Random region vectors as they are kept."""
    if dtype == "int8":
        vectors = random.integers(-127, 128, (photos * regions, dimensions), "int8")
    else:
        vectors = _unit(photos * regions, dimensions, random).astype(dtype)
    return Kept(vectors, np.zeros((len(vectors), 4), "uint16"), np.full(photos, regions))


def _in_memory(kept):
    rows = (Rows([Segment.of(array)], array.shape[1], array.dtype) for array in kept[:2])
    return Regions(*rows, np.cumsum(kept.counts) - kept.counts, kept.counts)


def _milliseconds(function):
    began = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - began)


def _warm():
    random, dimensions = np.random.default_rng(0), _DIMENSIONS.value
    runs = {}
    for regions in map(int, _REGIONS.value):
        query = _unit(regions, dimensions, random)
        for dtype in ("int8", "float16"):
            most = 2 * max(map(int, _COUNTS.value))
            held = _in_memory(_kept(most, regions, dimensions, dtype, random))
            for count in map(int, _COUNTS.value):
                positions = random.permutation(most)[:count]
                runs[count, regions, dtype] = functools.partial(rerank.scores, held, positions, query)
    times = {key: [] for key in runs}
    for round_ in range(_ROUNDS.value + 1):
        for key, run in runs.items():
            spent = _milliseconds(run)
            if round_:
                times[key].append(spent)
    print(f"in memory, {dimensions} dimensions, milliseconds: median (fastest)")
    for (count, regions, dtype), spent in times.items():
        print(f"  {count:5d} photos, {regions} regions, {dtype:8s} {statistics.median(spent):7.1f} ({min(spent):.1f})")


def _write(folder, regions):
    random, spec = np.random.default_rng(0), {"dtype": "int8", "dimensions": _STORED.value}
    kept = _kept(_PART, regions, _STORED.value, "int8", random)  # the same for all parts: what they hold costs nothing
    with Writer(folder, None, 8, regions=spec) as writer:
        for start in range(0, _PHOTOS.value, _PART):
            count = min(_PART, _PHOTOS.value - start)
            own = Kept(kept.vectors[: count * regions], kept.boxes[: count * regions], kept.counts[:count])
            names = [f"photo_{number:08d}.jpg" for number in range(start, start + count)]
            writer.put(names, _unit(count, 8, random), [None] * count, regions=own)
            writer.commit()
        writer.finish()


def _give_back(folder):
    """The system's cache of the files is dropped; it may keep what it pleases."""
    for path in pathlib.Path(folder).iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _from_files(folder):
    random, regions = np.random.default_rng(1), int(_REGIONS.value[0])
    folder = pathlib.Path(folder) / "index"
    seconds = _milliseconds(lambda: _write(folder, regions)) / 1000
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    query, opened = _unit(regions, _STORED.value, random), []
    opening = _milliseconds(lambda: opened.append(Index.load(folder)))
    print(f"{_PHOTOS.value} photos in files, {regions} regions of {_STORED.value} dimensions in 8 bits: {size:.1f} GB")
    print(f"  written in {seconds:.0f} s, opened in {opening:.0f} ms; 400 random photos, milliseconds: median (fastest)")
    times = {"cold, just opened": [], "cached, just opened": [], "warm": []}
    for _ in range(_ROUNDS.value):
        positions = random.choice(_PHOTOS.value, min(400, _PHOTOS.value), replace=False)
        opened.clear()  # it has the files mapped, which keeps them in the cache
        _give_back(folder)
        for name in times:
            if name != "warm":
                opened[:] = [Index.load(folder)]
            times[name].append(_milliseconds(lambda: rerank.scores(opened[0].regions, positions, query)))  # noqa: B023
    for name, spent in times.items():
        print(f"  {name:20s} {statistics.median(spent):8.1f} ({min(spent):.1f})")


def main(arguments):
    del arguments
    _warm()
    if _PHOTOS.value:
        with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
            _from_files(folder)


if __name__ == "__main__":
    app.run(main)
