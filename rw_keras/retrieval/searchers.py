"""What searches an index: NumPy, exactly, or a structure of FAISS that is asked for candidates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rw_keras.files import written_whole
from rw_keras.retrieval import exact
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.vectors import check_count

# A filter that lets fewer than this share of the rows pass leaves so little to multiply that no structure is faster.
_FEW = 0.1
# Rows that one centroid is learned from: FAISS warns below 39.
_TRAINING = 50


class NumpySearcher:
    """Exact search in blocks (see `rw_keras.retrieval.exact`). It has no parameters, and builds nothing.

    Searchers share these methods; `rows` are the index's `Rows`, the same in every call.
    """

    name = "numpy"
    built = False  # whether there is a structure to save
    has_changed = False  # whether it is another one than was saved or loaded last

    def __init__(self) -> None:
        self.parameters: dict[str, int] = {}

    def build(self, rows: Rows) -> None:
        """Makes the structure, if there is one to make and it is not there."""

    def add(self, rows: Rows, ids: np.ndarray) -> None:
        """Takes in new rows; those that were removed or replaced are left out by `nearest`, and need no call."""

    def nearest(self, rows: Rows, queries: np.ndarray, k: int, passing: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `exact.nearest`; an approximate searcher may find others, but the cosines of those it finds are as exact."""
        return exact.nearest(rows, queries, k, passing)

    def save(self, path: str | os.PathLike[str], rows: Rows, numbers: np.ndarray) -> None:
        """Writes a structure that is `built` to a file; in it, the rows at `rows`' positions have the `numbers` `(N,)`."""

    def load(self, path: str | os.PathLike[str], rows: Rows, numbers: np.ndarray, partly: bool = False) -> None:
        """Reads a structure that `save` wrote; a ValueError when it cannot be read, or is of other rows.

        Args:
            path: the file.
            rows: the index's.
            numbers: `(N,)`, those that `save` gave the rows at the positions.
            partly: whether it may be of other rows in part: rows that it lacks are added; where most of it is of no use, it is left
                to be built again.
        """


