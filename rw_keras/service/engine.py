"""What computes: a bounded queue before it, a pool that decodes, one thread for the network, one that searches."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.photos.reading import Box, ImageError, read_image, upright_size
from rw_keras.retrieval.segments import DamageError
from rw_keras.runtimes import Describer
from rw_keras.service import finding
from rw_keras.service.batches import Batches, Done
from rw_keras.service.gate import Gate
from rw_keras.service.metrics import STAGES, Metrics
from rw_keras.service.problems import ProblemError, later
from rw_keras.service.served import State
from rw_keras.service.settings import Settings

T = TypeVar("T")
# Queries that are searched together: their region vectors and cosines are held at once.
_SEARCHED_TOGETHER = 16
# Requests for files that wait, for each that may wait for a search: a page asks for a screen of thumbnails at once.
_FILES = 8


class Took:
    """The seconds that a request takes, by stage: what no other stage took, it has waited."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages = dict.fromkeys(STAGES[1:-1], 0.0)

    def add(self, stage: str, seconds: float) -> None:
        self._stages[stage] += seconds

    def until_now(self) -> dict[str, float]:
        """Stage -> seconds, `whole` among them."""
        whole = time.perf_counter() - self._began
        return {"queue": max(0.0, whole - sum(self._stages.values())), **self._stages, "whole": whole}


