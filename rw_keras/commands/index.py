"""rw-keras index PHOTOS -o NAME: describe photos and write the index NAME, or bring it up to date.

PHOTOS: a folder (with those below it), a glob in quotes, a .tar archive, a text file of paths, or a URL
of one of them, such as s3://bucket/photos/.
Run again, it describes what is new or has changed, and drops what is gone; it takes its settings
from the index, so no flag is needed. Interrupted, it resumes where it stopped.
"""

from __future__ import annotations

import functools
import json
import os
from argparse import Namespace

from rw_keras.commands import model_flags, runtime_flags
from rw_keras.commands.models import check_model_flags, load_keras_quietly, model_of, new_model, take_files, whitened_model
from rw_keras.commands.parser import Parser, UsageError, number, one_of, or_none, text, whole_number
from rw_keras.commands.programs import DONE, LEFT_OUT
from rw_keras.commands.settings import check_flags, known_settings
from rw_keras.files import printable


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("output", "The index to write: a folder, or milvus://HOST:19530/COLLECTION.", text("NAME"), short="o")
    parser.flag("metadata", "A CSV file with a column of names, and columns to search within.", text("FILE"))
    parser.switch("checksum", "See a change by a photo's bytes, not by its size and time.")
    words = "Recompute every photo, and replace the index at the end."
    parser.switch("force", words, earlier=["anew"])
    parser.switch("prune", "Let any number of photos leave the index, also more than half of it.")
    words = "A photo that was deleted from the index and is to be described again; may be repeated; `all`: all of them."
    parser.flag("take_back", words, text("PHOTO"), repeat=True)
    parser.switch("strict", "End with an error at the first photo that cannot be read.")
    parser.switch("json", "Print the summary as JSON.")
    parser.switch("quiet", "No progress bar.", short="q")
    model_flags.add_new_model(parser)
    parser.section("The computation")
    runtime_flags.add_runtime(parser, earlier=["engine"])
    words = "What descriptors are kept as, whatever the network computes in: float32, float16 or int8. Default: the preset's."
    parser.flag("dtype", words, one_of(("float32", "float16", "int8")))
    words = "What the vectors of regions are kept as, for `search --rerank`: int8, float16 or none. Default: the preset's."
    parser.flag("regions", words, or_none(one_of(("int8", "float16"))))
    words = "Dimensions that are kept of the vectors of regions, the strongest ones. Default: the preset's."
    parser.flag("region_components", words, whole_number(1))
    words = "Photos of one size that the network takes at once. Default: as many as fit."
    parser.flag("batch_size", words, whole_number(1))
    parser.flag("workers", "Threads that read photos. Default: one a processor.", whole_number(1))
    parser.section("A cluster")
    words = "Describe photos on a Ray cluster: HOST:PORT of its head, auto, or local, which starts Ray on this machine."
    parser.flag("cluster", words, text("ADDRESS"))
    parser.flag("actor_processors", "Processors that an actor takes. Default: all of the smallest machine.", whole_number(1))
    parser.flag("actor_gpus", "GPUs that an actor takes.", number(0), 0)
    words = "A folder that all machines share, or a URL such as s3://bucket/fragments. Default: inside the index."
    parser.flag("fragments", words, text("PLACE"))
    parser.switch("keep_fragments", "Keep the Parquet files of described photos when they are in the index.")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    _check_usage(values)
    from rw_keras.description.extract import extract
    from rw_keras.description.job import listed_photos
    from rw_keras.description.update import check_loss, names_of
    from rw_keras.retrieval import columns, exclusions, places

    (source,) = values.arguments
    # All that can be refused is, before seconds are spent on the network.
    about = places.about(places.check_target(values.output, beside=values.force))
    known = {} if about is None else known_settings(about)
    if not values.force:
        check_flags(places.shown(values.output), known, {flag: getattr(values, flag) for flag in known.keys() & values.given})
    describe = extract if values.cluster is None else _on_cluster(values)
    items = listed_photos(source, values.prune and about is not None)
    names = names_of(items)
    check_loss(values.output, names, values.prune)
    taken_back = None if values.take_back == ["all"] else values.take_back
    exclusions.check_excluded(values.output, taken_back or ())
    table = columns.read_columns(values.metadata, names) if values.metadata else {}
    places.check_metadata(values.output, table)
    settings = take_files(values, about)
    model = _model(values, about, known)

    def settled(flag, usual):
        """A flag's value; where it is not given, the index's, and for a new one, or one of another preset, `usual`."""
        if flag in values.given:
            return getattr(values, flag)
        return usual if "preset" in values.given else known.get(flag, usual)

    if "take_back" in values.given and about is not None:
        exclusions.take_back(values.output, taken_back)
    done = describe(
        model,
        source if names is None else items,  # the iterator of a stream is no source
        values.output,
        max_side=settled("max_side", "auto"),
        batch_size=values.batch_size or "auto",
        workers=values.workers or "auto",
        resume=not values.force,
        dtype=settled("dtype", None),
        regions=settled("regions", "auto"),
        region_components=settled("region_components", None),
        checksum=values.checksum,
        **({"strict": True} if values.strict else {}),
        progress=not values.quiet,
        source=os.path.abspath(source) if os.path.isdir(source) else None,
        runtime=values.runtime if "runtime" in values.given else known.get("runtime", values.runtime),
        precision=values.precision if "precision" in values.given else known.get("precision", values.precision),
        prune=values.prune,
        settings=settings,
    )
    if table:
        columns.add_columns(values.output, table)
    _tell(values, done, model.output_shape[-1])
    return LEFT_OUT if done.failures or done.unread else DONE