class FaissSearcher(NumpySearcher):
    """A structure of FAISS: it finds candidates, which are scored exactly from the index's descriptors.

    A query that it finds too few candidates for, and a search through few rows, go to NumPy instead. FAISS holds its own copy
    of the vectors: `faiss-flat` and `faiss-hnsw` N x D x 4 bytes (`faiss-hnsw` some 8 m N more), `faiss-ivfpq` about N x m.

    Args:
        name: "faiss-flat": all products; finds what NumPy finds. "faiss-hnsw": a graph. "faiss-ivfpq": short codes in lists.
        **parameters: FAISS's own, whole numbers. `faiss-hnsw`: `m` (32) neighbours of a node, `ef_construction` (80),
            `ef_search` (64). `faiss-ivfpq`: `nlist` (4 sqrt(N), fewer where they could not be learned) lists, `nprobe` (16)
            of which are searched, `m` (the largest divisor of D up to D / 8) bytes of a code, `k_factor` (10) times k
            candidates. More are slower and find more.

    Raises:
        ImportError: without FAISS.
        ValueError: for a parameter that the searcher does not have.
    """

    DEFAULTS: ClassVar[dict[str, dict[str, int]]] = {
        "faiss-flat": {},
        "faiss-hnsw": {"m": 32, "ef_construction": 80, "ef_search": 64},
        "faiss-ivfpq": {"nlist": 0, "nprobe": 16, "m": 0, "k_factor": 10},
    }

    def __init__(self, name: str, **parameters: int) -> None:
        super().__init__()
        _faiss(name)
        defaults = self.DEFAULTS[name]
        _check_parameters(name, parameters, defaults)
        self.name = name
        # The two that depend on the index are chosen when the structure is made.
        self.parameters = {**{key: value for key, value in defaults.items() if value}, **parameters}
        self._structure: Any = None

    @property
    def built(self) -> bool:
        return self._structure is not None

    def build(self, rows: Rows) -> None:
        if self.built:
            return
        faiss = _faiss(self.name)
        inner = self._empty(faiss, rows)
        # Ids of our own, as rows that are removed leave gaps in them.
        structure = faiss.IndexIDMap(inner)
        for ids, vectors, skipped in rows.blocks(rows.kept()):
            if skipped is not None:
                ids, vectors = ids[~skipped], vectors[~skipped]
            structure.add_with_ids(vectors, ids)
        self._structure, self.has_changed = structure, True

    def add(self, rows: Rows, ids: np.ndarray) -> None:
        if self.built and len(ids):
            self._structure.add_with_ids(rows.take(ids), ids)
            self.has_changed = True

    def nearest(self, rows: Rows, queries: np.ndarray, k: int, passing: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        count = len(rows) if passing is None else int(np.count_nonzero(passing))
        k = min(k, count)
        # A few more, to see at the last one whether there are others as good as the k-th.
        wanted = k * self.parameters.get("k_factor", 1) + 8
        if len(queries) == 0 or k == 0 or wanted >= count or count < _FEW * len(rows):
            return exact.nearest(rows, queries, k, passing)
        self.build(rows)
        kept = rows.kept(passing)
        if kept is None and self._structure.ntotal != rows.ids_given:  # it was loaded with rows that had been removed
            kept = np.ones(rows.ids_given, bool)
        products, ids = self._structure.search(queries, wanted, params=self._search_parameters(wanted, kept))
        query, column = np.nonzero(ids >= 0)
        query, ids, scores = exact.best_of(rows, queries, k, query, ids[query, column])
        found = np.bincount(query, minlength=len(queries))
        lacking = (found < k) | ~queries.any(axis=1)
        positions, cosines = np.empty((len(queries), k), np.intp), np.empty((len(queries), k), "float32")
        whole = ~lacking[query]
        positions[~lacking] = rows.positions(ids[whole]).reshape(-1, k)
        cosines[~lacking] = scores[whole].reshape(-1, k)
        if self.name == "faiss-flat":  # which of equal vectors it finds, and what it rounds to, is its own choice
            lacking[~lacking] = products[~lacking, -1] >= cosines[~lacking, -1] - exact.rounding(queries.shape[1])
        if lacking.any():
            positions[lacking], cosines[lacking] = exact.nearest(rows, queries[lacking], k, passing)
        return positions, cosines

    def save(self, path: str | os.PathLike[str], rows: Rows, numbers: np.ndarray) -> None:
        faiss = _faiss(self.name)
        ids = faiss.vector_to_array(self._structure.id_map).copy()
        number_of = np.full(rows.ids_given + 1, -1)  # of a row that was removed, and of the id -1
        number_of[rows.ids()] = numbers
        try:
            faiss.copy_array_to_vector(number_of[ids], self._structure.id_map)
            with written_whole(path) as file:
                faiss.write_index(self._structure, faiss.PyCallbackIOWriter(file.write))
        finally:
            faiss.copy_array_to_vector(ids, self._structure.id_map)

    def load(self, path: str | os.PathLike[str], rows: Rows, numbers: np.ndarray, partly: bool = False) -> None:
        faiss = _faiss(self.name)
        try:
            structure = faiss.read_index(os.fspath(path))
            kind = type(faiss.downcast_index(structure.index)) if isinstance(structure, faiss.IndexIDMap) else None
            if kind is not getattr(faiss, _KINDS[self.name]):
                raise ValueError(f"it is no structure of {self.name}")
            if structure.d != rows.shape[1]:
                raise ValueError(f"it holds vectors of {structure.d} dimensions, the index of {rows.shape[1]}")
            saved = faiss.vector_to_array(structure.id_map)
            if not partly and not np.array_equal(np.sort(saved[saved >= 0]), np.sort(numbers)):
                raise ValueError(f"it holds other rows than the index's {len(rows)}")
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} cannot be used: {error}; build it again with `use_searcher`.") from error
        order = np.argsort(numbers, kind="stable")
        places = np.minimum(np.searchsorted(numbers[order], saved), max(len(numbers) - 1, 0))
        ids = np.full(len(saved), -1)  # -1: rows that had been removed, which the structure cannot forget
        if len(numbers):
            known = numbers[order][places] == saved
            ids[known] = rows.ids()[order[places[known]]]
        lacking = np.setdiff1d(rows.ids(), ids)
        if partly and 2 * (len(rows) - len(lacking)) < len(saved) + len(lacking):
            return
        faiss.copy_array_to_vector(ids, structure.id_map)
        self._structure, self.has_changed = structure, False
        self.add(rows, lacking)

    def _empty(self, faiss, rows):
        count, dimensions = rows.shape
        metric, asked = faiss.METRIC_INNER_PRODUCT, self.parameters
        if self.name == "faiss-flat":
            return faiss.IndexFlatIP(dimensions)
        if self.name == "faiss-hnsw":
            inner = faiss.IndexHNSWFlat(dimensions, asked["m"], metric)
            inner.hnsw.efConstruction = asked["ef_construction"]
            return inner
        if count < 256:
            raise ValueError(f"faiss-ivfpq learns its codes from 256 rows or more, but the index has {count}; use faiss-flat.")
        nlist = asked.get("nlist") or max(1, min(int(4 * count**0.5), count // _TRAINING))
        m = asked.get("m") or max(part for part in range(1, max(dimensions // 8, 1) + 1) if dimensions % part == 0)
        if dimensions % m or nlist > count:
            raise ValueError(f"`m` divides the dimensions, {dimensions}, and `nlist` is at most {count}; got {m} and {nlist}.")
        inner = faiss.IndexIVFPQ(faiss.IndexFlatIP(dimensions), dimensions, nlist, m, 8, metric)
        training = np.linspace(0, count - 1, min(count, max(_TRAINING * nlist, 16384))).astype(np.intp)
        inner.train(rows.take(rows.ids()[training]))
        self.parameters = {**asked, "nlist": nlist, "m": m}
        return inner

    def _search_parameters(self, wanted, kept):
        faiss = _faiss(self.name)
        chosen = {} if kept is None else {"sel": faiss.IDSelectorBitmap(np.packbits(kept, bitorder="little"))}
        if self.name == "faiss-hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(self.parameters["ef_search"], wanted), **chosen)
        if self.name == "faiss-ivfpq":
            return faiss.SearchParametersIVF(nprobe=self.parameters["nprobe"], **chosen)
        return faiss.SearchParameters(**chosen) if chosen else None


_KINDS = {"faiss-flat": "IndexFlatIP", "faiss-hnsw": "IndexHNSWFlat", "faiss-ivfpq": "IndexIVFPQ"}


def make_searcher(searcher: str | Mapping[str, Any], **parameters: int) -> NumpySearcher:
    """A searcher by its name, or by the dictionary that `Index.searcher_config` gives.

    Args:
        searcher: "numpy", "faiss-flat", "faiss-hnsw" or "faiss-ivfpq"; or `{"name": ..., "parameters": {...}}`.
        **parameters: see `FaissSearcher`; before those of the dictionary.

    Raises:
        ImportError: for a FAISS searcher where FAISS is not installed.
        ValueError: for a searcher or a parameter that there is not.
    """
    if isinstance(searcher, Mapping):
        given = searcher.get("parameters") or {}
        searcher, parameters = searcher.get("name"), {**given, **parameters}
    if searcher == "numpy":
        _check_parameters("numpy", parameters, {})
        return NumpySearcher()
    if not isinstance(searcher, str) or searcher not in FaissSearcher.DEFAULTS:
        raise ValueError(f"There is no searcher {searcher!r}; choose from numpy, {', '.join(FaissSearcher.DEFAULTS)}.")
    return FaissSearcher(searcher, **parameters)


def _check_parameters(name, parameters, known):
    for parameter, value in parameters.items():
        if parameter not in known:
            has = f"has {', '.join(known)}" if known else "has no parameters"
            raise ValueError(f"The searcher {name} {has}, but got {parameter!r}.")
        check_count(parameter, value)


def _faiss(name):
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f'The searcher {name} needs FAISS; install it with: pip install "rw_keras[faiss]".') from error
    return faiss