class Upload(io.BytesIO):
    """The bytes of a photo, with what messages call it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


class _Network(NamedTuple):
    describer: Describer
    regions: bool
    shape: tuple[int, ...]


class _Search(NamedTuple):
    state: State
    options: finding.Options


@dataclasses.dataclass(frozen=True)
class Described:
    """A photo described: its descriptor `(D,)`, and its region vectors where they were asked for."""

    descriptor: np.ndarray
    regions: PhotoRegions | None


class Engine:
    """Computes for requests, within the limits of `settings`.

    Attributes:
        gate: the queue.
    """

    def __init__(self, settings: Settings, metrics: Metrics, network_threads: int = 1) -> None:
        self._settings, self._metrics = settings, metrics
        self.gate = Gate(settings.active, settings.queue)
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        # Pages of thumbnails do not stand in the way of searches.
        self._files, self._files_gate = (
            ThreadPoolExecutor(settings.decoders, "files"),
            Gate(settings.decoders, _FILES * settings.queue),
        )
        self._network = Batches(_run_network, _photos_at_once, "network", network_threads)
        self._searches = Batches(_run_search, lambda key: _SEARCHED_TOGETHER, "search")
        for measure in (metrics.queue, metrics.active):
            measure.set(0)

    @contextlib.asynccontextmanager
    async def admitted(self) -> AsyncIterator[Took]:
        """Waits for its turn; what is done within has the time limit, which the wait counts to.

        Raises:
            ProblemError: 429 and 503 as `Gate.entered`, and 504.
        """
        took = Took()
        try:
            async with asyncio.timeout(self._settings.seconds):
                self._metrics.queue.inc()
                try:
                    await self.gate.enter()
                finally:
                    self._metrics.queue.dec()
                self._metrics.active.inc()
                try:
                    yield took
                finally:
                    self._metrics.active.dec()
                    self.gate.leave()
        except TimeoutError:
            raise _took_long(self._settings) from None
        for stage, seconds in took.until_now().items():
            self._metrics.stages.labels(stage).observe(seconds)

    async def in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function gives, called in the pool that decodes."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def with_files(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function of files gives, called by a thread for such.

        Raises:
            ProblemError: 429 when too many wait, and 504.
        """
        try:
            async with asyncio.timeout(self._settings.seconds):
                await self._files_gate.enter()
                try:
                    return await asyncio.get_running_loop().run_in_executor(self._files, function, *arguments)
                finally:
                    self._files_gate.leave()
        except TimeoutError:
            raise _took_long(self._settings) from None

    async def decode(self, took: Took, photo: Upload, box: Box | None, max_side: int | None, min_side: int) -> np.ndarray:
        """The pixels `(H, W, 3)` uint8 of a photo, or a box of it.

        Raises:
            ProblemError: 422 when it is none that can be decoded, or the box does not lie in it.
        """

        def read():
            began = time.perf_counter()
            self.check_pixels(photo)
            return read_image(photo, box, max_side, min_side), time.perf_counter() - began

        try:
            pixels, seconds = await self.in_pool(read)
        except ImageError as error:
            raise ProblemError(422, f"{error}") from None
        took.add("decode", seconds)
        return pixels

    def check_pixels(self, photo: Upload) -> None:
        """Refuses a photo of too many pixels, before any is decoded.

        Raises:
            ProblemError: 422 for it.
            ImageError: when it is none that can be read.
        """
        width, height = upright_size(photo)
        photo.seek(0)
        if width * height > self._settings.megapixels * 1e6:
            words = f"{photo.name} is {width} x {height} pixels, and a photo has at most {self._settings.megapixels:g} million here"
            raise ProblemError(422, f"{words}; send a smaller one.")

    async def describe(self, took: Took, describer: Describer, pixels: np.ndarray, regions: bool) -> Described:
        """What the network makes of pixels `(H, W, 3)`.

        Raises:
            ProblemError: 503 when the network is computed elsewhere, and cannot be asked.
        """
        try:
            done = await _asked(self._network.submit(_Network(describer, regions, pixels.shape), pixels))
        except OSError:
            raise later(503, "What computes the network cannot be asked now; ask again in a moment.", 5) from None
        self._told(took, "network", done)
        return done.value

    async def search(self, took: Took, state: State, options: finding.Options, query: finding.Query) -> finding.Found:
        """The ranking of a query.

        Raises:
            ProblemError: 503 when the index is damaged.
        """
        try:
            done = await _asked(self._searches.submit(_Search(state, options), query))
        except DamageError:
            raise later(503, "The index is damaged on the disk; `rw-keras check` says where.", 60) from None
        self._told(took, "search", done)
        return done.value

    def _told(self, took, stage, done):
        took.add(stage, done.seconds)
        self._metrics.together.labels(stage).observe(done.together)

    def through(self, describer: Describer) -> Describer:
        """A describer for other threads, which computes in the thread of the network."""

        def function(pixels, regions=False):
            found = [self._network.submit(_Network(describer, regions, photo.shape), photo) for photo in pixels]
            described = [future.result().value for future in found]
            descriptors = np.stack([one.descriptor for one in described])
            if not regions:
                return descriptors
            return descriptors, np.stack([one.regions.vectors for one in described]), described[0].regions.boxes

        return dataclasses.replace(describer, function=function)

    def stop(self) -> None:
        """Lets nobody in any more; see `Gate.close`."""
        self.gate.close()

    def close(self) -> None:
        """Ends the threads, after what they have begun."""
        self._decoders.shutdown(cancel_futures=True)
        self._files.shutdown(cancel_futures=True)
        self._network.close()
        self._searches.close()


def _took_long(settings):
    return ProblemError(504, f"This took longer than {settings.seconds:g} seconds; ask again when less is going on.")


async def _asked(future) -> Done:
    return await asyncio.wrap_future(future)


def _photos_at_once(key: _Network) -> int:
    batch, (height, width, _) = key.describer.batch_pixels, key.shape
    return 1 if batch is None else max(1, batch // (height * width))


def _run_network(key: _Network, pixels: list[np.ndarray]) -> list[Described]:
    if not key.regions:
        return [Described(descriptor, None) for descriptor in key.describer(np.stack(pixels))]
    descriptors, vectors, boxes = key.describer.with_regions(np.stack(pixels))
    return [Described(descriptor, PhotoRegions(own, boxes)) for descriptor, own in zip(descriptors, vectors)]


def _run_search(key: _Search, queries: list[finding.Query]) -> list[finding.Found]:
    return finding.find(key.state, key.options, queries)
