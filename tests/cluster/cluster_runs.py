"""What the tests of Ray share: small photos, clusters of several nodes on one machine, and runs in processes of their own."""

import contextlib
import ctypes
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from rw_keras.retrieval import store

# The only machine of the network that a test's cluster is in.
ADDRESS = "10.77.0.1"
# A node with little shared memory, since only numbers go through it.
NODE = {"node_ip_address": ADDRESS, "object_store_memory": 80 << 20}
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of Linux
# Runs as processes that may be killed: of one machine, and on a cluster that is there.
PLAIN = """
import sys
import rw_keras
model, photos, out = sys.argv[1:]
print(rw_keras.extract(rw_keras.load_model(model), photos, out, runtime="tensorflow", max_side=64, progress=False))
"""
CLUSTER = """
import sys
import rw_keras
from rw_keras.cluster import extract
model, photos, out, address = sys.argv[1:]
options = {"processors": 1, "runtime": "tensorflow", "max_side": 64, "progress": False}
print(extract(rw_keras.load_model(model), photos, out, address=address, **options))
"""


def contents(out):
    """All that an index holds, byte for byte, but for its identity and what differs by it."""
    with sqlite3.connect(out / store.DATABASE) as database:
        tables = {
            table: database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("photos", "segments", "blocks", "regions", "excluded", "about")
        }
    tables["about"] = [row for row in tables["about"] if row[0] not in ("identity", "generation", "sums")]
    files = [row[2] for row in tables["segments"]]
    tables["segments"] = [(*row[:2], *row[3:]) for row in tables["segments"]]  # the names of files are random
    return tables, [(out / name).read_bytes() for name in files]


@contextlib.contextmanager
def apart():
    """A network of their own for this thread and what it starts, since Ray's nodes listen on all addresses of a machine.

    Threads that gRPC starts meanwhile stay in it: tests that ask another server by gRPC are run in another process.
    """
    system = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if system.unshare(_NEW_NETWORK):
            pytest.skip(
                f"Ray's nodes listen on all addresses, and a network of their own takes root: {os.strerror(ctypes.get_errno())}"
            )
        try:
            for words in (f"address add {ADDRESS}/32 dev lo", "link set lo up", f"route add default dev lo src {ADDRESS}"):
                subprocess.run(["ip", *words.split()], check=True)
            yield
        finally:
            system.setns(before.fileno(), _NEW_NETWORK)


@contextlib.contextmanager
def cluster(count):
    """A Ray cluster of so many nodes of one processor on this machine, the first of which is the head's."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_worker_niceness", "0")  # tests that run beside are no more urgent
    options = {**NODE, "num_cpus": 1}
    own = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        own.others = [own.add_node(**options) for _ in range(count - 1)]
        own.wait_for_nodes()
        yield own
    finally:
        import ray

        ray.shutdown()
        own.shutdown()


def run(program, *arguments):
    """A program in a process, on one processor, as actors have one."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started(model, photos, out, address):
    """A run on a cluster, by processors of one each."""
    return run(CLUSTER, model, photos, out, address)


def finished(out):
    """How many fragments are finished."""
    return len(list((pathlib.Path(out) / "fragments").glob("*.parquet")))


def wait_for(condition, seconds=300):
    """Waits until something is so; an AssertionError when it does not come to be."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def actors():
    """The process numbers of this machine's actors that describe photos."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"ray::MapWorker(MapBatches(Actor))" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def kill(number):
    """Ends a process at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
