"""What `rw_keras.description.extract.extract` costs beyond the network, and what a collection of any size needs.

    python benchmarks/extraction.py --photos FOLDER [--max_side 512] [--limit 60] [--rounds 3] [--runtime auto]
    python benchmarks/extraction.py --generated 1000

With `--photos`, by turns in one process, on the same photos: the bare network on the decoded photos, which lie in memory, in the
batches that `extract` makes of them; `extract` into a new folder; and `describe`, photo by photo. One batch of each shape has gone
through the network before. Medians. The peak is that of the process up to then; the bare network comes last in each round, since
it holds all photos.

With `--generated`, on that many JPEGs of 64 x 48 and on ten times as many: a first run, one that finds nothing new, and one that
finds 1 % of the photos changed, each in a process of its own. Its seconds are those of `extract`; the wall time is that of the
process, with TensorFlow's start and the building of the model.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

_PHOTOS = flags.DEFINE_string("photos", None, "A folder, or another source that `extract` takes.")
_GENERATED = flags.DEFINE_integer("generated", None, "How many photos to make.", lower_bound=1)
_MAX_SIDE = flags.DEFINE_integer("max_side", 512, "The longer side of a photo is reduced to this.", lower_bound=16)
_LIMIT = flags.DEFINE_integer("limit", None, "Take this many photos of the source.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 1, "Timed runs of each side.", lower_bound=1)
_RUNTIME = flags.DEFINE_string("runtime", "tensorflow", "What computes the network; see `rw_keras.runtimes.load`.")
_PRECISION = flags.DEFINE_string("precision", "exact", "At which precision.")
_INTO = flags.DEFINE_string("into", None, "Extract the photos into this folder and print figures; used by the program itself.")


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _model():
    import rw_keras
    from rw_keras import runtimes

    model = rw_keras.build_descriptor("vgg16")
    if (_RUNTIME.value, _PRECISION.value) == ("tensorflow", "exact"):
        return model
    return runtimes.load(model, _RUNTIME.value, _PRECISION.value, size=runtimes.usual_size(_MAX_SIDE.value))


class _Batches:
    """Stands where the runner does, and keeps the batches."""

    def __init__(self, runner):
        self.dimensions, self.regions, self.batch_of, self.kept = runner.dimensions, False, runner.batch_of, []

    def run(self, pixels):
        self.kept.append(pixels)
        return self

    def result(self):
        from rw_keras.description.describe import Batch

        return Batch(0, None)


def _batches(model, items):
    """The pixels as `extract` passes them to the network."""
    from rw_keras.description.batcher import Batcher
    from rw_keras.description.reader import read_item
    from rw_keras.description.runner import Runner
    from rw_keras.model.recipe import smallest_side

    batches = _Batches(Runner(model))
    batcher = Batcher(batches)
    for item in items:
        reading = read_item(item, None, _MAX_SIDE.value, smallest_side(model), False)
        batcher.take(reading)
        if batcher.is_full:
            batcher.close()
    batcher.close()
    return batches.kept


def _network_side(model, items, _):
    from rw_keras.description.describe import function_of

    batches = _batches(model, items)
    run = function_of(model)
    began = time.perf_counter()
    for pixels in batches:
        run(pixels)
    return time.perf_counter() - began


def _extract_side(model, items, details):
    from rw_keras.description.extract import extract

    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        index, photos = pathlib.Path(scratch, "index"), [item.place for item in items]
        done = extract(model, photos, index, max_side=_MAX_SIDE.value, runtime=_RUNTIME.value, precision=_PRECISION.value)
        seconds = time.perf_counter() - began
    details.append(f"{done}; outside the network {done.seconds - done.network_seconds:.2f} of {done.seconds:.2f} s")
    return seconds


def _describe_side(model, items, _):
    import rw_keras

    began = time.perf_counter()
    for item in items:
        rw_keras.describe(model, item.place, max_side=_MAX_SIDE.value)
    return time.perf_counter() - began


_SIDES = {"extract": _extract_side, "describe, photo by photo": _describe_side, "network alone": _network_side}


def _compare():
    import keras

    from rw_keras.description.describe import function_of
    from rw_keras.photos.sources import photo_items

    model, items = _model(), list(photo_items(_PHOTOS.value))[: _LIMIT.value]
    if not isinstance(items[0].place, str):
        raise app.UsageError("--photos takes a folder, a glob or a list file here.")
    shapes = [pixels.shape for pixels in _batches(model, items)]
    for shape in sorted(set(shapes)):
        function_of(model)(np.zeros(shape, "uint8"))
    print("tensorflow" if isinstance(model, keras.Model) else model, end=": ")
    print(f"{len(items)} photos, max_side {_MAX_SIDE.value}, {len(shapes)} batches of {len(set(shapes))} shapes")
    times, details, peaks = {side: [] for side in _SIDES}, [], {}
    for _ in range(_ROUNDS.value):
        for side, run in _SIDES.items():
            times[side].append(run(model, items, details))
            peaks.setdefault(side, _peak())
    median = {side: statistics.median(taken) for side, taken in times.items()}
    bare = median["network alone"]
    print("                             seconds   a photo ms   to the network   peak MiB")
    for side in reversed(_SIDES):
        seconds = median[side]
        print(f"{side:26s}{seconds:10.2f}{1000 * seconds / len(items):13.1f}{seconds / bare:17.3f}{peaks[side]:11.0f}")
    print(f"beyond the network, extract takes {median['extract'] / bare - 1:.1%}")
    print(*details, sep="\n")


def _extract_into():
    from rw_keras.description.extract import extract

    model, before = _model(), _peak()
    made_by = {"runtime": _RUNTIME.value, "precision": _PRECISION.value}
    done = extract(model, _PHOTOS.value, _INTO.value, max_side=_MAX_SIDE.value, progress=False, **made_by)
    print(json.dumps([done.seconds, done.network_seconds, before, _peak(), str(done)]))


def _make(folder, numbers, seed=0):
    chance = np.random.default_rng(seed)
    for number in numbers:
        spots = chance.integers(0, 256, (5, 7, 3), dtype="uint8")
        path = folder / f"{number // 1000:05d}" / f"{number:08d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(spots).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def _sizes():
    print("  photos  run                wall s   extract s   network s   peak MiB   of it before")
    for count in (_GENERATED.value, 10 * _GENERATED.value):
        with tempfile.TemporaryDirectory() as scratch:
            photos, index = pathlib.Path(scratch, "photos"), pathlib.Path(scratch, "index")
            photos.mkdir()
            _make(photos, range(count))
            for run in ("first", "nothing new", "1 % changed"):
                if run == "1 % changed":
                    _make(photos, range(0, count, 100), seed=1)
                command = [sys.executable, __file__, f"--photos={photos}", f"--into={index}", f"--max_side={_MAX_SIDE.value}"]
                command += [f"--runtime={_RUNTIME.value}", f"--precision={_PRECISION.value}"]
                began = time.perf_counter()
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                wall = time.perf_counter() - began
                seconds, network, before, peak, words = json.loads(output.splitlines()[-1])
                print(f"{count:8d}  {run:12s}{wall:13.1f}{seconds:12.2f}{network:12.2f}{peak:11.0f}{before:15.0f}   {words}")
            size = sum(path.stat().st_size for path in index.iterdir())
            print(f"          {len(list(index.iterdir()))} files, {size / count:.0f} bytes a photo")


def main(_):
    if _INTO.value:
        _extract_into()
    elif _GENERATED.value:
        _sizes()
    elif _PHOTOS.value:
        _compare()
    else:
        raise app.UsageError("Pass --photos=FOLDER or --generated=N.")


if __name__ == "__main__":
    app.run(main)