def _check_usage(values):
    check_model_flags(values)
    if len(values.arguments) != 1:
        raise UsageError(
            f"index takes one source of PHOTOS, but got {len(values.arguments)} arguments; quote a name that has spaces"
        )
    if not values.output:
        raise UsageError("index needs -o NAME, the index to write")
    _check_regions(values)
    _check_cluster(values)


def _check_regions(values):
    if "region_components" in values.given and "regions" in values.given and values.regions is None:
        raise UsageError(f"--region_components {values.region_components} does not go with --regions none, which keeps none")


def _check_cluster(values):
    if values.cluster is None:
        for flag in ("actor_processors", "actor_gpus", "fragments", "keep_fragments"):
            if flag in values.given:
                raise UsageError(f"--{flag} goes with --cluster, which says where the machines are")
    elif values.strict:
        raise UsageError("--strict does not go with --cluster, whose machines read photos in no order; look at the summary")


def _on_cluster(values):
    """`extract` on the cluster that the flags name, once that is there, and its machines are alike."""
    from rw_keras.cluster.running import check, extract

    check(values.output, values.cluster, values.actor_processors, values.actor_gpus, values.fragments)
    return functools.partial(
        extract,
        address=values.cluster,
        processors=values.actor_processors,
        gpus=values.actor_gpus,
        fragments=values.fragments,
        keep_fragments=values.keep_fragments,
    )


def _model(values, about, known):
    """The model to describe with: as the flags say, and where they say nothing as an index that is there was made."""
    given = values.given & set(model_flags.OF_THE_MODEL)
    if about is None or "preset" in given or about["recipe"] is None:
        return new_model(values)
    if not (values.force and given):
        return model_of(about["recipe"], values, about.get("preset"))
    load_keras_quietly()
    # Made again with other parts: the rest is as it was.
    return whitened_model(values, known["preset"], {part: known[part] for part in model_flags.PARTS if part in known})


def _tell(values, done, dimensions):
    """The summary: all counts, and every photo that has no descriptor, or an old one, by name."""
    from rw_keras.retrieval import places

    lists = {
        "left_out": (done.failures, "left out"),
        "unread": (done.unread, "could not be read now; what the index holds of them was kept"),
        "undecodable": (done.undecodable, "have changed and cannot be decoded; they left the index"),
    }
    shown = places.shown(values.output)
    if values.json:
        counts = {field: getattr(done, field) for field in ("described", "changed", "kept", "removed", "excluded")}
        listed = {field: [{"name": name, "reason": reason} for name, reason in found] for field, (found, _) in lists.items()}
        print(json.dumps({"index": shown, "photos": done.described + done.kept, **counts, **listed}))
        return
    print(f"{shown}: {done} ({dimensions} dimensions, {done.seconds:.0f} s)")
    for found, words in lists.values():
        if found:
            print(f"{len(found)} {words}:")
            for name, reason in found:
                print(f"  {printable(name)}: {printable(reason)}")
