"""Photos a second on a cluster of one and of two nodes of one processor each, beside `rw_keras.extract` on one processor.

    python benchmarks/cluster.py --photos photos/ --limit 4096
    python benchmarks/cluster.py --names 1000000

The sides take turns in one run, each in a process for itself, kept to as many processors of this machine as it has nodes; what is
compared are ratios. The seconds count from a model that is built to a finished index, with the plan, the start of the actors and
the gathering. Ray's nodes listen on all addresses: run it where nobody else is, as by `unshare --net`.
With `--names` it plans and gathers so many photos that are not there, and tells the time and the memory that it takes.
"""

import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

_PHOTOS = flags.DEFINE_string("photos", None, "A folder of photos.")
_LIMIT = flags.DEFINE_integer("limit", 4096, "How many of them, repeated where there are fewer.", lower_bound=1)
_MAX_SIDE = flags.DEFINE_integer("max_side", 512, "Longer side of photos.", lower_bound=1)
_BACKBONE = flags.DEFINE_string("backbone", "alexnet", "The network.")
_WEIGHTS = flags.DEFINE_string("weights", os.environ.get("RW_KERAS_ALEXNET_WEIGHTS"), "A file of its weights.")
_RUNS = flags.DEFINE_integer("runs", 3, "Turns of each side.", lower_bound=1)
_NODES = flags.DEFINE_multi_integer("nodes", [1, 2], "Sizes of clusters.")
_NAMES = flags.DEFINE_integer("names", None, "Plan and gather so many photos in place of all this.", lower_bound=1)
_SIDE = flags.DEFINE_string("side", None, "For the processes that this program starts.")

_OBJECT_STORE = 80 << 20


def _model():
    import rw_keras

    return rw_keras.build_descriptor(_BACKBONE.value, weights=_WEIGHTS.value or "imagenet", whitening=None)


def _items():
    from rw_keras.photos.sources import Item, photo_items

    found = list(photo_items(_PHOTOS.value))
    many = (found[number % len(found)] for number in range(_LIMIT.value))
    return [Item(f"{number:08d}.jpg", item.place, item.stamp) for number, item in enumerate(many)]


def _side(nodes, folder):
    """One side in this process: its seconds in all, those of its network, and how many photos it described."""
    import rw_keras

    model, items = _model(), _items()
    options = {"max_side": _MAX_SIDE.value, "runtime": "tensorflow", "progress": False}
    if not nodes:
        rw_keras.describe(model, items[0].place, max_side=_MAX_SIDE.value)  # so that both sides count from a model that has run
        began = time.perf_counter()
        done = rw_keras.extract(model, items, folder, workers=2, **options)
        return {"seconds": time.perf_counter() - began, "network": done.network_seconds, "photos": done.described}
    from ray.cluster_utils import Cluster

    from rw_keras.cluster import extract

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own name; the other side has the same)
    node = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        began = time.perf_counter()
        done = extract(model, items, folder, address=cluster.address, processors=1, **options)
        seconds = time.perf_counter() - began
    finally:
        cluster.shutdown()
    return {"seconds": seconds, "network": done.network_seconds, "photos": done.described}


