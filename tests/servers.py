"""Real servers on loopback that can be told to fail: S3, of moto, and a web server."""

import contextlib
import functools
import http.server
import secrets
import threading
import time

import pytest


class Faults:
    """A WSGI application before another one: does to the next requests what was planned for them.

    Attributes:
        seen: (method, path with query) of all requests, in order.
        before: called with (method, path) before each request goes on.
    """

    def __init__(self, application):
        self._application, self._planned, self.seen = application, [], []
        self._lock = threading.Lock()
        self.before = lambda method, path: None

    def plan(self, what, times=1, path="", method=""):
        """Lets `times` requests whose path holds `path` fail: `what` is a status, "cut", or seconds to wait before the answer."""
        self._planned.append([what, times, path, method])

    def _next(self, method, path):
        with self._lock:
            for plan in self._planned:
                if plan[1] > 0 and plan[2] in path and plan[3] in method:
                    plan[1] -= 1
                    return plan[0]
        return None

    def __call__(self, environ, start_response):
        query = environ.get("QUERY_STRING")
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"] + (f"?{query}" if query else "")
        self.seen.append((method, path))
        self.before(method, path)
        fault = self._next(method, path)
        if isinstance(fault, int):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} Planned", [("Content-Length", "0")])
            return [b""]
        if isinstance(fault, float):
            time.sleep(fault)
        answer = self._application(environ, start_response)
        if fault == "cut":
            content = b"".join(answer)
            return [content[: len(content) // 2]]  # of as many bytes as the head has announced
        return answer


@contextlib.contextmanager
def serving(application):
    """Serves a WSGI application on a free port of this machine; gives its URL."""
    serving = pytest.importorskip("werkzeug.serving", reason="a server for tests: pip install moto[server]")

    class Quiet(serving.WSGIRequestHandler):
        def log(self, *arguments):
            pass

    server = serving.make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def s3_server():
    """An S3 server; gives its URL and its `Faults`."""
    pytest.importorskip("moto", reason="an S3 server for tests: pip install moto[server]")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    faults = Faults(DomainDispatcherApplication(create_backend_app))
    with serving(faults) as url:
        yield url, faults


@contextlib.contextmanager
def web_server(folder):
    """Python's own web server over a folder, which sends whole files alone; gives its URL and a list of (method, path)."""
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            seen.append((self.command, self.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def web_server_of_parts(folder):
    """A web server over a folder that sends parts of files where it is asked for them; gives its URL and its `Faults`."""
    from werkzeug.exceptions import HTTPException
    from werkzeug.utils import send_from_directory

    def application(environ, start_response):
        try:
            answer = send_from_directory(str(folder), environ["PATH_INFO"].lstrip("/").encode("latin1").decode(), environ)
        except HTTPException as error:
            answer = error.get_response(environ)
        return answer(environ, start_response)

    faults = Faults(application)
    with serving(faults) as url:
        yield url, faults


@pytest.fixture(scope="module", name="s3")
def s3_of_module():
    """An S3 server for a module's tests, as `Storage`."""
    pytest.importorskip("s3fs", reason='object storage: pip install "rw_keras[cloud]"')
    with s3_server() as (url, faults), pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        yield Storage(s3fs.S3FileSystem(), faults)
        s3fs.S3FileSystem.clear_instance_cache()


class Storage:
    """An S3 server, its client, and its faults."""

    def __init__(self, files, faults):
        self.files, self.faults = files, faults

    def bucket(self):
        """A new bucket; its name."""
        name = f"bucket-{secrets.token_hex(4)}"  # moto keeps those of other modules
        self.files.mkdir(name)
        return name

    def put(self, folder, url):
        """Uploads the files below a folder; they come below the URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.files.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
