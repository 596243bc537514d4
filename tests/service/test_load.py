"""32 clients for a minute: good photos among broken ones, bombs, slow senders, cut connections, path tricks and wrong tokens."""

import base64
import collections
import io
import json
import os
import random
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image
from service_process import serving
from small_service import READ, WRITE

pytestmark = pytest.mark.slow

CLIENTS, SECONDS = 32, float(os.environ.get("RW_KERAS_LOAD_SECONDS", "60"))
# What the service may take beyond what it has once it is warm: the bodies that it holds (64 MiB here), twice, since JSON is parsed
# from them, what photos take that are decoded, and what allocators keep.
MOST_MIB = 600
HEAD = (
    f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\nContent-Type: application/json\r\n"
).encode()


class Client:
    """A client, which does one thing after the other and counts what it is answered."""

    def __init__(self, service, photos, expected, seed):
        self.service, self.photos, self.expected = service, photos, expected
        self.random, self.counts, self.wrong = random.Random(seed), collections.Counter(), []

    def run(self, until):
        while time.monotonic() < until:
            kind = self.random.choices(list(KINDS), [KINDS[kind] for kind in KINDS])[0]
            try:
                status = getattr(self, kind)()
            except (TimeoutError, ConnectionError, urllib.error.URLError) as error:
                status = type(error).__name__
            self.counts[kind, status] += 1

    def ask(self, method, path, body=None, headers=None, token=READ):
        own = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.service.address + path, body, {**own, **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            content = error.read()
            if error.headers["Content-Type"] != "application/problem+json" or b"Traceback" in content or b"/tmp" in content:
                self.wrong.append((method, path, error.code, content[:300]))
            return error.code, content

    def search(self, **fields):
        return self.ask("POST", "/v1/search", json.dumps(fields).encode(), {"Content-Type": "application/json"})

    def good(self):
        number = self.random.randrange(len(self.photos))
        status, content = self.search(image=base64.b64encode(self.photos[number]).decode(), k=5)
        if status == 200:
            hits = [(hit["name"], hit["cosine"]) for hit in json.loads(content)["hits"]]
            expected = self.expected[number]
            # By cosines, since two of nearly the same may change places where photos are described together.
            cosines = dict(expected)
            own = all(abs(value - cosines[name]) < 1e-4 for name, value in hits)
            ordered = all(abs(value - least) < 1e-4 for (_, value), (_, least) in zip(hits, expected))
            if len({name for name, _ in hits}) != 5 or not own or not ordered:
                self.wrong.append((number, hits, expected))
        return status

    def good_form(self):
        photo, boundary = self.random.choice(self.photos), "b0undary"
        body = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode()
        body += photo + f"\r\n--{boundary}--\r\n".encode()
        return self.ask("POST", "/v1/search", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})[0]

    def paged(self):
        status, content = self.search(name="00.png", k=3)
        while status == 200 and (cursor := json.loads(content)["cursor"]) is not None:
            status, content = self.search(cursor=cursor, k=5)
        return status

    def seen(self):
        return self.ask("GET", self.random.choice(["/v1/photos/00.png", "/v1/photos/01.png/thumbnail", "/v1/indexes", "/metrics"]))[
            0
        ]

    def broken(self):
        photo = bytearray(self.random.choice(self.photos))
        place = self.random.randrange(100, len(photo))
        cut = bytes(photo[:place]) if self.random.random() < 0.5 else bytes(photo[:20]) + self.random.randbytes(500)
        return self.search(image=base64.b64encode(cut).decode())[0]

    def bomb(self):
        return self.search(image=BOMB)[0]

    def huge_box(self):
        corner = self.random.choice([1e300, -1e300, 1e9, 2**63])
        return self.search(name="00.png", box=[0, 0, corner, corner])[0]

    def path_trick(self):
        tricks = ("..%2F..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "....//....//etc/passwd", "%00", "%c0%ae%c0%ae/x", "a" * 3000)
        return self.ask("GET", f"/v1/photos/{self.random.choice(tricks)}")[0]

    def wrong_token(self):
        method, path = self.random.choice([("GET", "/v1/indexes"), ("PUT", "/v1/photos/x.png"), ("DELETE", "/v1/photos/00.png")])
        return self.ask(method, path, b"x" if method == "PUT" else None, token=self.random.choice([None, "wrong", READ[:-1]]))[0]

    def read_token_writes(self):
        return self.ask("DELETE", "/v1/photos/00.png")[0]

    def too_large(self):
        return self.ask("POST", "/v1/search", bytes(9 << 20), {"Content-Type": "application/json"})[0]

    def nonsense(self):
        body = self.random.choice([b"{", b"[" * 50_000, b"\xff\xfe", b'{"vector": [NaN]}', b'{"k": 1e400}', b"null"])
        return self.ask("POST", "/v1/search", body, {"Content-Type": "application/json"})[0]

    def cut(self):
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=10) as connection:
            head = (
                f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(head.encode() + b"Content-Length: 100000\r\n\r\n" + b"x" * self.random.randrange(1000))
        return "cut"

    def gone(self):
        """It asks, and does not wait for the answer."""
        body = json.dumps({"image": base64.b64encode(self.photos[0]).decode()}).encode()
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=10) as connection:
            head = (
                f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return "gone"

    def slow(self):
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=20) as connection:
            sent = self.random.choice([b"GET / HT", b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"])
            connection.sendall(sent)
            content = connection.recv(4096)
        return int(content.split(b" ", 2)[1]) if content else "closed"


# How often each is done.
KINDS = {
    "good": 30,
    "good_form": 8,
    "paged": 4,
    "seen": 8,
    "broken": 8,
    "bomb": 4,
    "huge_box": 4,
    "path_trick": 4,
    "wrong_token": 4,
}
KINDS |= {"read_token_writes": 2, "too_large": 2, "nonsense": 4, "cut": 4, "gone": 3, "slow": 2}
GOOD, BUSY = {"good", "good_form", "paged", "seen"}, {429, 503, 504}
# What each of the others may be answered.
ANSWERS = {
    "broken": {422},
    "bomb": {422},
    "huge_box": {422},
    "path_trick": {404},
    "wrong_token": {401},
    "read_token_writes": {403},
    "too_large": {413, "URLError", "ConnectionResetError", "BrokenPipeError"},
    "nonsense": {400, 422},
    "cut": {"cut"},
    "gone": {"gone"},
    "slow": {408, 401},
}


def _bomb():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


BOMB = _bomb()


def rss(pid):
    """The resident memory of a process in MiB, and its peak."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]


def test_a_minute_of_everything(keras_made, shown, keras_index, draw, encoded, tmp_path):
    shutil.copytree(shown / "photos", tmp_path / "own" / "photos")
    shutil.copytree(keras_made[0], tmp_path / "own" / "index")
    keras_made[1].save(tmp_path / "tiny.keras")
    (tmp_path / "tokens").write_text(f"read {READ}\nwrite {WRITE}\n")
    pixels = [draw(seed, 300 + 40 * (seed % 3), 240) for seed in range(200, 212)]
    photos = [encoded(photo, "PNG") for photo in pixels]
    expected = [keras_index.search_photo(keras_made[1], photo, k=16) for photo in pixels]
    arguments = (tmp_path / "own" / "index", "--model", tmp_path / "tiny.keras", "--photos", tmp_path / "own" / "photos")
    limits = ("--rate", "none", "--body_mib", "8", "--bodies_mib", "64", "--body_seconds", "3", "--header_seconds", "3")
    with serving(*arguments, *limits, "--runtime", "tensorflow", "--tokens", tmp_path / "tokens") as service:
        clients = [Client(service, photos, expected, seed) for seed in range(CLIENTS)]
        clients[0].good()
        before = rss(service.process.pid)[0]
        until = time.monotonic() + SECONDS
        threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = rss(service.process.pid)[1] - before
        assert service.process.poll() is None
        assert clients[0].ask("GET", "/v2/health/ready")[0] == 200
        counts = sum((client.counts for client in clients), collections.Counter())
        for (kind, status), count in sorted(counts.items(), key=str):
            print(f"{kind:18s} {status!s:10s} {count:6d}")
        print(f"{before:.0f} MiB before, at most {taken:.0f} MiB more")
        assert [wrong for client in clients for wrong in client.wrong] == []
        for (kind, status), count in counts.items():
            assert status in (({200} if kind in GOOD else ANSWERS[kind]) | BUSY), (kind, status, count)
        assert counts["good", 200] > CLIENTS
        assert taken < MOST_MIB
        service.wait_for("rw_keras_waiting_requests", 0)
        service.wait_for("rw_keras_active_requests", 0)
        assert service.stop() == 0
        assert "Traceback" not in "".join(service.errors)
