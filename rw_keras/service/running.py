"""Server processes: one that serves, or several that share a port, and how they end."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import uvicorn

from rw_keras.service.metrics import FOLDER_VARIABLE
from rw_keras.service.protocol import bounded
from rw_keras.service.settings import Settings

log = logging.getLogger(__name__)

# What a worker ends with that could not begin: it would not the next time either.
_NOT_BEGUN = 3
# Seconds between two looks at the workers.
_LOOK = 0.5
_BACKLOG = 512

MakeApp = Callable[[str | None], Any]


class _Server(uvicorn.Server):
    """uvicorn's server, which tells the application at once that it is to stop, and ends with 0 then.

    Args:
        config: uvicorn's.
        started: is called once requests are taken.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    @contextlib.contextmanager
    def capture_signals(self):
        earlier = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def handle_exit(self, sig, frame):
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True  # Ctrl-C again
        self.should_exit = True

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started:
            self._tell_started()

    async def shutdown(self, sockets=None):
        self.config.loaded_app.state.stop()
        await super().shutdown(sockets)


def run(make_app: MakeApp, settings: Settings, host: str, port: int, workers: int, announce: Callable[[str], None]) -> int:
    """Serves until the process is told to stop by SIGTERM or SIGINT.

    Requests in flight end then, those that wait are answered 503, and so is whoever still asks on an open connection.

    Args:
        make_app: makes the application, loaded and warm; its argument is the folder that worker processes share, `None` for one
            process. With several workers it is called in each, and has to be one that can be pickled.
        settings: the limits.
        host, port: where to listen; port 0: any that is free.
        workers: processes.
        announce: is called with the address once requests are taken, by all workers.

    Returns:
        The exit status: 0, or 1 where a worker could not begin.

    Raises:
        OSError: when the port is taken.
    """
    with _bound(host, port) as listening:
        found = listening.getsockname()
        shown = f"[{found[0]}]" if ":" in found[0] else found[0]
        address = f"http://{shown}:{found[1]}"
        if workers == 1:
            _serve(make_app(None), settings, listening, lambda: announce(address))
            return 0
        return _supervise(make_app, settings, listening, workers, lambda: announce(address))


def _bound(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of a socket whose protocol is not named asyncio does not turn Nagle's algorithm off, and each answer waits 40 ms for it.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from None
    listening.set_inheritable(True)
    return listening


def _serve(app, settings, listening, started):
    config = uvicorn.Config(
        app,
        http=bounded(settings.header_seconds, settings.connections),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.stop_seconds) or 1,
        h11_max_incomplete_event_size=int(settings.header_kib * 1024),
        proxy_headers=False,
    )
    _Server(config, started).run([listening])


def _work(make_app, settings, listening, folder, sending):
    """What a worker process does."""
    try:
        app = make_app(folder)
    except (ValueError, OSError, ImportError) as error:
        print(f"rw-keras: {error}", file=sys.stderr)
        sys.exit(_NOT_BEGUN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _serve(app, settings, listening, lambda: sending.send(os.getpid()))


def _end_with_parent():
    """A worker whose parent was killed would hold its port for ever."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _supervise(make_app, settings, listening, workers, announce):
    """Starts worker processes, restarts one that has died, and ends them all."""
    stopping: list[int] = []
    earlier = {number: signal.signal(number, lambda number, frame: stopping.append(number)) for number in _SIGNALS}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rw_keras_service_"))
    for part in ("rankings", "metrics"):
        (folder / part).mkdir()
    os.environ[FOLDER_VARIABLE] = str(folder / "metrics")
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not outlive a fork

    def start():
        receiving, sending = context.Pipe(duplex=False)
        arguments = (make_app, settings, listening, str(folder / "rankings"), sending)
        process = context.Process(target=_work, args=arguments, daemon=False)
        process.start()
        sending.close()
        return process, receiving

    try:
        running = [start() for _ in range(workers)]
        ready: set[int] = set()
        while not stopping:
            connection.wait([process.sentinel for process, _ in running], _LOOK)
            for number, (process, receiving) in enumerate(running):
                if process.exitcode == _NOT_BEGUN or (process.exitcode is not None and process.pid not in ready):
                    return 1
                if process.exitcode is not None and not stopping:
                    log.warning("The worker %d has died with %d; another one takes its place.", process.pid, process.exitcode)
                    running[number] = start()
                elif process.pid not in ready and receiving.poll():
                    with contextlib.suppress(EOFError):  # it has just died, which the next look sees
                        ready.add(receiving.recv())
                        if len(ready) == workers:
                            announce()
        return 0
    finally:
        _end([process for process, _ in running], settings.stop_seconds)
        for number, handler in earlier.items():
            signal.signal(number, handler)
        os.environ.pop(FOLDER_VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _end(processes, seconds):
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    until = time.monotonic() + seconds + 5
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
