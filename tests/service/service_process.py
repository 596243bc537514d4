"""`rw-keras serve` as a process of its own."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request


class Process:
    """A running service.

    Attributes:
        address: "http://127.0.0.1:PORT".
        port: the port.
        process: the process.
        errors: what it has written to standard error.
    """

    def __init__(self, process):
        self.process, self.errors = process, []
        self._reading = threading.Thread(target=lambda: self.errors.extend(process.stderr), daemon=True)
        self._reading.start()
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            process.wait(30)
            self._reading.join(5)
            raise AssertionError(f"the service did not begin: {line!r} {''.join(self.errors)}")
        self.line, self.address, self.port = line, found[0], int(found[1])

    def workers(self):
        """The process ids of its workers."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            children = file.read().split()
        return [int(pid) for pid in children if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]

    def stop(self, seconds=30):
        """Ends it by SIGTERM, and gives its exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def measures(self):
        """What /metrics says: name and labels -> value."""
        text = urllib.request.urlopen(f"{self.address}/metrics", timeout=10).read().decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def wait_for(self, name, value, seconds=20):
        """Waits until a measure has a value."""
        until = time.monotonic() + seconds
        while (found := self.measures().get(name)) != value:
            assert time.monotonic() < until, f"{name} is {found}, not {value}"
            time.sleep(0.02)

    def raw(self, content, seconds=10.0, more=(), closes=True):
        """What a connection is answered that sends bytes, then `more`: bytes, or seconds to wait."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(content)
            for part in more:
                if isinstance(part, bytes):
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        connection.sendall(part)
                else:
                    time.sleep(part)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := connection.recv(1 << 16):
                    found += part
                    if not closes and b"\r\n\r\n" in found:
                        break
            return found


@contextlib.contextmanager
def serving(*arguments, environment=None):
    """A process of `rw-keras serve` with these arguments, on a port of its own; killed in the end where it has not ended."""
    command = [sys.executable, "-m", "rw_keras", "serve", "--port", "0", *map(str, arguments)]
    given = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given)
    try:
        yield Process(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
