"""Photos -> an index, described on a Ray cluster: the plan, the pipeline, and the gathering of what it made."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import pathlib
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rw_keras import runtimes
from rw_keras.cluster import nodes
from rw_keras.cluster.actors import DOUBTFUL, Actor, computed_with
from rw_keras.cluster.describing import Settings
from rw_keras.cluster.fragments import pyarrow
from rw_keras.cluster.gather import gather
from rw_keras.cluster.places import Place
from rw_keras.cluster.plan import Plan
from rw_keras.description.job import Extraction, Job, check_arguments
from rw_keras.description.progress import Progress
from rw_keras.model.recipe import Recipe
from rw_keras.retrieval import places
from rw_keras.retrieval.schema import FRAGMENTS
from rw_keras.runtimes.describer import described_with
from rw_keras.runtimes.keras_backend import BACKENDS, KERAS

if TYPE_CHECKING:
    import keras

# Blocks that Ray Data has in hand for a pass; beyond as many fragments a block has several of them.
_BLOCKS = 10_000
# Passes over what is left that may bring nothing, before the run gives up.
_IDLE_PASSES = 2
# A file in the place of fragments, by which machines are asked whether they share it.
_PROBE = "probe.txt"
_TAKES = "a cluster takes photos that all machines can read"


def extract(
    model: keras.Model | runtimes.Describer,
    photos: Any,
    out: str | os.PathLike[str],
    *,
    max_side: int | str | None = "auto",
    address: str | None = None,
    processors: int | None = None,
    gpus: float = 0,
    actors: int | None = None,
    fragments: str | os.PathLike[str] | None = None,
    keep_fragments: bool = False,
    batch_size: int | str = "auto",
    workers: int | str = "auto",
    resume: bool = True,
    dtype: str | None = None,
    regions: str | None = "auto",
    region_components: int | None = None,
    checksum: bool = False,
    progress: bool = True,
    source: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    prune: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Extraction:
    """`rw_keras.extract` on a Ray cluster: the same index, described by many machines.

    The photos that have to be described are cut into fragments of 1024. Actors, each with a model of its own, describe one fragment
    after the other, and write each whole or not at all as a Parquet file. What is finished is on the disk, whoever ends: run again,
    a killed run describes the fragments that are missing. At the end all are gathered into the index, which has the values that
    `rw_keras.extract` with the same runtime gives it. `docs/cluster.md` says how to start a cluster, and how to keep it private.

    Args:
        model: a model of `build_descriptor`. It travels as a file, so the packages of layers that are neither Keras' nor
            this package's have to be installed on all machines.
        photos: as for `rw_keras.extract`, by paths that are the same on all machines; no arrays and no dataset.
        out: the index, which this process writes.
        address: "local" starts Ray on this machine, and stops it at the end; "HOST:PORT" is the cluster's head. Default: the
            cluster that this process is connected to, or that runs on this machine.
        processors: how many an actor takes. Default: all of the smallest machine.
        gpus: how many an actor takes, such as 1.
        actors: how many there are. Default: as many as fit.
        fragments: where fragments lie until they are gathered: a folder that all machines share, or a URL of object storage, such
            as "s3://bucket/fragments". Default: the folder `fragments` of the index.
        keep_fragments: whether they stay when they are gathered.
        workers: threads of an actor that read and decode. "auto": two, or one a processor where those are more, at most 16.
        max_side, batch_size, resume, dtype, regions, region_components, checksum, progress, source, runtime, precision, prune,
            settings: see `rw_keras.extract`. With `runtime="auto"` one machine measures which is the fastest, and all take that.

    Returns:
        An `Extraction`.

    Raises:
        ValueError: as for `rw_keras.extract`; when the machines have different versions, do not find the photos or the fragments,
            or have fewer processors than an actor takes; and when fragments are there that were begun in another way.
        ConnectionError: when there is no such cluster.
        ImportError: without `pip install "rw_keras[ray]"`.
        OSError: when fragments cannot be written, or the index. What was finished stays.
    """
    began = time.monotonic()
    pyarrow(), nodes.ray()
    check_arguments(batch_size, workers)
    _check_counts(processors, gpus, actors)
    model, place = _keras_model(model), _place_of(fragments, out)
    with nodes.connected(address):
        fleet = nodes.fleet(processors, gpus, actors)
        job = Job.settled(
            model,
            photos,
            out,
            max_side=max_side,
            resume=resume,
            dtype=dtype,
            regions=regions,
            region_components=region_components,
            checksum=checksum,
            strict=False,
            devices=None,
            source=source,
            runtime=runtime,
            precision=precision,
            prune=prune,
            settings=settings,
        )
        _check_files(job.items)
        run = _Run(job, place, _asked(job, batch_size), _file_of(model), fleet, workers, keep_fragments, progress)
        with job.opened() as (writer, update):
            seconds = run.finish_plan(writer, update) + run.describe(writer, update)
            return job.finished(writer, update, began, seconds)


def check(
    out: str | os.PathLike[str], address: str | None, processors: int | None, gpus: float, fragments: str | os.PathLike[str] | None
) -> None:
    """Checks what `extract` would refuse before it lists photos, for those who list them first; arguments and errors as there.

    Ray is not started on this machine for it.
    """
    _place_of(fragments, out)
    if address != "local":
        with nodes.connected(address):
            nodes.fleet(processors, gpus)


@dataclasses.dataclass
class _Run:
    """One run: its plans, described and gathered."""

    job: Job
    place: Place
    settings: Settings
    model: bytes
    fleet: nodes.Fleet
    workers: int | str
    keep_fragments: bool
    progress: bool

    def finish_plan(self, writer, update):
        """Describes and gathers what a run that was killed has left; the seconds that the network worked."""
        plan = Plan.found(self.place)
        if plan is None:
            return 0.0
        if plan.is_gathered or (plan.index != writer.about["identity"] and self.place == _usual_place(self.job.out)):
            # All of it is in the index, or it is of one that was to take its place, and is not gone on with either.
            plan.remove(self.keep_fragments and plan.is_gathered)
            return 0.0
        self._check_same(plan, writer)
        with Progress(plan.photos, self.progress) as bar:
            # What the source does not list any more, in the state that it had, is not gathered either.
            numbers = [number for number in range(plan.count) if update.still_listed([item for item, _ in plan.todo(number)])]
            if numbers:
                nodes.check_sees(nodes.nodes(), plan.place, plan.about_name, plan.todo(numbers[0])[0][0])
            return self._described(plan, numbers, writer, update, bar)

    def describe(self, writer, update):
        """Plans, describes and gathers what the index has to be given; the seconds that the network worked."""
        with Progress(self.job.count, self.progress) as bar:
            todo = update.todo(bar)
            first = list(itertools.islice(todo, 1))
            self._check_sees(first)
            plan = Plan.make(self.place, itertools.chain(first, todo), self.settings, self.model, writer.about["identity"])
            return 0.0 if plan is None else self._described(plan, range(plan.count), writer, update, bar)

    def _check_sees(self, first):
        """Checks, before all photos are written down, that all machines find what this one writes, and the first of them."""
        for item, _ in first:
            self.place.write(_PROBE, b"whether all machines find this")
            try:
                nodes.check_sees(nodes.nodes(), self.place, _PROBE, item)
            finally:
                self.place.remove([_PROBE])
                self.place.remove_folder()

    def _described(self, plan, numbers, writer, update, bar):
        if numbers:
            if plan.settings.described_with is None:
                plan = _with_runtime(plan, self.fleet)
            describe_all(plan, numbers, self.fleet, self.workers, bar)
        with Progress(plan.photos, self.progress, "gathering photos") as gathering:
            seconds = gather(plan, writer, update, gathering)
        plan.remove(self.keep_fragments)
        return seconds

    def _check_same(self, plan, writer):
        """Refuses a plan of other settings than those asked for, with both values."""
        if plan.index != writer.about["identity"]:
            raise ValueError(
                f"{self.place.shown} holds fragments of another index than {places.shown(self.job.out)}; give each a place for "
                "itself, or remove the fragments where that index is gone."
            )
        asked, there = self.settings, plan.settings
        differing = Recipe.from_dict(there.recipe).differences(asked.recipe, "the one asked for")
        for field in ("runtime", "precision", "regions", "batch_size", "checksum"):
            one, other = getattr(there, field), getattr(asked, field)
            if one != other and not (field == "runtime" and other == "auto"):
                differing.append(f"its {field} is {one!r}, the one asked for {other!r}")
        if differing:
            raise ValueError(
                f"{self.place.shown} holds fragments that a run has left unfinished, and that were made in another way: "
                f"{'; '.join(differing)}. Run again in the same way to finish them, or remove them to describe their photos again."
            )


def _place_of(fragments, out):
    """Where fragments go."""
    place = _usual_place(out) if fragments is None else Place.of(fragments)
    if place is None:
        raise ValueError(
            f"{places.shown(out)} is in Milvus, which has no folder for fragments; say where they go with --fragments (in Python: "
            "fragments=...)."
        )
    return place


def _usual_place(out):
    """The folder `fragments` of an index; `None` for one in Milvus, which has no folder."""
    return None if places.is_milvus(out) else Place.of(os.path.join(out, FRAGMENTS))


def _check_counts(processors, gpus, actors):
    for name, value in (("processors", processors), ("actors", actors)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is a whole number of at least 1, or None, but got {value!r}.")
    if isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or gpus < 0:
        raise ValueError(f"gpus is a number of at least 0, but got {gpus!r}.")


def _keras_model(model):
    if not isinstance(model, runtimes.Describer):
        return model
    if model.model is None:
        raise ValueError(f"A model travels to a cluster as a file of Keras, but got {model!r}; pass the Keras model, and runtime=.")
    return model.model


def _check_files(items):
    """Refuses photos that are no files, which other machines cannot read."""
    if not hasattr(items, "__len__"):
        raise ValueError(
            f"A source that is read from one end to the other is described where it is, by rw_keras.extract; {_TAKES}."
        )
    # All that is listed in a folder of storage is a file.
    array = next((item for item in items if not item.is_file), None) if getattr(items, "folder", None) is None else None
    if array is not None:
        raise ValueError(f"The photo {array.name!r} is an array, which is described where it is, by rw_keras.extract; {_TAKES}.")


def _file_of(model):
    """The content of a model's file, read back once, so that one that cannot be loaded elsewhere is refused here."""
    from rw_keras.model.build import load_model

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        differing = Recipe.of(load_model(path)).differences(Recipe.of(model), "the model's")
        if differing:
            raise ValueError(f"The model {model.name!r} is another one when it is saved and loaded: {'; '.join(differing)}.")
        return path.read_bytes()


