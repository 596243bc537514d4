"""Every runtime and precision that is installed, PyTorch beside them, and the arithmetic limit: time, memory, digits, mAP.

    python benchmarks/runtimes.py
    python benchmarks/runtimes.py --data data/oxford5k --max_side 512
    python benchmarks/runtimes.py --batches 1,4,16,64

Each candidate runs in a process of its own, and they take turns: a photo of each size, again and again, one process at a time, the
others waiting without a thread at work. Medians of pixels to descriptor. The PyTorch side has the same weights and the head that
runtimes have.

The limit is the network's multiply-adds over the rate of the largest product of matrices that this machine does at that
precision, measured in the same run; Winograd's algorithm multiplies less, and may go below it. On a GPU it is the rate that its
maker states, where that is known here.

With `--data`, a folder of Oxford5k (`jpg/` and `gt/`, whole or a part), each runtime describes all of it: the lowest and the mean
cosine to TensorFlow's float32, and mAP. `--rounds 0` does that alone.
"""

import json
import os
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

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed turns of each, after one that is not counted.", lower_bound=0)
_SIZES = flags.DEFINE_list("sizes", ["224x224", "512x384", "1024x768"], "Width x height of the photos.")
_BATCHES = flags.DEFINE_list("batches", ["1"], "How many photos go through the network together.")
_ONLY = flags.DEFINE_list("only", None, 'Candidates, such as "tensorflow float32". Default: all.')
_DATA = flags.DEFINE_string("data", None, "Folder of Oxford5k, for cosines and mAP.")
_MAX_SIDE = flags.DEFINE_integer("max_side", 512, "With --data: photos are reduced to this longer side.", lower_bound=16)
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "VGG16's weights.")
_WORKER = flags.DEFINE_string("worker", None, "Serve one candidate; used by the program itself.")

_BASE, _KERAS = "tensorflow float32", ("tensorflow", "pytorch")
_TORCH = ("pytorch float32", "pytorch bfloat16")
_RECIPE = "RW_KERAS_BENCHMARK_RECIPE"  # the variable that tells a process of a runtime alone what its model is
_PEAKS = {"float32": "peak float32", "bfloat16": "peak bfloat16"}
# Dense, from the makers' data sheets: what the name of a GPU holds -> precision -> multiply-adds a second.
_STATED = {
    "H200": {"float32": 67e12 / 2, "tf32": 494e12 / 2, "bfloat16": 989e12 / 2, "float16": 989e12 / 2},
    "H100": {"float32": 67e12 / 2, "tf32": 494e12 / 2, "bfloat16": 989e12 / 2, "float16": 989e12 / 2},
    "A100": {"float32": 19.5e12 / 2, "tf32": 156e12 / 2, "bfloat16": 312e12 / 2, "float16": 312e12 / 2},
}


# In a process of its own.


