"""A real server process, asked over sockets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from service_process import serving
from small_service import READ, WRITE, pairs

import rw_keras
from rw_keras.retrieval import Index
from rw_keras.service import Client, ServiceError, running

LIMITS = ("--rate", "none", "--body_mib", "2", "--body_seconds", "1.5", "--header_seconds", "1.5", "--header_kib", "8")


@pytest.fixture(scope="module")
def own(shown, keras_made, tmp_path_factory):
    """A copy of the photos and of their index, the model, and tokens."""
    folder = tmp_path_factory.mktemp("process") / "own"
    shutil.copytree(shown / "photos", folder / "photos")
    shutil.copytree(keras_made[0], folder / "index")
    keras_made[1].save(folder / "tiny.keras")
    (folder / "tokens").write_text(f"read {READ}\nwrite {WRITE}\n")
    return folder


@pytest.fixture(scope="module")
def common(own):
    """The arguments of a service of the copy."""
    model = ("--model", own / "tiny.keras", "--runtime", "tensorflow", "--photos", own / "photos")
    return (own / "index", *model)


@pytest.fixture(scope="module")
def service(own, common):
    with serving(*common, *LIMITS, "--tokens", own / "tokens") as process:
        yield process


@pytest.fixture
def client(service):
    with Client(service.address, WRITE) as client:
        yield client


def status(answer):
    return int(answer.split(b" ", 2)[1])


def head(service, *lines, token=READ):
    """The head of a request."""
    own = (f"Host: 127.0.0.1:{service.port}", f"Authorization: Bearer {token}")
    return "\r\n".join([lines[0], *own, *lines[1:], "", ""]).encode()


class TestClient:
    @pytest.mark.slow
    def test_search(self, client, keras_index, keras_made, shown, draw, encoded, tmp_path):
        pixels = draw(40, 90, 70)
        (tmp_path / "query.png").write_bytes(encoded(pixels))
        for photo in (tmp_path / "query.png", encoded(pixels)):
            found = pairs(client.search(photo, box=(4, 4, 60, 60), k=5, expand=2))
            expected = keras_index.search_photo(keras_made[1], pixels, (4, 4, 60, 60), k=5, expand=2)
            assert [name for name, _ in found] == [name for name, _ in expected]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-5)
        assert pairs(client.search(name="04.png", k=1))[0][0] == "04.png"
        assert len(client.search(vector=[1] * 12)["hits"]) == 16

    def test_pages(self, client):
        whole = client.search(name="04.png", k=16)
        assert list(client.pages(name="04.png", k=3)) == whole["hits"]

    def test_embed_photos_and_indexes(self, client, shown):
        assert len(client.embed(shown / "photos" / "00.png")["descriptor"]) == 12
        assert client.photo("more/03.jpg") == (shown / "photos" / "more" / "03.jpg").read_bytes()
        assert client.thumbnail("more/03.jpg", 64).startswith(b"\xff\xd8")
        (about,) = client.indexes()
        assert (about["name"], about["photos"], about["can_write"]) == ("index", 16, True)

    def test_put_and_delete(self, client, own, draw, encoded):
        assert client.put("put/a.png", encoded(draw(81))) is False
        assert client.put("put/a.png", encoded(draw(82))) is True
        assert pairs(client.search(encoded(draw(82)), k=1))[0][0] == "put/a.png"
        client.delete("put/a.png")
        with pytest.raises(ServiceError) as caught:
            client.delete("put/a.png")
        assert (caught.value.status, str(caught.value)) == (404, "There is no such photo in the index.")
        assert "put/a.png" not in Index.load(own / "index").names

    def test_errors(self, service, client):
        with pytest.raises(ServiceError, match="what to search for") as caught:
            client.search()
        assert (caught.value.status, caught.value.problem["title"]) == (422, "Unprocessable Entity")
        with Client(service.address) as stranger, pytest.raises(ServiceError, match="takes a token"):
            stranger.indexes()
        with Client("http://127.0.0.1:9") as nobody, pytest.raises(ServiceError, match="could not be asked") as caught:
            nobody.indexes()
        assert caught.value.status is None


class TestConnections:
    @pytest.mark.slow
    def test_a_body_that_is_too_large_is_refused_while_it_is_sent(self, service):
        """In chunks, so that nobody knows its length; the answer comes though there is no end of it."""
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        start = head(service, "POST /v1/search HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked")
        answer = service.raw(start, more=[chunk] * 40)
        assert status(answer) == 413
        assert b"application/problem+json" in answer

    @pytest.mark.slow
    def test_a_length_that_is_too_large(self, service):
        start = head(service, "POST /v1/search HTTP/1.1", "Content-Type: application/json", "Content-Length: 99999999")
        assert status(service.raw(start)) == 413
        waiting = head(service, "POST /v1/search HTTP/1.1", "Content-Length: 99999999", "Expect: 100-continue")
        assert status(service.raw(waiting)) == 413

    @pytest.mark.slow
    def test_a_slow_body(self, service):
        start = head(service, "POST /v1/search HTTP/1.1", "Content-Type: application/json", "Content-Length: 100")
        began = time.monotonic()
        answer = service.raw(start, more=[b"{", 0.5, b" ", 0.5, b" "])
        assert status(answer) == 408
        assert time.monotonic() - began < 6

    @pytest.mark.slow
    @pytest.mark.parametrize("sent", [b"", b"GET /v1/ind", b"GET / HTTP/1.1\r\nHost: a\r\n"])
    def test_slow_headers(self, service, sent):
        began = time.monotonic()
        answer = service.raw(sent)
        assert status(answer) == 408
        assert time.monotonic() - began < 5

    @pytest.mark.slow
    def test_a_slow_second_request(self, service):
        first = head(service, "GET /v2/health/live HTTP/1.1")
        answer = service.raw(first, more=[0.2, b"GET / HT"])
        assert status(answer) == 200
        assert b" 408 " in answer

    def test_large_headers(self, service):
        answer = service.raw(head(service, "GET / HTTP/1.1", *[f"X-{number}: {'y' * 1000}" for number in range(20)]))
        assert status(answer) == 431
        assert b"application/problem+json" in answer

    @pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"\0" * 100])
    def test_no_request(self, service, sent):
        answer = service.raw(sent + b"\r\n\r\n")
        assert status(answer) == 400
        assert b"application/problem+json" in answer

    def test_another_host(self, service):
        assert status(service.raw(b"GET /v1/indexes HTTP/1.1\r\nHost: evil.example\r\n\r\n", closes=False)) == 421
        assert status(service.raw(b"GET /v1/indexes HTTP/1.1\r\n\r\n", closes=False)) in (400, 421)

    def test_a_cut_connection(self, service, client):
        start = head(service, "POST /v1/search HTTP/1.1", "Content-Type: application/json", "Content-Length: 1000")
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(start + b"{")
        assert client.search(name="00.png", k=1)["hits"][0]["name"] == "00.png"

    def test_websocket(self, service):
        asked = head(service, "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        assert status(service.raw(asked, closes=False)) < 400


def test_no_answer_waits_for_nagles_algorithm():
    """asyncio turns it off for sockets whose protocol is named, and what is accepted has that of what listens."""
    with running._bound("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_kserve_client(service, keras_made, draw, encoded):
    """The public client library, in JSON's place with binary data both ways."""
    http = pytest.importorskip("tritonclient.http")
    from tritonclient.utils import InferenceServerException

    client = http.InferenceServerClient(f"127.0.0.1:{service.port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("index")
    assert client.get_model_metadata("index")["outputs"][0]["shape"] == [-1, 12]
    photos = [draw(70, 64, 48), draw(71, 50, 60)]
    given = http.InferInput("image_bytes", [2], "BYTES")
    given.set_data_from_numpy(np.array([encoded(photo) for photo in photos], object))
    token = {"Authorization": f"Bearer {READ}"}
    for binary in (True, False):
        wanted = [http.InferRequestedOutput("descriptor", binary_data=binary)]
        found = client.infer("index", [given], outputs=wanted, headers=token).as_numpy("descriptor")
        np.testing.assert_allclose(found, rw_keras.describe(keras_made[1], photos, max_side=80), atol=2e-6)
    box = http.InferInput("box", [2, 4], "FP32")
    box.set_data_from_numpy(np.array([[0, 0, 30, 30]] * 2, "float32"))
    found = client.infer("index", [given, box], headers=token).as_numpy("descriptor")
    np.testing.assert_allclose(found, rw_keras.describe(keras_made[1], photos, [(0, 0, 30, 30)] * 2, max_side=80), atol=2e-6)
    with pytest.raises(InferenceServerException, match="token"):
        client.infer("index", [given])
    client.close()


class TestOtherProcesses:
    @pytest.mark.slow
    def test_an_update_is_taken_up(self, service, client, own, draw):
        Image.fromarray(draw(90)).save(own / "photos" / "later.png")
        arguments = ["index", own / "photos", "-o", own / "index", "--model", own / "tiny.keras", "-q"]
        subprocess.run([sys.executable, "-m", "rw_keras", *map(str, arguments)], check=True, capture_output=True)
        until = time.monotonic() + 10
        while client.indexes()[0]["photos"] < 17 and time.monotonic() < until:
            time.sleep(0.1)
        assert client.search(name="later.png", k=1)["hits"][0]["name"] == "later.png"

    @pytest.mark.slow
    def test_what_is_under_way_ends_when_it_stops(self, common, encoded):
        """A photo that takes a second to decode."""
        large = encoded(Image.effect_noise((9000, 9000), 90).convert("RGB"), "BMP")
        with serving(*common, "--body_mib", "300", "--bodies_mib", "400", "--active", "1") as service:
            answers = []

            def ask(photo):
                with Client(service.address) as client:
                    try:
                        answers.append((photo is large, len(client.search(photo)["hits"])))
                    except ServiceError as error:
                        answers.append((photo is large, error.status))

            small = encoded(Image.new("RGB", (50, 50)))
            threads = [threading.Thread(target=ask, args=(photo,)) for photo in (large, small, small)]
            threads[0].start()
            service.wait_for("rw_keras_active_requests", 1)
            threads[1].start()
            threads[2].start()
            service.wait_for("rw_keras_waiting_requests", 2)
            assert service.stop() == 0
            for thread in threads:
                thread.join()
            assert sorted(answers) == [(False, 503), (False, 503), (True, len(Index.load(common[0])))]

    @pytest.mark.slow
    def test_ctrl_c(self, common):
        with serving(*common) as service:
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(30) == 0

    @pytest.mark.slow
    def test_workers_end_with_their_parent(self, common):
        with serving(*common, "--workers", "2") as service:
            service.process.kill()
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.2)
            else:
                pytest.fail("the workers still listen")

    @pytest.mark.slow
    def test_a_worker_that_dies_is_started_again(self, common):
        with serving(*common, "--workers", "2", "--rate", "none") as service:
            before = service.workers()
            os.kill(before[0], signal.SIGKILL)
            until = time.monotonic() + 60
            while len(service.workers()) < 2 or before[0] in service.workers():
                assert time.monotonic() < until
                time.sleep(0.1)
            for _ in range(6):
                with Client(service.address) as client:
                    assert client.search(name="00.png", k=1)["hits"][0]["name"] == "00.png"
            assert service.stop() == 0

    @pytest.mark.slow
    def test_what_was_acknowledged_is_there_after_a_kill(self, common, own, draw, encoded):
        acknowledged, began = {}, threading.Event()
        with serving(*common, "--rate", "none", "--tokens", own / "tokens") as service:

            def put(first):
                with Client(service.address, WRITE) as client:
                    for number in range(first, first + 1000):
                        photo = encoded(draw(1000 + number))
                        try:
                            client.put(f"killed/{number}.png", photo)
                        except ServiceError as error:
                            if error.status == 503:
                                continue
                            return
                        acknowledged[f"killed/{number}.png"] = photo
                        if len(acknowledged) == 10:
                            began.set()

            threads = [threading.Thread(target=put, args=(first,)) for first in (0, 1000)]
            for thread in threads:
                thread.start()
            assert began.wait(120)
            time.sleep(0.37)
            service.process.kill()
            for thread in threads:
                thread.join()
        index = Index.load(common[0])
        assert len(acknowledged) >= 10
        for name, photo in acknowledged.items():
            assert name in index.names
            assert (own / "photos" / name).read_bytes() == photo
        with serving(*common) as service, Client(service.address) as client:
            for name, photo in acknowledged.items():
                assert pairs(client.search(photo, k=1))[0] == (name, pytest.approx(1, abs=1e-4))

    @pytest.mark.slow
    def test_several_workers(self, common, own):
        with serving(*common, "--workers", "2", "--rate", "none", "--tokens", own / "tokens") as service:
            cursors = set()
            for _ in range(12):  # a connection each, so that both workers are asked
                with Client(service.address, WRITE) as client:
                    cursors.add(client.search(name="04.png", k=4)["cursor"])
            for cursor in cursors:
                with Client(service.address, WRITE) as client:
                    assert [hit["rank"] for hit in client.search(cursor=cursor, k=2)["hits"]] == [5, 6]
            measures = service.measures()
            assert measures['rw_keras_requests_total{method="POST",route="/v1/search",status="200"}'] == 12 + len(cursors)
            assert measures['rw_keras_photos{index="index"}'] >= 16
            assert service.stop() == 0
        assert not [line for line in service.errors if "Traceback" in line]


@pytest.mark.slow
@pytest.mark.imagenet
def test_demo(tmp_path):
    """The embedded photos, found from their harder views."""
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    with serving("--demo", environment={"XDG_CACHE_HOME": str(tmp_path)}) as service, Client(service.address) as client:
        (about,) = client.indexes()
        assert (about["name"], about["preset"], about["has_photos"]) == ("demo", "recommended", True)
        for name in ("motorcycle", "temple", "cat"):
            hits = client.search(name=f"{name}.jpg", k=3, explain=True)["hits"]
            assert all(hit["name"].startswith(name) for hit in hits)
        assert service.stop() == 0


def test_warnings_are_in_plain_words_when_absl_has_the_root_logger():
    script = """
import logging
from absl import logging as of_absl
from rw_keras.commands.serve import log_to_stderr
log_to_stderr()
of_absl.use_absl_handler()
log_to_stderr()
for name in ("rw_keras.service.served", "uvicorn.error"):
    logging.getLogger(name).warning("%s says this once", name)
    logging.getLogger(name).info("and not this")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [f"rw-keras: {name} says this once" for name in ("rw_keras.service.served", "uvicorn.error")]