def _measured(nodes):
    """A side in a process of its own, kept to as many processors of this machine as it has nodes, with all that it starts."""
    forwarded = [f"--{name}={flags.FLAGS[name].value}" for name in ("photos", "limit", "max_side", "backbone", "weights")]
    command = [sys.executable, __file__, *(flag for flag in forwarded if not flag.endswith("=None")), f"--side={nodes}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not nodes:
        environment["TF_NUM_INTRAOP_THREADS"] = "1"
    command = ["taskset", "-c", f"0-{max(nodes, 1) - 1}", *command]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _compare():
    sides = [0, *_NODES.value]
    found = {nodes: [] for nodes in sides}
    for _ in range(_RUNS.value):
        for nodes in sides:
            found[nodes].append(_measured(nodes))
            print(f"{nodes or 'no'} nodes: {found[nodes][-1]}", file=sys.stderr, flush=True)
    load = os.getloadavg()[0]
    print(f"{_LIMIT.value} photos of {_MAX_SIDE.value} pixels, {_BACKBONE.value}; medians of {_RUNS.value}; load {load:.1f}")
    print(f"{'':24s}{'seconds':>9s}{'network':>9s}{'photos/s':>10s}{'ratio':>7s}")
    plain = statistics.median(run["seconds"] for run in found[0])
    for nodes, runs in found.items():
        seconds, network = (statistics.median(run[name] for run in runs) for name in ("seconds", "network"))
        words = f"{nodes} of one processor" if nodes else "extract, one processor"
        print(f"{words:24s}{seconds:9.1f}{network:9.1f}{_LIMIT.value / seconds:10.1f}{plain / seconds:7.2f}")


def _names(count, folder):
    """Time and memory of planning and gathering so many photos, none of which is described: what the driver of a cluster does."""
    import numpy as np

    from rw_keras.cluster.describing import Settings
    from rw_keras.cluster.fragments import table_of
    from rw_keras.cluster.gather import gather
    from rw_keras.cluster.places import Place
    from rw_keras.cluster.plan import Plan
    from rw_keras.description.batcher import WINDOW, Window
    from rw_keras.description.progress import Progress
    from rw_keras.description.reader import Reading
    from rw_keras.description.update import Update
    from rw_keras.photos.listing import Listing
    from rw_keras.photos.sources import Item
    from rw_keras.retrieval.writer import Writer

    def told(words, began):
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{words:12s}{time.perf_counter() - began:10.1f} s, {memory:8.0f} MB at most", flush=True)

    # Few dimensions, since it is names that are measured.
    dimensions, recipe = 8, {"backbone": "vgg16", "max_side": 1024}
    told("at first", time.perf_counter())
    began = time.perf_counter()
    items = Listing.spooled(
        Item(f"{number // 1000:06d}/{number:09d}.jpg", f"/photos/{number // 1000:06d}/{number:09d}.jpg", [100_000 + number, number])
        for number in range(count)
    )
    told("listing", began)
    vectors = np.random.default_rng(0).normal(size=(WINDOW, dimensions)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    about = {"described_with": {"runtime": "tensorflow"}, "versions": {}, "network_seconds": 0.0}
    with Writer(pathlib.Path(folder, "index"), recipe, dimensions) as writer, Progress(count, False) as bar:
        update = Update(writer, items, False, False, False)
        began = time.perf_counter()
        plan = Plan.make(Place.of(pathlib.Path(folder, "fragments")), update.todo(bar), Settings(recipe), b"", "index")
        told("planning", began)
        began = time.perf_counter()
        for number in range(plan.count):
            todo = plan.todo(number)
            windows = []
            for start in range(0, len(todo), WINDOW):
                readings = [Reading(item, None, item.stamp) for item, _ in todo[start : start + WINDOW]]
                windows.append(Window(readings, list(range(len(readings))), vectors[: len(readings)], None))
            plan.write(number, table_of(windows, None, dimensions, False, about))
        told("(fragments)", began)
        began = time.perf_counter()
        gather(plan, writer, update, bar)
        told("gathering", began)
        began = time.perf_counter()
        plan.remove(keep_fragments=False)
        update.finish()
        told("finishing", began)


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        if _NAMES.value:
            print(f"{_NAMES.value} photos")
            _names(_NAMES.value, folder)
        elif _SIDE.value is not None:
            with contextlib.redirect_stdout(sys.stderr):
                found = _side(int(_SIDE.value), pathlib.Path(folder, "index"))
            print(json.dumps(found))
        else:
            _compare()


if __name__ == "__main__":
    flags.mark_flags_as_mutual_exclusive(["photos", "names"], required=True)
    app.run(main)