def _worker(name):
    """Reads a line of JSON, does it, and answers with one."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    candidate = (_Builder if name == "builder" else _Peak if name.startswith("peak") else _Candidate)(name)
    for line in sys.stdin:
        task = json.loads(line)
        answers.write(json.dumps(getattr(candidate, task.pop("do"))(**task)) + "\n")
        answers.flush()


class _Candidate:
    """One runtime, or PyTorch, in one precision."""

    def __init__(self, name):
        runtime, _, variant = name.partition(" ")
        if runtime in ("tensorflow", "pytorch"):
            self._model = _model()
        if runtime == "pytorch":
            self.run = _torch_side(self._model, variant)
            return
        from rw_keras.model.recipe import Recipe
        from rw_keras.runtimes import RUNTIMES, cache
        from rw_keras.runtimes.describer import KnownModel, ModelRuntimes

        if runtime == "tensorflow":
            import tensorflow as tf

            tf32 = variant.endswith("tf32")
            tf.config.experimental.enable_tensor_float_32_execution(tf32)
            self.run = ModelRuntimes.of(self._model).function(runtime, "float32" if tf32 else variant)
            return
        # As a process that searches has it: the runtime alone, no Keras and no TensorFlow.
        about, module = KnownModel.load(Recipe.from_dict(json.loads(os.environ[_RECIPE]))), RUNTIMES[runtime]
        self.run = about.head.function(module.load(cache.built(about.stem(runtime, variant), module.SUFFIXES), variant))

    def seconds(self, width, height, batch):
        """How long one batch takes."""
        pixels = _photo(width, height, batch)
        began = time.perf_counter()
        self.run(pixels)
        return time.perf_counter() - began

    def peak_mib(self):
        """The most memory that the process has held."""
        status = pathlib.Path("/proc/self/status")
        if status.is_file():  # Linux, where `getrusage` counts in what the process was forked from
            return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def describe(self, photos, into):
        """Descriptors of photos, (path, box) each, to a file; the seconds in the runtime."""
        from rw_keras.photos.reading import read_image

        rows, seconds = [], 0.0
        for path, box in photos:
            pixels = read_image(path, box, _MAX_SIDE.value)[None]
            began = time.perf_counter()
            rows.append(self.run(pixels)[0])
            seconds += time.perf_counter() - began
        np.save(into, np.stack(rows))
        return seconds


def _model():
    import rw_keras

    return rw_keras.build_descriptor("vgg16", weights=None if _WEIGHTS.value == "none" else _WEIGHTS.value)


class _Builder:
    """Makes the runtimes' files, in a process that then ends."""

    def __init__(self, _):
        from rw_keras.runtimes.describer import ModelRuntimes

        self._model = _model()
        self._runtimes = ModelRuntimes.of(self._model)
        self._runtimes.known.save()

    def build(self, names):
        """The recipe of the model; and what cannot be built, with the reason."""
        failed = {}
        for name in names:
            try:
                self._runtimes.function(*name.split(" ", 1))
            except (ValueError, ImportError, RuntimeError) as error:
                failed[name] = str(error)[:90]
        return [self._runtimes.known.recipe.to_dict(), failed]


class _Peak:
    """The fastest product of matrices that the installed libraries do."""

    def __init__(self, name):
        self._sides = []
        dtype = name.rpartition(" ")[2]
        random = np.random.default_rng(0)
        one, other = (random.standard_normal((3072, 3072), "float32") for _ in range(2))
        if dtype == "float32":
            self._sides.append(lambda: one @ other)
        try:
            import torch
        except ImportError:
            pass
        else:
            left, right = (torch.from_numpy(array).to(getattr(torch, dtype)) for array in (one, other))
            self._sides.append(lambda: torch.mm(left, right))
        import tensorflow as tf

        first, second = (tf.constant(array, getattr(tf, dtype)) for array in (one, other))
        product = tf.function(tf.matmul)
        self._sides.append(lambda: product(first, second)[0, 0].numpy())

    def rate(self):
        """Multiply-adds a second."""
        best = 0.0
        for side in self._sides:
            began = time.perf_counter()
            side()
            best = max(best, 3072**3 / (time.perf_counter() - began))
        return best


def _torch_side(model, variant):
    """What users would take instead: the usual toolbox's network in PyTorch, with the same weights."""
    import torch

    from rw_keras.runtimes import numpy_head

    network, head = numpy_head.split(model)
    stages = []
    for layer in network.layers:
        kind = type(layer).__name__
        if kind == "Conv2D":
            kernel, bias = layer.get_weights()
            convolution = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
            convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            convolution.bias.data = torch.from_numpy(bias)
            stages += [convolution, torch.nn.ReLU()]
        elif kind == "MaxPooling2D":
            stages.append(torch.nn.MaxPool2d(2))
        elif kind == "ImageNetPreprocessing":
            means = np.array(layer.means, "float32")
        elif kind != "InputLayer":
            raise ValueError(f"The PyTorch side knows no {kind}, the layer {layer.name!r}; it is made for VGG16.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = torch.nn.Sequential(*stages).eval().to(device, getattr(torch, variant), memory_format=torch.channels_last)

    def feature_maps(pixels):
        planes = torch.from_numpy(np.ascontiguousarray((pixels[..., ::-1] - means).transpose(0, 3, 1, 2)))
        with torch.inference_mode():
            features = net(planes.to(device, getattr(torch, variant), memory_format=torch.channels_last))
        return features.permute(0, 2, 3, 1).float().cpu().numpy()

    return head.function(feature_maps)


def _photo(width, height, batch):
    soft = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), "uint8"))
    return np.repeat(np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC))[None], batch, axis=0)


