"""What examples/serve and the Dockerfile say of the service is true of it: flags, routes, ports, folders and times."""

import configparser
import contextlib
import http.server
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

import pytest
import uvicorn
from small_service import READ, pairs

from rw_keras.commands import serve as serve_command
from rw_keras.commands.parser import Parser, UsageError
from rw_keras.service import Settings, create_app
from rw_keras.service.served import ServedIndex

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serve"
PORT = 8000
# What workers are waited for beside --stop_seconds, until they are killed.
LEAVE = 5


def yaml_of(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the files, and is not installed")
    return list(yaml.safe_load_all(path.read_text("utf8")))


def parsed(words):
    """The flags of a command line, as the command itself reads them."""
    program, *arguments = words
    assert program == "serve"
    parser = Parser(prog="rw-keras serve")
    serve_command.define(parser)
    return parser.parse_args(arguments)


def seconds(text):
    """Seconds of such as 40s, or 2m."""
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


class Unit:
    """A systemd unit: section -> directive -> its values."""

    def __init__(self, path):
        self._parser = configparser.RawConfigParser(strict=False, interpolation=None)
        self._parser.optionxform = str
        # A directive that is given twice adds to the first, which configparser does not know.
        lines, seen = [], {}
        for line in path.read_text("utf8").replace("\\\n", " ").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                seen[name] = seen.get(name, 0) + 1
                line = f"{name}#{seen[name]}={value}"
            lines.append(line)
        self._parser.read_string("\n".join(lines))

    def all(self, name, section="Service"):
        return [value for key, value in self._parser[section].items() if key.partition("#")[0] == name]

    def __getitem__(self, name):
        (value,) = self.all(name)
        return value


class Dockerfile:
    """The instructions of the last stage, and what every stage copies."""

    def __init__(self, path):
        text = re.sub(r"^\s*#.*\n", "", path.read_text("utf8"), flags=re.MULTILINE).replace("\\\n", " ")
        self.all = [line.strip().split(None, 1) for line in text.splitlines() if line.strip()]
        start = max(number for number, (name, _) in enumerate(self.all) if name == "FROM")
        self.last = self.all[start:]

    def __getitem__(self, name):
        (value,) = [value for found, value in self.last if found == name]
        return value

    @property
    def environment(self):
        return dict(pair.split("=", 1) for name, value in self.last if name == "ENV" for pair in shlex.split(value))

    @property
    def health_check(self):
        flags, command = self["HEALTHCHECK"].split("CMD", 1)
        return flags.split(), json.loads(command)


@pytest.fixture(scope="module")
def image():
    return Dockerfile(ROOT / "Dockerfile")


@pytest.fixture(scope="module")
def compose():
    (found,) = yaml_of(EXAMPLES / "docker-compose.service.yml")
    return found["services"]


@pytest.fixture(scope="module")
def kubernetes():
    """Kind -> the object."""
    return {found["kind"]: found for found in yaml_of(EXAMPLES / "kubernetes.yml")}


@pytest.fixture(scope="module")
def pod(kubernetes):
    return kubernetes["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def unit():
    return Unit(EXAMPLES / "rw-keras.service")


@pytest.fixture(scope="module")
def kserve():
    """Name -> the predictor of an InferenceService."""
    found = yaml_of(EXAMPLES / "kserve.yml")
    assert {(one["apiVersion"], one["kind"]) for one in found} == {("serving.kserve.io/v1beta1", "InferenceService")}
    return {one["metadata"]["name"]: one["spec"]["predictor"] for one in found}


WHERE = ("compose", "kubernetes", "kserve", "systemd")


@pytest.fixture(params=WHERE)
def words(request):
    """The command line of each way to run the service, as it is once variables have their values."""
    if request.param == "compose":
        return request.getfixturevalue("compose")["search"]["command"]
    if request.param in ("kubernetes", "kserve"):
        pod = request.getfixturevalue("pod") if request.param == "kubernetes" else request.getfixturevalue("kserve")["rw-keras"]
        (container,) = pod["containers"]
        given = {entry["name"]: f"value-of-{entry['name']}" for entry in container["env"]}
        return [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in container["args"]]
    return shlex.split(request.getfixturevalue("unit")["ExecStart"])[1:]


class TestFlags:
    def test_the_command_takes_them(self, words, tmp_path):
        """All that is checked before there is an index: each flag, its value, the tokens, and who may ask from where."""
        values = parsed(words)
        assert values.arguments and values.photos and values.tokens
        (tmp_path / "tokens").write_text(f"read {READ}\n")
        values.tokens, values.arguments = tmp_path / "tokens", [str(tmp_path / "no_index")]
        with pytest.raises(FileNotFoundError, match="There is no index"):
            serve_command.run(values)

    def test_other_machines_need_a_token(self, words, monkeypatch):
        monkeypatch.delenv("RW_KERAS_READ_TOKEN", raising=False)
        monkeypatch.delenv("RW_KERAS_WRITE_TOKEN", raising=False)
        values = parsed(words)
        if values.host != "0.0.0.0":
            assert values.host == "127.0.0.1"
            return
        values.tokens = None
        with pytest.raises(UsageError, match="there is no token"):
            serve_command.run(values)
        assert values.allowed_hosts and "*" not in values.allowed_hosts

    def test_a_flag_that_there_is_not_is_found(self):
        with pytest.raises(UsageError, match="no flag --stop_second"):
            parsed(["serve", "my_photos", "--stop_second=30"])

    def test_documented_ones(self):
        """Lines of the documents that start the service, with those of the Dockerfile."""
        found = []
        for path in (ROOT / "docs" / "service.md", EXAMPLES / "README.md"):
            text = path.read_text("utf8").replace("\\\n", " ")
            for line in re.findall(r"^(?:rw-keras|docker run .*? rw-keras) (serve .*)$", text, re.MULTILINE):
                found.append(parsed(shlex.split(line, comments=True)))
        assert len(found) >= 5
        assert any(values.host == "0.0.0.0" for values in found)


class TestDockerfile:
    def test_what_it_copies_is_there_and_not_ignored(self, image):
        ignored = [line for line in (ROOT / ".dockerignore").read_text("utf8").splitlines() if line and line[0] != "#"]
        assert ignored[0] == "*"
        copied = {word for name, value in image.all if name == "COPY" and "--from" not in value for word in value.split()[:-1]}
        assert copied == {line[1:] for line in ignored if line.startswith("!")}
        assert all((ROOT / name).exists() for name in copied)
        setup = (ROOT / "setup.cfg").read_text("utf8")
        needed = re.findall(r"(?:file:|license_files =) *(.*)", setup)
        assert {name.strip() for line in needed for name in line.split(",")} <= copied
        assert [line for line in ignored[1:] if not line.startswith("!")] == ["**/__pycache__"]

    def test_extras(self, image):
        (extras,) = [re.search(r'"\.\[(.*)\]"', value)[1] for name, value in image.all if "pip install" in value]
        setup = (ROOT / "setup.cfg").read_text("utf8")
        assert extras.split(",") == ["serve", "ncnn"]
        assert all(re.search(rf"^{extra} =$", setup, re.MULTILINE) for extra in extras.split(","))

    def test_nothing_is_built_in_the_last_stage(self, image):
        assert not any(tool in value for name, value in image.last if name == "RUN" for tool in ("pip", "apt", "gcc"))
        assert len({value.split()[0] for name, value in image.all if name == "FROM"}) == 1  # so that the environment fits

    def test_user(self, image):
        user = image["USER"]
        assert re.fullmatch(r"10001:10001", user)
        run = image["RUN"]
        assert "--uid 10001" in run and "--gid 10001" in run
        assert image.last.index(["USER", user]) > [name for name, _ in image.last].index("COPY")

    def test_port(self, image):
        assert int(image["EXPOSE"]) == PORT == parsed(["serve", "my_photos"]).port

    @pytest.mark.parametrize("where", ["image", "compose"])
    @pytest.mark.parametrize(("status", "good"), [(200, True), (503, False), (404, False)])
    def test_health_check(self, where, status, good, request):
        """The command itself, against a server that answers so."""
        asked = []

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words):
                pass

        if where == "image":
            _, command = request.getfixturevalue("image").health_check
        else:
            kind, *command = request.getfixturevalue("compose")["search"]["healthcheck"]["test"]
            assert kind == "CMD"
        assert command[0] == "python" and f"127.0.0.1:{PORT}" in command[-1]
        with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            command = [sys.executable, "-S", *command[1:-1], command[-1].replace(str(PORT), str(server.server_port))]
            ended = subprocess.run(command, capture_output=True, env={**os.environ, "no_proxy": "*"})
            server.shutdown()
        assert (ended.returncode == 0) == good, ended.stderr
        assert asked == ["/v2/health/ready"]


class TestRoutes:
    """The probes and the measures are there, and are answered to whom these files have ask."""

    def test_probes(self, pod, ask):
        (container,) = pod["containers"]
        (port,) = container["ports"]
        assert port["containerPort"] == PORT
        found = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {name: probe["path"] for name, probe in found.items()} == {
            "startupProbe": "/v2/health/live",
            "livenessProbe": "/v2/health/live",
            "readinessProbe": "/v2/health/ready",
        }
        for probe in found.values():
            assert probe["port"] == port["name"]
            # A pod's address is not among the names, and a probe has no token.
            settings = {"allowed_hosts": ("rw-keras",), "read_tokens": (READ,), "open_reading": False}
            assert ask("GET", probe["path"], settings, headers={"Host": "10.1.2.3:8000"}).status_code == 200

    def test_health_check_of_the_image(self, image, compose, ask):
        for command in (image.health_check[1], compose["search"]["healthcheck"]["test"]):
            path = re.search(rf"127\.0\.0\.1:{PORT}(/[\w/]+)", command[-1])[1]
            assert ask("GET", path).status_code == 200

    def test_what_prometheus_scrapes(self, compose, ask):
        (config,) = yaml_of(EXAMPLES / "prometheus.yml")
        jobs = {job["job_name"]: job for job in config["scrape_configs"]}
        ((target,),) = [one["targets"] for one in jobs["rw_keras"]["static_configs"]]
        values = parsed(compose["search"]["command"])
        assert target == f"search:{values.port}" and "search" in compose
        settings = {"allowed_hosts": tuple(values.allowed_hosts), "read_tokens": (READ,), "open_reading": False}
        answer = ask("GET", jobs["rw_keras"]["metrics_path"], settings, headers={"Host": target})
        assert answer.status_code == 200 and "# TYPE rw_keras_stage_seconds histogram" in answer.text
        for host in ("localhost:8000", "127.0.0.1:8000"):
            assert ask("GET", "/metrics", settings, headers={"Host": host}).status_code == 200
        assert ask("GET", "/metrics", settings, headers={"Host": "other:8000"}).status_code == 421
        ((target,),) = [one["targets"] for one in jobs["tf_serving"]["static_configs"]]
        assert target == "tf-serving:8501" and "tf-serving" in compose
        assert f'"{jobs["tf_serving"]["metrics_path"]}"' in (EXAMPLES / "monitoring.config").read_text()

    def test_what_kubernetes_has_scraped(self, kubernetes, pod, ask):
        noted = kubernetes["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        assert int(noted["prometheus.io/port"]) == PORT
        words = [word.replace("$(POD_IP)", "10.1.2.3").replace("$(NAMESPACE)", "photos") for word in pod["containers"][0]["args"]]
        settings = {"allowed_hosts": tuple(parsed(words).allowed_hosts)}
        service = kubernetes["Service"]["metadata"]["name"]
        for host in ("10.1.2.3", service, f"{service}.photos", f"{service}.photos.svc.cluster.local", "localhost"):
            answer = ask("GET", noted["prometheus.io/path"], settings, headers={"Host": f"{host}:{PORT}"})
            assert answer.status_code == 200, host


class TestCompose:
    def test_ports(self, compose):
        assert compose["search"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
        assert "ports" not in compose["tf-serving"]

    def test_tf_serving(self, compose):
        address = parsed(compose["search"]["command"]).runtime.removeprefix("tf-serving=")
        assert address == f"http://tf-serving:8501/v1/models/{compose['tf-serving']['environment']['MODEL_NAME']}"
        assert compose["search"]["depends_on"]["tf-serving"]["condition"] == "service_healthy"
        (alone,) = yaml_of(EXAMPLES / "docker-compose.yml")
        assert compose["tf-serving"]["image"] == alone["services"]["rw_vgg16"]["image"]
        assert set(compose["search"]["networks"]) & set(compose["tf-serving"]["networks"])

    def test_files_are_mounted(self, compose, image):
        search, values = compose["search"], parsed(compose["search"]["command"])
        mounted = {mount.split(":")[1]: mount.endswith(":ro") for mount in search["volumes"]}
        assert all(mounted[path] for path in (*values.arguments, values.photos))
        assert values.tokens == "/run/secrets/tokens" and search["secrets"] == ["tokens"]
        writable = [path for path, is_read_only in mounted.items() if not is_read_only]
        writable += [mount.split(":")[0] for mount in search["tmpfs"]]
        for variable in ("XDG_CACHE_HOME", "KERAS_HOME", "TMPDIR", "HOME"):
            assert any(pathlib.PurePath(image.environment[variable]).is_relative_to(path) for path in writable), variable
        own = [mount for service in compose.values() for mount in service["volumes"] if mount.startswith("./examples")]
        assert own and all((ROOT / mount.split(":")[0]).is_file() for mount in own)

    def test_nothing_may_more_than_it_has_to(self, compose):
        for service in compose.values():
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert not service["user"].startswith("0")
            assert "healthcheck" in service

    def test_user_is_that_of_the_image(self, compose, image):
        assert compose["search"]["user"] == image["USER"]

    def test_stop(self, compose):
        search = compose["search"]
        assert seconds(search["stop_grace_period"]) >= parsed(search["command"]).stop_seconds + LEAVE

    def test_rankings_fit(self, compose):
        (size,) = [int(re.search(r"size=(\d+)g", mount)[1]) << 10 for mount in compose["search"]["tmpfs"]]
        assert size >= 2 * parsed(compose["search"]["command"]).cursor_mib


class TestKubernetes:
    def test_security(self, pod, image):
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == image["USER"]
        assert context["fsGroup"] == context["runAsGroup"]
        assert pod["automountServiceAccountToken"] is False
        assert all({"cpu", "memory"} <= set(container["resources"][kind]) for kind in ("requests", "limits"))

    def test_names_agree(self, kubernetes, pod):
        deployment, service = kubernetes["Deployment"], kubernetes["Service"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
        (port,) = service["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (PORT, pod["containers"][0]["ports"][0]["name"])
        volumes = {volume.pop("name"): volume for volume in map(dict, pod["volumes"])}
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
        assert volumes["tokens"]["secret"]["secretName"] == kubernetes["Secret"]["metadata"]["name"]
        assert set(volumes) == {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}

    def test_files_are_mounted(self, kubernetes, pod, image):
        (container,) = pod["containers"]
        values = parsed(container["args"])
        mounts = {mount["name"]: pathlib.PurePath(mount["mountPath"]) for mount in container["volumeMounts"]}
        for path in (*values.arguments, values.photos, values.weights):
            assert pathlib.PurePath(path).is_relative_to(mounts["data"])
        secret = kubernetes["Secret"]["stringData"]
        assert pathlib.PurePath(values.tokens) in [mounts["tokens"] / name for name in secret]
        scratch = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
        for variable, name in (("XDG_CACHE_HOME", "cache"), ("KERAS_HOME", "cache"), ("HOME", "cache"), ("TMPDIR", "rankings")):
            assert name in scratch
            assert pathlib.PurePath(image.environment[variable]).is_relative_to(mounts[name])

    def test_nobody_serves_with_the_placeholder(self, kubernetes, pod, tmp_path):
        values = parsed(pod["containers"][0]["args"])
        (content,) = kubernetes["Secret"]["stringData"].values()
        values.tokens = tmp_path / "tokens"
        values.tokens.write_text(content)
        with pytest.raises(ValueError, match="A token is 16 or more visible ASCII characters"):
            serve_command.run(values)

    def test_stop(self, pod):
        (container,) = pod["containers"]
        _, before = container["lifecycle"]["preStop"]["exec"]["command"]
        needed = float(before) + parsed(container["args"]).stop_seconds + LEAVE
        assert pod["terminationGracePeriodSeconds"] >= needed


class TestKServe:
    """The fields of kserve.yml were compared with KServe's Python SDK and Kubernetes' client; here is what has to agree."""

    def test_the_service_is_that_of_kubernetes(self, kserve, kubernetes, pod):
        own, (container,), (other,) = kserve["rw-keras"], kserve["rw-keras"]["containers"], pod["containers"]
        assert container["name"] == "kserve-container"  # by which KServe knows it
        assert own["minReplicas"] == own["maxReplicas"] == kubernetes["Deployment"]["spec"]["replicas"] == 1
        for field in ("securityContext", "volumes", "automountServiceAccountToken", "terminationGracePeriodSeconds"):
            assert own[field] == pod[field], field
        for field in ("image", "securityContext", "volumeMounts", "resources", "lifecycle"):
            assert container[field] == other[field], field
        hosts = "--allowed_hosts="
        words, others = ([word for word in one["args"] if not word.startswith(hosts)] for one in (container, other))
        assert words == others
        assert f"{hosts}rw-keras-predictor" in container["args"]

    def test_probes(self, kserve, ask):
        (container,) = kserve["rw-keras"]["containers"]
        assert container["ports"] == [{"containerPort": PORT, "protocol": "TCP"}]
        for name, path in (("startupProbe", "live"), ("readinessProbe", "ready")):
            assert container[name]["httpGet"] == {"path": f"/v2/health/{path}", "port": PORT}
            settings = {"allowed_hosts": ("rw-keras-predictor",), "read_tokens": (READ,), "open_reading": False}
            answer = ask("GET", container[name]["httpGet"]["path"], settings, headers={"Host": f"10.1.2.3:{PORT}"})
            assert answer.status_code == 200

    def test_models_of_other_servers(self, kserve):
        found = {name: one["model"] for name, one in kserve.items() if "model" in one}
        assert {name: (model["runtime"], model["protocolVersion"]) for name, model in found.items()} == {
            "rw-vgg16": ("kserve-tensorflow-serving", "v1"),
            "rw-vgg16-triton": ("kserve-tritonserver", "v2"),
        }
        assert (EXAMPLES / pathlib.PurePath(found["rw-vgg16-triton"]["storageUri"]).name / "rw_vgg16").is_dir()


class TestSystemd:
    def test_only_what_put_writes_is_writable(self, unit):
        values = parsed(shlex.split(unit["ExecStart"])[1:])
        assert unit["ProtectSystem"] == "strict"
        assert unit["ReadWritePaths"].split() == [*values.arguments, values.photos]

    def test_tokens_are_a_credential(self, unit):
        values = parsed(shlex.split(unit["ExecStart"])[1:])
        name, path = unit["LoadCredential"].split(":")
        assert values.tokens == f"%d/{name}" and pathlib.PurePath(path).is_absolute()

    def test_caches_are_the_cache_directory(self, unit):
        cache = pathlib.PurePath("/var/cache", unit["CacheDirectory"])
        found = dict(pair.split("=", 1) for line in unit.all("Environment") for pair in shlex.split(line))
        for variable in ("XDG_CACHE_HOME", "KERAS_HOME", "HOME"):
            assert pathlib.PurePath(found[variable]).is_relative_to(cache)
        assert unit["PrivateTmp"] == "yes" and "TMPDIR" not in found

    def test_stop(self, unit):
        assert int(unit["TimeoutStopSec"]) >= parsed(shlex.split(unit["ExecStart"])[1:]).stop_seconds + LEAVE
        assert unit["KillMode"] == "mixed"

    def test_as_many_files_as_connections(self, unit):
        assert int(unit["LimitNOFILE"]) >= 2 * Settings().connections

    def test_systemd_takes_it(self, tmp_path):
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not installed")
        text = (EXAMPLES / "rw-keras.service").read_text("utf8")
        path = tmp_path / "rw-keras.service"
        path.write_text(text.replace("/opt/rw_keras/bin/rw-keras", "/bin/true"))  # a program that is there
        found = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
        assert (found.returncode, [line for line in found.stderr.splitlines() if path.name in line]) == (0, [])
        # Tenths: 1.5 is "OK"; a unit that says nothing has 9.6.
        offline = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", path]
        found = subprocess.run(offline, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


@contextlib.contextmanager
def listening(app):
    """The address at which an application is served, by a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_client(made, describer, shown, tmp_path, search):
    """The client's lines are the hits, with a token; without one it ends with an error."""
    program = EXAMPLES / "search_client.py"
    served = ServedIndex("index", made[0], describer, cache=tmp_path)
    photo = shown / "photos" / "04.png"
    with listening(create_app([served], Settings(rate=None, read_tokens=(READ,), open_reading=False))) as address:
        command = [sys.executable, program, photo, address]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RW_KERAS_READ_TOKEN": READ}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        environment.pop("RW_KERAS_READ_TOKEN")
        refused = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert refused.returncode == 1 and "token" in refused.stderr.splitlines()[-1]
    expected = pairs(search(photo.read_bytes(), k=10).json())
    assert ended.stdout.splitlines() == [f"{rank:3d}  {cosine:.4f}  {name}" for rank, (name, cosine) in enumerate(expected, 1)]
