"""What a search costs, beside FAISS's flat index.

    python benchmarks/search.py                                          # 100 000 x 512, float32, in memory
    python benchmarks/search.py --rows 1000000 --mapped --dtype float16  # a file of 1 GB; FAISS's copy takes 2 GB

Random unit vectors; both run by turns on the same queries, in one process, and a ratio below 1 says that ours takes less time.
Medians over all rounds, after one that is not counted. The highest difference of two cosines of the same place must be within
1e-5, and the order the same outside ties of that width. `--searcher` times another one than NumPy, and prints its recall.

    python benchmarks/search.py --milvus milvus:///tmp/rows.db,milvus://127.0.0.1:19530/rows --milvus_process PID

writes the same rows into new collections of Milvus, and searches them, and NumPy and FAISS beside it, one after the other: load
time, memory (of this process, or of the server's, by its number; beyond what it held before), time of a search, and recall@k.
"""

import os
import pathlib
import statistics
import tempfile
import time

import faiss
import numpy as np
from absl import app, flags

from rw_keras.retrieval import Index
from rw_keras.retrieval.milvus import Address, MilvusIndex, MilvusWriter

_ROWS = flags.DEFINE_integer("rows", 100_000, "Descriptors in the index.", lower_bound=1)
_DIMENSIONS = flags.DEFINE_integer("dimensions", 512, "Elements of a descriptor.", lower_bound=1)
_MAPPED = flags.DEFINE_bool("mapped", False, "Search a memory-mapped file, in a temporary folder, instead of memory.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the index's descriptors; FAISS's are float32.")
_QUERIES = flags.DEFINE_list("queries", ["1", "55", "1000"], "How many queries at once.")
_K = flags.DEFINE_integer("k", 10, "Hits of a query.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed runs of each.", lower_bound=1)
_SEARCHER = flags.DEFINE_string("searcher", "numpy", "What searches: numpy, faiss-flat, faiss-hnsw or faiss-ivfpq.")
_MILVUS = flags.DEFINE_list("milvus", [], "Addresses of collections that are not there yet, to be compared with NumPy and FAISS.")
_PROCESS = flags.DEFINE_integer("milvus_process", None, "The number of the process of the Milvus server, for its memory.")
_OTHERS = flags.DEFINE_list("others", ["numpy", "faiss-flat", "faiss-hnsw"], "What is compared with --milvus.")
_STRUCTURES = flags.DEFINE_list("structures", ["milvus-flat", "milvus-hnsw"], "What Milvus searches by.")
_LEVELS = flags.DEFINE_list("levels", ["Strong", "Bounded"], "The consistency of searches in Milvus.")
_TOLERANCE = 1e-5
_BLOCK = 16384


def _blocks(count, dimensions):
    """Random unit vectors, some at a time."""
    random = np.random.default_rng(0)
    for start in range(0, count, _BLOCK):
        block = random.standard_normal((min(_BLOCK, count - start), dimensions), dtype="float32")
        yield start, block / np.linalg.norm(block, axis=1, keepdims=True)


def _descriptors(folder, count, dimensions):
    if _MAPPED.value:
        path = pathlib.Path(folder) / "descriptors.npy"
        rows = np.lib.format.open_memmap(path, "w+", _DTYPE.value, (count, dimensions))
    else:
        rows = np.empty((count, dimensions), _DTYPE.value)
    for start, block in _blocks(count, dimensions):
        rows[start : start + len(block)] = block
    if _MAPPED.value:
        rows.flush()
        rows = np.load(path, mmap_mode="r")
    return rows


def _seconds(function, times):
    start = time.perf_counter()
    result = function()
    times.append(time.perf_counter() - start)
    return result


def _same_order(rows, queries, ours, theirs):
    """Whether each place holds the same row, or one whose exact cosine is within the tolerance."""
    for query, own, other in zip(queries, ours, theirs):
        apart = own != other
        scores = [rows[positions[apart]].astype("float64") @ query.astype("float64") for positions in (own, other)]
        if np.abs(scores[0] - scores[1]).max(initial=0) > _TOLERANCE:
            return False
    return True