def _asked(job, batch_size):
    plain = {"runtime": job.runtime, "precision": "exact", "computes_in": "float32"}
    is_plain = job.runtime != "auto" and job.precision == "exact"
    if is_plain and job.runtime in BACKENDS:
        plain = described_with(job.model)
    recipe = Recipe.from_dict(job.made).to_dict()
    # By the backend that each machine has, which `described_with` compares.
    runtime = KERAS if job.runtime in BACKENDS else job.runtime
    return Settings(recipe, runtime, job.precision, plain if is_plain else None, job.regions, batch_size, job.checksum)


def _with_runtime(plan, fleet):
    """The plan with what one of the machines found to be its runtime, which all then take."""
    module = nodes.ray()
    remote = module.remote(num_cpus=fleet.processors, num_gpus=fleet.gpus)(computed_with)
    try:
        found = module.get(remote.remote(plan, fleet.processors))
    except module.exceptions.RayTaskError as error:
        raise ValueError(f"A machine of the cluster cannot load the model: {error.cause}") from error
    plan = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, runtime=found["runtime"], described_with=found))
    plan.save()
    return plan


def describe_all(plan: Plan, numbers: Collection[int], fleet: nodes.Fleet, workers: int | str, bar: Progress) -> None:
    """Describes those of a plan's fragments, by their numbers, that are not there yet.

    Raises:
        OSError: when two passes over them have finished none.
        ValueError: when an actor says that it cannot describe any, or no machine is left.
    """
    unfinished, doubtful, idle = plan.unfinished(numbers), {}, 0
    bar.advance(0, new=False, count=plan.photos - sum(plan.counts[number] for number in unfinished))
    while unfinished:
        # Machines may have gone since the last pass.
        now = nodes.fleet_for(nodes.nodes(), None, fleet.processors, fleet.gpus)
        fleet = fleet._replace(count=min(now.count, fleet.count))
        faults = {}
        for row in _rows(plan, unfinished, fleet, workers):
            if row["fault"]:
                faults[row["node"]] = row["fault"]
            elif row["doubtful"] > DOUBTFUL * row["photos"]:
                doubtful[row["number"]] = row
            else:
                bar.advance(row["failed"], count=row["photos"])
        left = plan.unfinished(numbers)
        idle = 0 if len(left) < len(unfinished) else idle + 1
        if idle == _IDLE_PASSES:
            words = "; ".join(f"{node}: {fault}" for node, fault in faults.items()) or "no machine describes them"
            raise OSError(f"{len(left)} of {plan.count} fragments are not finished ({words}). Run again to go on.")
        unfinished = left
    if doubtful:  # a disk may have been away
        for row in _rows(plan, sorted(doubtful), fleet, workers, again=True):
            if not row["fault"]:
                doubtful[row["number"]] = row
    for row in doubtful.values():
        bar.advance(row["failed"], count=row["photos"])


