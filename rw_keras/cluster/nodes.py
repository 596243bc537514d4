"""The machines of a Ray cluster: how this process comes to them, whether they are alike, and how many actors fit on them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rw_keras.files import extra

# What the values of descriptors, and what travels between machines, depend on.
_PACKAGES = (
    *("rw_keras", "keras", "tensorflow", "torch", "jax", "openvino", "ncnn"),
    *("numpy", "pillow", "pillow-heif", "rawpy", "pyarrow", "ray"),
)
# Bytes of Ray's shared memory on this machine, through which only numbers go.
_OBJECT_STORE = 150 << 20
# Seconds in which the head of a cluster has to take a connection.
_ANSWERS = 10


class Node(NamedTuple):
    """A machine of the cluster: Ray's name for it, its address, its processors and GPUs."""

    id: str
    address: str
    processors: int
    gpus: float


class Fleet(NamedTuple):
    """The actors of a run: how many, and the processors and GPUs of each."""

    count: int
    processors: int
    gpus: float


def ray() -> Any:
    """The package `ray`; an ImportError that says how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What Ray will make the default, and warns of until then.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with extra("ray"):
        import ray
        import ray.data
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, closed at the end where it was not there before.

    Args:
        address: "local" starts Ray on this machine, and stops it at the end; "HOST:PORT" is a cluster's head, "auto" the one that
            runs on this machine. `None`: the cluster that this process is connected to, else "auto".

    Raises:
        ValueError: for an address that is none, or another one than this process is connected to.
        ConnectionError: when there is no such cluster.
    """
    module = ray()
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            f"address={address!r} is of Ray's client, which Ray Data does not work with; run on a machine of the cluster."
        )
    if module.is_initialized():
        _check_same(module, address)
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):  # on which Ray says that a machine has gone, until it is left
        try:
            _start(module, address)
        except (OSError, ValueError, RuntimeError, module.exceptions.RaySystemError) as error:
            raise ConnectionError(
                f"There is no Ray cluster at {address or 'auto'} ({str(error).splitlines()[0]}); start one with `ray start --head` "
                'on this machine, give the address of one, or "local" to use this machine alone.'
            ) from error
        try:
            yield
        finally:
            module.shutdown()


def _start(module, address):
    options = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != "local":
        if ":" in (address or ""):
            _check_answers(module, address)
        module.init(address=address or "auto", **options)
        return
    with _loopback():
        module.init(
            address="local",
            include_dashboard=False,
            num_cpus=_processors(),
            object_store_memory=_OBJECT_STORE,
            **options,
        )
    address = module.util.get_node_ip_address()
    if address != "127.0.0.1":
        print(f"rw_keras: Ray listens on {address}, where other machines may reach it while this runs.", file=sys.stderr)