# The table.


class _Process:
    """A candidate in its process."""

    def __init__(self, name):
        command = [sys.executable, __file__, f"--worker={name}", f"--weights={_WEIGHTS.value}", f"--max_side={_MAX_SIDE.value}"]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True)

    def do(self, task, **arguments):
        self._process.stdin.write(json.dumps({"do": task, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read().strip().rpartition("\n")[2] or "it ended without a word")
        return json.loads(line)

    def end(self):
        self._process.stdin.close()
        self._process.wait()


def _candidates():
    """The names of what is installed, TensorFlow in float32 first; and what is not, with the reason."""
    import importlib.util

    from rw_keras.runtimes import RUNTIMES

    gpu = bool(RUNTIMES["tensorflow"].accelerators())
    found, absent = [], {}
    for runtime in ("tensorflow", "openvino", "ncnn"):
        module = RUNTIMES[runtime]
        variants = list(module.VARIANTS["int8"])
        if runtime == "tensorflow":
            variants = [variant for variant in variants if gpu or variant != "float16"]
            variants += ["float32 tf32"] if gpu else []
        names = [f"{runtime} {variant}" for variant in variants]
        if importlib.util.find_spec(module.PACKAGE) is None:
            absent |= dict.fromkeys(names, f'not installed: pip install "rw_keras[{module.EXTRA}]"')
        else:
            found += names
    if importlib.util.find_spec("torch") is None:
        absent |= dict.fromkeys(_TORCH, 'not installed: pip install "rw_keras[torch]"')
    else:
        found += _TORCH
    wanted = _ONLY.value or [*found, *absent]
    unknown = [name for name in wanted if name not in (*found, *absent)]
    if unknown:
        raise app.UsageError(f"There is no candidate {unknown[0]!r}; there are {', '.join([*found, *absent])}.")
    return [name for name in found if name in wanted or name == _BASE], absent


def _multiply_adds(width, height):
    """Of VGG16 up to block5_conv3."""
    from rw_keras import backbones

    total = 0
    for layer in backbones.network("vgg16", None, None)[0].layers:
        if type(layer).__name__ == "Conv2D":
            shrunk = 2 ** (int(layer.name[5]) - 1)  # block1 to block5, each at half the sides
            total += (width // shrunk) * (height // shrunk) * int(np.prod(layer.kernel.shape))
    return total


def _stated_peaks():
    """The name of the GPU, and what its maker states; nothing where there is none, or it is not known here."""
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else None
    return name, next((rates for part, rates in _STATED.items() if part in (name or "")), {})


def main(_):
    if _WORKER.value:
        _worker(_WORKER.value)
        return
    names, absent = _candidates()
    gpu, rates = _stated_peaks()
    builder = _Process("builder")
    os.environ[_RECIPE], unbuilt = map(
        json.dumps, builder.do("build", names=[name for name in names if not name.startswith(_KERAS)])
    )
    builder.end()
    absent |= json.loads(unbuilt)
    names = [name for name in names if name not in absent]
    processes = {name: _Process(name) for name in names}
    if not gpu:
        processes |= {peak: _Process(peak) for peak in _PEAKS.values()}
    print(_machine(gpu))
    sizes = [tuple(map(int, size.split("x"))) for size in _SIZES.value]
    for batch in map(int, _BATCHES.value):
        for width, height in sizes if _ROUNDS.value else ():
            _print_size(processes, names, absent, rates, width, height, batch)
    if _DATA.value:
        _print_digits(processes, [name for name in names if name not in _TORCH])
    for process in processes.values():
        process.end()


def _print_size(processes, names, absent, rates, width, height, batch):
    times, peaks, failed = {name: [] for name in names}, {dtype: 0.0 for dtype in _PEAKS}, dict(absent)
    for turn in range(_ROUNDS.value + 1):
        for name in names:
            if name in failed:
                continue
            try:
                # Twice, and the second counts: the memory that another process has used is the first's to fetch.
                seconds = [processes[name].do("seconds", width=width, height=height, batch=batch) for _ in range(2)][1]
            except (RuntimeError, OSError) as error:
                failed[name] = str(error)[:90]
                continue
            if turn:
                times[name].append(seconds)
        for dtype, peak in _PEAKS.items():
            if peak in processes:
                peaks[dtype] = max(peaks[dtype], processes[peak].do("rate"))
    peaks = {dtype: rate for dtype, rate in {**peaks, **rates}.items() if rate}
    work = _multiply_adds(width, height) * batch
    print(f"\n{width} x {height}, {batch} at once: {work / 1e9:.1f} G multiply-adds; limit at ", end="")
    print(", ".join(f"{dtype} {1000 * work / rate:.1f} ms ({rate / 1e9:.0f} G/s)" for dtype, rate in peaks.items()))
    print("runtime             computes in        ms   photos/s   times TensorFlow's speed   time / limit   peak MiB")
    base = statistics.median(times[_BASE])
    for name in [*names, *(name for name in failed if name not in names)]:
        runtime, _, variant = name.partition(" ")
        if name in failed:
            print(f"{runtime:20s}{variant:15s} {failed[name]}")
            continue
        seconds = statistics.median(times[name])
        rate = peaks.get(variant.split()[-1]) or peaks.get(variant.split()[0])
        limit = f"{seconds * rate / work:15.2f}" if rate else f"{'':15s}"
        memory = processes[name].do("peak_mib")
        print(f"{runtime:20s}{variant:15s}{1000 * seconds:8.1f}{batch / seconds:11.1f}{base / seconds:27.2f}{limit}{memory:11.0f}")


def _print_digits(processes, names):
    from rw_keras.datasets import read_folder
    from rw_keras.retrieval import Index, average_precisions, bootstrap, paired_difference

    found = read_folder(_DATA.value)
    photos = [(str(path), None) for path in found.photos.values()]
    asked = [(str(found.query_photos[name]), query.box) for name, query in found.queries.items()]
    truth = {name: (query.positives & found.photos.keys(), query.junk) for name, query in found.queries.items()}
    print(f"\n{found}; longer side {_MAX_SIDE.value}; mAP without expansion, and its difference from {_BASE}")
    print("runtime             computes in    lowest cosine     mean cosine     mAP   difference              seconds")
    vectors, scores = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(names):
            file = pathlib.Path(scratch, f"{number}.npy")
            runtime, _, variant = name.partition(" ")
            if "xla" in variant:
                print(f"{runtime:20s}{variant:15s}not run: it compiles for each of the photos' sizes")
                continue
            try:
                seconds = processes[name].do("describe", photos=photos + asked, into=str(file))
            except (RuntimeError, OSError) as error:
                print(f"{runtime:20s}{variant:15s}{str(error)[:90]}")
                continue
            vectors[name] = np.load(file).astype("float64")
            cosines = np.sum(vectors[name] * vectors[_BASE], axis=1)
            cosines /= np.linalg.norm(vectors[name], axis=1) * np.linalg.norm(vectors[_BASE], axis=1)
            index = Index(list(found.photos), vectors[name][: len(photos)])
            rankings = index.rank_batch(vectors[name][len(photos) :])
            scores[name] = average_precisions(dict(zip(found.queries, rankings)), truth)
            change = paired_difference(scores[name], scores[_BASE])
            words = f"{change.mean:+.4f} ({change.low:+.4f} to {change.high:+.4f})"
            digits = f"{cosines.min():13.8f}{cosines.mean():16.8f}{bootstrap(scores[name]).mean:8.4f}"
            print(f"{runtime:20s}{variant:15s}{digits}   {words}{seconds:8.0f}", flush=True)


def _machine(gpu):
    from rw_keras.runtimes import cache

    return f"{gpu or cache.machine()['processor']}, {cache.cores()} cores"


if __name__ == "__main__":
    app.run(main)