def _rows(
    plan: Plan, numbers: Iterable[int], fleet: nodes.Fleet, workers: int | str, again: bool = False
) -> Iterator[dict[str, Any]]:
    """Lets the cluster describe fragments, by their numbers, and gives what came of each; of those whose actor has died, nothing.
    With `again` they are there already.

    Raises:
        ValueError: when an actor says that it cannot describe any.
    """
    module = nodes.ray()
    numbers = [int(number) for number in numbers]
    with _quiet(module):
        data = module.data.from_items(numbers, override_num_blocks=min(len(numbers), _BLOCKS)).map_batches(
            Actor,
            fn_constructor_args=(plan, fleet.processors, workers, again),
            batch_size=1,
            compute=module.data.ActorPoolStrategy(min_size=1, max_size=fleet.count, initial_size=fleet.count),
            num_cpus=fleet.processors,
            num_gpus=fleet.gpus or None,
            # A task of an actor that has died is not waited for, since a machine may be gone for good: what it did not finish, the
            # next pass describes.
            max_restarts=0,
            max_task_retries=0,
        )
        try:
            for row in data.iter_rows():
                if row["is_final"]:
                    raise ValueError(f"The machine {row['node']} cannot describe photos: {row['fault']}")
                yield row
        except module.exceptions.RayError as error:
            print(f"rw_keras: {str(error).strip().splitlines()[-1]}; going on with what is left.", file=sys.stderr)


@contextlib.contextmanager
def _quiet(module):
    """Ray Data without its own progress and log lines, and going on when an actor fails, as long as this lasts."""
    context = module.data.DataContext.get_current()
    wanted = {"enable_progress_bars": False, "print_on_execution_start": False, "max_errored_blocks": -1}
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    logger = logging.getLogger("ray.data")
    level = logger.level
    for name in before:
        setattr(context, name, wanted[name])
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ray_remote_args")  # in which `max_restarts` stands
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)