def _memory(process=None):
    """MB that a process holds, this one by default."""
    pages = pathlib.Path(f"/proc/{process or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _line(title, index, seconds, megabytes):
    """A line of the table of all searchers."""
    times = []
    for count in map(int, _QUERIES.value):
        queries = np.random.default_rng(1).standard_normal((count, _DIMENSIONS.value), dtype="float32")
        taken = []
        for _ in range(_ROUNDS.value + 1):
            _seconds(lambda: index.nearest_batch(queries, _K.value), taken)  # noqa: B023
        times.append(1000 * statistics.median(taken[1:]))
    recall = index.recall(np.random.default_rng(2).standard_normal((55, _DIMENSIONS.value)), _K.value)
    print(f"{title:34s}{seconds:9.1f}{megabytes:10.0f}" + "".join(f"{time:11.1f}" for time in times) + f"{recall:9.3f}", flush=True)


def _in_memory(rows):
    names = [str(number) for number in range(len(rows))]
    for searcher in _OTHERS.value:
        before, times = _memory(), []
        index = Index(names, rows)
        _seconds(lambda: index.use_searcher(searcher), times)  # noqa: B023
        _line(searcher, index, times[0], _memory() - before)


def _in_milvus(rows, place):
    """Writes the rows, and searches them by each structure."""
    is_lite = Address.of(place).is_lite
    kind, process = ("lite", None) if is_lite else ("standalone", _PROCESS.value)
    before, times = _memory(process), []

    def load():
        with MilvusWriter(place, None, _DIMENSIONS.value, timeout=120) as writer:
            for start in range(0, len(rows), 2048):
                part = np.asarray(rows[start : start + 2048], "float32")
                names = [str(number) for number in range(start, start + len(part))]
                writer.put(names, part, [None] * len(part), listed=False)
                writer.commit()
            writer.finish()

    _seconds(load, times)
    for structure in _STRUCTURES.value:
        with MilvusIndex(place, timeout=120) as index:
            if structure != "milvus-flat":
                times = [0]
                _seconds(lambda: index.use_searcher(structure), times)  # noqa: B023
        for level in _LEVELS.value[: 1 if is_lite else None]:
            with MilvusIndex(place, consistency=level, timeout=120) as index:
                _line(f"{kind}, {structure}, {level}", index, times[-1], _memory(process) - before)


def _compare_all(rows):
    print(f"{len(rows)} x {_DIMENSIONS.value} {rows.dtype}; k = {_K.value}; ms of so many queries at once")
    print(f"{'':34s}{'load s':>9s}{'MB':>10s}" + "".join(f"{count:>11s}" for count in _QUERIES.value) + f"{'recall':>9s}")
    _in_memory(rows)
    for place in _MILVUS.value:
        _in_milvus(rows, place)


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        rows = _descriptors(folder, _ROWS.value, _DIMENSIONS.value)
        if _MILVUS.value:
            _compare_all(rows)
            return
        index = Index([str(number) for number in range(len(rows))], rows)
        flat = faiss.IndexFlatIP(_DIMENSIONS.value)
        for start in range(0, len(rows), _BLOCK):
            flat.add(np.asarray(rows[start : start + _BLOCK], "float32"))
        times = []
        _seconds(lambda: index.use_searcher(_SEARCHER.value), times)
        kind = "memory-mapped" if _MAPPED.value else "in memory"
        print(
            f"{len(rows)} x {_DIMENSIONS.value} {rows.dtype}, {kind}; {_SEARCHER.value}, built in {times[0]:.1f} s; k = {_K.value}"
        )
        print("queries    ours ms   FAISS ms    ratio   difference   same order   recall")
        for count in map(int, _QUERIES.value):
            queries = np.random.default_rng(1).standard_normal((count, _DIMENSIONS.value), dtype="float32")
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            ours, theirs = [], []
            for _ in range(_ROUNDS.value + 1):
                positions, scores = _seconds(lambda: index.nearest_batch(queries, _K.value), ours)  # noqa: B023
                products, found = _seconds(lambda: flat.search(queries, _K.value), theirs)  # noqa: B023
            own, other = (1000 * statistics.median(taken[1:]) for taken in (ours, theirs))
            difference = np.abs(scores - products[:, : scores.shape[1]]).max()
            same = _same_order(rows, queries, positions, found[:, : scores.shape[1]])
            print(
                f"{count:7d}{own:11.1f}{other:11.1f}{own / other:9.2f}{difference:13.1e}{'yes' if same else 'NO':>13}"
                f"{index.recall(queries, _K.value):9.3f}"
            )
            if _SEARCHER.value in ("numpy", "faiss-flat") and (not same or difference > _TOLERANCE):
                raise SystemExit("The two do not agree.")


if __name__ == "__main__":
    app.run(main)
