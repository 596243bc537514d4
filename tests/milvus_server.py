"""A Milvus server that nobody but this machine can reach: python milvus_server.py DATA_FOLDER BIN_FOLDER

The wheel `milvus` carries the standalone server, which listens on all addresses. So it is run in a network namespace of its own,
and a port on the loopback of the usual one leads into it. Prints the port once the server is ready, serves until standard input
ends or SIGTERM comes, and then stops it. What stands on standard input until then are commands: `kill` sends SIGKILL to the server,
`stop` ends it, `start` starts it again, `freeze` and `thaw` hold it and let it go on; each is answered with `done`.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import filelock

# How often the parts of the server look at each other: a Strong read waits for the first, to make a collection for the others.
_SOON = {"proxy.timeTickInterval": 20, "queryCoord.checkInterval": 100, "queryCoord.distPullInterval": 100}
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def alone():
    """Puts this process into a network of its own, with a loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) and libc.unshare(_NEW_USER | _NEW_NETWORK):
        sys.exit(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        up = struct.pack("16sh", b"lo", 0x1 | 0x8 | 0x40)  # IFF_UP, IFF_LOOPBACK, IFF_RUNNING
        fcntl.ioctl(own, 0x8914, up)  # SIOCSIFFLAGS


class Server:
    """The server of the wheel, over one folder of data; its programs are unpacked into another folder, once."""

    def __init__(self, folder, programs):
        import milvus

        self.folder = pathlib.Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        pathlib.Path(programs).mkdir(parents=True, exist_ok=True)
        if not (self.folder / "bin").exists():
            (self.folder / "bin").symlink_to(pathlib.Path(programs).resolve())
        config = milvus.MilvusServerConfig()
        config.configs.update(data_dir=str(self.folder))
        for setting, milliseconds in _SOON.items():
            config.set(setting, milliseconds)
        self._server = milvus.MilvusServer(config, wait_for_started=False)
        self._server.show_startup_banner = False

    @property
    def port(self):
        """Another one after a start, where connections of the last one are not forgotten yet."""
        return self._server.config.get("proxy_port")

    @property
    def process(self):
        return self._server.server_proc

    def start(self):
        for _ in range(3):  # one that was just stopped may still be registered with its etcd, and ends another that begins
            with filelock.FileLock(f"{(self.folder / 'bin').resolve()}.lock"):  # whoever is first unpacks
                self._server.start()
            if self._is_ready():
                return
            time.sleep(3)
        sys.exit(f"the server ended with {self.process.returncode}; see {self.folder}/logs")

    def _is_ready(self):
        address = f"http://127.0.0.1:{self._server.webservice_port}/healthz"
        deadline = time.monotonic() + 120
        while self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return True
            if time.monotonic() > deadline:
                sys.exit("the server was not ready after two minutes")
            time.sleep(0.2)
        return False

    def end(self, number):
        if self.process is None:
            return
        self.process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def relay(listening, server):
    """Leads every connection to the server's port."""
    while True:
        outer, _ = listening.accept()
        try:
            inner = socket.create_connection(("127.0.0.1", server.port), 5)
        except OSError:
            outer.close()
            continue
        inner.settimeout(None)
        for one, other in (outer, inner), (inner, outer):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=pump, args=(one, other), daemon=True).start()


def pump(one, other):
    with contextlib.suppress(OSError):
        while content := one.recv(1 << 18):
            other.sendall(content)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main(folder, programs):
    listening = socket.create_server(("127.0.0.1", 0))  # of the usual network, which it stays a part of
    alone()
    server = Server(folder, programs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.start()
        threading.Thread(target=relay, args=(listening, server), daemon=True).start()
        print(listening.getsockname()[1], flush=True)
        for line in sys.stdin:
            command = line.strip()
            if command == "start":
                server.start()
            else:
                numbers = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
                server.end(numbers[command])
            print("done", flush=True)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end(signal.SIGKILL)  # its data goes, too


if __name__ == "__main__":
    main(*sys.argv[1:])