@contextlib.contextmanager
def _loopback():
    """Lets Ray take the loopback address for this machine's while it starts, so that nobody else reaches it: what it does on macOS
    and Windows, and has no public setting for elsewhere."""
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_answers(module, address):
    """Raises an OSError where nothing listens, which Ray would wait for for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ValueError("an address is HOST:PORT")
    if host in ("localhost", "127.0.0.1"):  # which Ray takes for this
        host = module.util.get_node_ip_address()
    socket.create_connection((host, int(port)), _ANSWERS).close()


def _processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_same(module, address):
    there = module.get_runtime_context().gcs_address
    if address not in (None, "auto", there):
        raise ValueError(
            f"This process is connected to the Ray cluster {there}, and you asked for {address}; leave the address out."
        )


def nodes() -> list[Node]:
    """The machines of the cluster that take work, by their addresses."""
    found = []
    for one in ray().nodes():
        has = one.get("Resources", {})
        if one["Alive"] and has.get("CPU", 0) >= 1:
            found.append(Node(one["NodeID"], one["NodeManagerAddress"], int(has["CPU"]), has.get("GPU", 0.0)))
    return sorted(found, key=lambda node: (node.address, node.id))


def fleet(processors: int | None, gpus: float, most: int | None = None) -> Fleet:
    """The actors that fit on the cluster now, all of whose machines are alike.

    Arguments and errors as for `fleet_for` and `check_alike`.
    """
    found = nodes()
    fitting = fleet_for(found, free_resources(), processors, gpus, most)
    check_alike(found)
    return fitting


def fleet_for(
    found: Sequence[Node],
    free: Mapping[str, Mapping[str, float]] | None,
    processors: int | None,
    gpus: float,
    most: int | None = None,
) -> Fleet:
    """How many actors the machines hold: the arithmetic of processors, before Ray would wait for ever for more than there are.

    The pipeline has no reading tasks, so actors may take all processors.

    Args:
        found: the machines.
        free: what nobody else uses now of each, by its id, see `free_resources`; `None`: all of it.
        processors: of an actor; `None`: all of the smallest machine.
        gpus: of an actor.
        most: how many actors at most; `None`: as many as fit.

    Raises:
        ValueError: when not one fits, or not as many as asked for.
    """
    if not found:
        raise ValueError("No machine of the Ray cluster has a processor to offer; start one with `ray start`.")
    fitting = [node for node in found if node.gpus >= gpus]
    asked = processors or min((node.processors for node in fitting), default=1)

    def fit(processors, units):
        return int(min(processors // asked, units // gpus if gpus else math.inf))

    count = sum(fit(node.processors, node.gpus) for node in fitting)
    needs = f"An actor takes {_counted(asked, 'processor')}" + (f" and {gpus:g} GPU" if gpus else "")
    there = ", ".join(f"{node.address} has {node.processors}" + (f" and {node.gpus:g} GPU" if gpus else "") for node in found)
    if not count:
        raise ValueError(f"{needs}, and no machine of the cluster has as many: {there}; let an actor take fewer.")
    if most is not None and count < most:
        raise ValueError(
            f"{needs}, so {_counted(count, 'actor')} fit on the cluster, and you asked for {most}: {there}; ask for fewer, since "
            "Ray would wait for ever for the others."
        )
    now = {node: _free_of(node, free) for node in fitting}
    fitting_now = sum(fit(*pair) for pair in now.values())
    if not fitting_now:
        there = ", ".join(
            f"{node.address} has {processors:g} of {node.processors}" + (f" and {units:g} of {node.gpus:g} GPUs" if gpus else "")
            for node, (processors, units) in now.items()
        )
        raise ValueError(
            f"{needs}, and no machine has as many free now: {there}; wait for what else runs on the cluster, or let an actor take "
            "fewer."
        )
    return Fleet(min(count, fitting_now, most or count), asked, gpus)


def _free_of(node, free):
    """The processors and GPUs of a machine that are free."""
    if free is None:
        return node.processors, node.gpus
    own = free.get(node.id, {})
    return own.get("CPU", 0.0), own.get("GPU", 0.0)


def _counted(number, what):
    return f"{number} {what}" + ("" if number == 1 else "s")


def free_resources() -> dict[str, dict[str, float]]:
    """What nobody uses now of each machine, by Ray's name for it: {"CPU": processors, "GPU": GPUs}."""
    ray()
    from ray._private import state  # Ray's public function adds the machines up

    return state.available_resources_per_node()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the values of descriptors depend on, on this machine."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def check_alike(found: Sequence[Node]) -> None:
    """Compares the versions of all machines with those here.

    Raises:
        ValueError: where one has another, with both; and where one lacks the package.
    """
    here, differing = versions(), []
    for node, there in zip(found, on_each(found, versions)):
        for package in sorted(here.keys() | there.keys()):
            one, other = here.get(package, "not installed"), there.get(package, "not installed")
            if one != other:
                differing.append(
                    f"{package} is {other} on {node.address}, and {one} on {socket.gethostname()}, where the run starts"
                )
    if differing:
        raise ValueError(f"The machines of the cluster are not alike: {'; '.join(differing)}. Install the same versions on all.")


def on_each(found: Sequence[Node], function: Any, *arguments: Any) -> list[Any]:
    """What a function of this package gives on each machine.

    Raises:
        ValueError: when it fails on one; it names the machine.
    """
    module = ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = module.remote(num_cpus=0, max_retries=0)(function)
    waiting = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)).remote(*arguments)
        for node in found
    ]
    answers = []
    for node, answer in zip(found, waiting):
        try:
            answers.append(module.get(answer))
        except module.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or str(error).strip().splitlines()[-1]
            raise ValueError(f"The machine {node.address} of the cluster cannot take part: {cause}.") from error
    return answers


def check_sees(found: Sequence[Node], place: Any, name: str, source: Any) -> None:
    """Checks that all machines find what this one has written to a place, and the first photo, where this one finds it.

    Args:
        found: the machines.
        place: a `rw_keras.cluster.places.Place`.
        name: a file in it.
        source: the `Item` of a photo.

    Raises:
        ValueError: for a machine that does not; it names it, and what it does not find.
    """
    can_read = _reads(source)
    for node, (sees, reads) in zip(found, on_each(found, _sees, place, name, source)):
        if not sees:
            raise ValueError(
                f"The machine {node.address} does not find {place.shown}/{name}; give a place that all machines share, such as "
                "--fragments s3://bucket/fragments (in Python: fragments=)."
            )
        if can_read and not reads:
            raise ValueError(
                f"The machine {node.address} cannot read the photo {source.name!r}, which this one can; mount the photos there."
            )


def _sees(place, name, source):
    try:
        place.read(name)
    except OSError:
        return False, True
    return True, _reads(source)


def _reads(item):
    try:
        found = item.open()
        with found if hasattr(found, "read") else open(found, "rb") as file:
            file.read(1)
    except (OSError, ValueError):
        return False
    return True
