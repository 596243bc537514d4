"""The command line: `rw-keras index`, `search`, `engines`, `export`, `demo`."""

import dataclasses
import importlib.metadata
import json
import os
import re
import sys

from absl import flags, logging

from rw_keras.files import checked_path, printable

_USAGE = """rw-keras: find photos of the same thing.

  rw-keras index PHOTOS -o NAME      describe photos and write the index NAME, or bring it up to date
  rw-keras search NAME PHOTO         find the photos of the index NAME that show what PHOTO shows
  rw-keras duplicates NAME           photos of the index NAME that are almost the same
  rw-keras check NAME                compare all of the index NAME with its checksums
  rw-keras merge NAME NAME -o NAME   join indices of one recipe into a new one
  rw-keras export-vectors NAME FILE  write the descriptors of the index NAME to a .npy or .parquet file
  rw-keras engines                   what computes the network, and how fast it is on this machine
  rw-keras export PATH               write a model that serves: a SavedModel, or ONNX, OpenVINO, LiteRT
  rw-keras demo                      try it on ten photos that need no download

`rw-keras COMMAND --help` lists a command's flags.

Exit codes: 0 done; 1 it could not be done, one line says why; 2 the command line is wrong; 3 done, but photos that
could not be read were left out; 130 interrupted; 141 nobody reads the output any more, as after `| head`.
"""

DONE, FAILED, USAGE, LEFT_OUT, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141


class UsageError(Exception):
    """The command line is wrong; the message says how."""


def main():
    """The entry point: runs a command and exits."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    arguments = sys.argv[1:]
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        code = UNREAD  # as of a program that the signal SIGPIPE ends; there is nobody to tell
    except (UsageError, flags.Error) as error:
        _print_error(str(error))
        code = USAGE
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        _print_error(in_flags(str(error), _flag_names(arguments)))
        code = FAILED
    except KeyboardInterrupt:
        print("rw-keras: interrupted; an index keeps what was finished, anything else was not written", file=sys.stderr)
        code = INTERRUPTED
    _leave_no_output()
    sys.exit(code)


def _print_error(message):
    # A file's name in it may hold anything, also what a terminal would act upon.
    print("rw-keras: " + "\n".join(map(printable, message.split("\n"))), file=sys.stderr)


def _leave_no_output():
    """Writes what is left of standard output; where that cannot be, drops it, or Python would complain as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def in_flags(message, names):
    """An error of a function in the words of a program with flags of these names: `levels=8` becomes `--levels=8`."""
    names = [name for name in names if len(name) > 1]
    if not names:
        return message
    any_name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    message = re.sub(rf"`({any_name})`", r"--\1", message)
    message = re.sub(rf"(?<![\w.-])({any_name})=(?!=)", r"--\1=", message)
    return re.sub(r"(--\w+=)None\b", r"\1none", message)


def _flag_names(arguments):
    """The flags of the command in `arguments`."""
    values = flags.FlagValues()
    if arguments and arguments[0] in _COMMANDS:
        _COMMANDS[arguments[0]][1](values)
    names = {name for name in values if name == values[name].name} - {"flagfile", "undefok"}
    return names - {"engine"} if "network_engine" in names else names  # there --engine is another thing than a function's `engine`


def run(arguments):
    """Runs the command in `arguments` and returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return DONE if arguments else USAGE
    if arguments[0] == "--version":
        print(importlib.metadata.version("rw_keras"))
        return DONE
    command, rest = arguments[0], arguments[1:]
    if command not in _COMMANDS:
        raise UsageError(f"there is no command {command!r}; choose one of {', '.join(_COMMANDS)}")
    function, define = _COMMANDS[command]
    values = flags.FlagValues()
    define(values)
    flags.DEFINE_bool("help", False, "Print this text.", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)
    positional = values([f"rw-keras {command}", *rest])[1:]
    if values.help:
        print(function.__doc__.strip() + "\n\n" + "\n".join(_flag_help(values)))
        return DONE
    return function(positional, values)


def _flag_help(values):
    """A line for each flag that the command itself defines."""
    for name in sorted(values):
        flag = values[name]
        # An alias is an earlier name, which goes on working.
        if name == flag.name and name not in ("flagfile", "undefok") and not flag.help.startswith("Alias for"):
            short = f"-{flag.short_name}, " if flag.short_name else ""
            default = f" Default: {flag.default}." if flag.default not in (None, False) else ""
            yield f"  {short + '--' + name:16s}{flag.help}{default}"


def _define_index(values):
    flags.DEFINE_string("output", None, "The index to write: a folder.", short_name="o", flag_values=values)
    _define_new_model(values)
    flags.DEFINE_enum(
        "dtype", None, ["float32", "float16", "int8"], "What descriptors are kept as. Default: float32.", flag_values=values
    )
    flags.DEFINE_integer(
        "batch_size", None, "Photos of one size that the network takes at once. Default: as many as fit.", 1, flag_values=values
    )
    flags.DEFINE_integer("workers", None, "Threads that read photos. Default: one a processor.", 1, flag_values=values)
    flags.DEFINE_bool("checksum", False, "See a change by a photo's bytes, not by its size and time.", flag_values=values)
    flags.DEFINE_bool(
        "force", False, "Describe all photos, also those that the index holds, and replace it at the end.", flag_values=values
    )
    flags.DEFINE_alias("anew", "force", flag_values=values)
    flags.DEFINE_bool("prune", False, "Let any number of photos leave the index, also more than half of it.", flag_values=values)
    flags.DEFINE_string("metadata", None, "A CSV file with a column of names, and columns to search within.", flag_values=values)
    _define_engine(values, "engine", "What computes the network.")
    flags.DEFINE_bool("strict", False, "End with an error at the first photo that cannot be read.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print the summary as JSON.", flag_values=values)
    flags.DEFINE_bool("quiet", False, "No progress bar.", short_name="q", flag_values=values)


def _define_model(values):
    flags.DEFINE_string(
        "model", None, "A .keras file of a descriptor model, in place of VGG16 and the method rw.", flag_values=values
    )


def _define_weights(values):
    flags.DEFINE_string("weights", None, "A file of the network's weights. Default: the published ones.", flag_values=values)
    flags.DEFINE_string("whitening", None, "A whitening file. Default: the one that ships, where it fits.", flag_values=values)


def _define_new_model(values):
    _define_model(values)
    _define_weights(values)
    flags.DEFINE_string("backbone", "vgg16", "The network: vgg16, alexnet, or one of keras.applications.", flag_values=values)
    define_levels(values)
    flags.DEFINE_float(
        "shrinkage", 0.0, "How far the whitening's eigenvalues are drawn to their mean, 0 to 1.", 0, 1, flag_values=values
    )
    define_whiten_and_scales(values)
    flags.DEFINE_integer("max_side", 1024, "Longer side, in pixels, that photos are reduced to.", lower_bound=1, flag_values=values)


def define_levels(values):
    """The flag `--levels`, which evaluation programs have too."""
    from rw_keras.regions import MOST_LEVELS

    flags.DEFINE_integer("levels", 3, "Scales of the regional grid.", 1, MOST_LEVELS, flag_values=values)


def define_whiten_and_scales(values):
    """The flags `--whiten` and `--scales`, which evaluation programs have too."""
    flags.DEFINE_enum(
        "whiten", "regions", ["regions", "global"], "What is whitened: each region's vector, or their sum.", flag_values=values
    )
    words = "Factors of a photo's sides, such as 1,0.7071,0.5, at which its descriptors are added. Default: 1 alone."
    flags.DEFINE(_Numbers(), "scales", None, words, values, flags.ListSerializer(","))


class _Numbers(flags.ArgumentParser):
    """Reads numbers with commas between."""

    def parse(self, argument):
        try:
            return [float(text) for text in argument.split(",")] if isinstance(argument, str) else list(argument)
        except ValueError:
            raise ValueError("it takes numbers with commas between, such as 1,0.7071,0.5") from None


def _check_new_model(values):
    for flag in ("shrinkage", "backbone", "levels", "weights", "whitening", "whiten", "scales"):
        if values.model is not None and flag in values and values[flag].present:
            raise UsageError(f"--{flag} does not go with --model: a saved model has its own")


def _define_engine(values, name, words):
    help_text = f"{words} auto: the fastest that is installed, measured once."
    flags.DEFINE_enum(name, "auto", ["tensorflow", "openvino", "ncnn", "auto"], help_text, flag_values=values)
    _define_precision(values)


def _define_precision(values):
    words = "exact: a cosine to TensorFlow in float32 of at least 0.999999; fast: of 0.9999."
    flags.DEFINE_enum("precision", "exact", ["exact", "fast"], words, flag_values=values)


def _define_engines(values):
    _define_new_model(values)
    _define_precision(values)
    flags.DEFINE_bool("anew", False, "Measure again.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print the table as JSON.", flag_values=values)


def _define_export(values):
    _define_new_model(values)
    flags.DEFINE_enum("format", "saved_model", list(_FORMATS), "What to write.", flag_values=values)
    flags.DEFINE_enum(
        "dtype", "float32", ["float32", "float16", "bfloat16"], "What a SavedModel keeps its weights as.", flag_values=values
    )
    flags.DEFINE_bool("int8", False, "Keep the weights of OpenVINO or LiteRT in 8 bits.", flag_values=values)
    flags.DEFINE_bool("batching", False, "Write TF Serving's batching parameters into the SavedModel.", flag_values=values)


def _define_search(values):
    flags.DEFINE_string("box", None, "x1,y1,x2,y2: the part of PHOTO that is asked for, in its pixels.", flag_values=values)
    flags.DEFINE_integer("k", 10, "How many hits.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "expand", None, "Query expansion over so many photos, the query among them.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "alpha", 0.0, "Goes with --expand: weigh each photo by its cosine to this power.", lower_bound=0, flag_values=values
    )
    _define_model(values)
    _define_weights(values)
    flags.DEFINE_multi_string(
        "within",
        [],
        "Only photos whose names begin with this; or a condition on a column, such as city=Oxford or year>=2005. May be repeated.",
        flag_values=values,
    )
    flags.DEFINE_float("min_score", None, "Leave out hits with a lower cosine.", flag_values=values)
    flags.DEFINE_string("engine", None, "What searches: numpy, faiss-flat, faiss-hnsw, faiss-ivfpq.", flag_values=values)
    _define_engine(values, "network_engine", "What computes the network on PHOTO.")
    flags.DEFINE_string("html", None, "A page of the hits to write.", flag_values=values)
    flags.DEFINE_string("sheet", None, "A picture of the hits to write.", flag_values=values)
    flags.DEFINE_string(
        "photos", None, "Where the photos lie, for --html and --sheet. Default: where they lay.", flag_values=values
    )
    flags.DEFINE_bool("json", False, "Print the hits as JSON.", flag_values=values)


def _define_check(values):
    flags.DEFINE_bool("json", False, "Print what was found as JSON.", flag_values=values)


def _define_merge(values):
    flags.DEFINE_string("output", None, "The index to write: a folder.", short_name="o", flag_values=values)


def _define_nothing(values):
    """A command without flags of its own."""


def _define_duplicates(values):
    flags.DEFINE_float("threshold", 0.95, "The lowest cosine of two photos that are almost the same.", 0, 1, flag_values=values)
    flags.DEFINE_bool("groups", False, "Print groups in place of pairs.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print them as JSON.", flag_values=values)


def _define_demo(values):
    flags.DEFINE_string("output", "rw_keras_demo.png", "The picture to write.", short_name="o", flag_values=values)
    flags.DEFINE_bool("json", False, "Print the figures as JSON.", flag_values=values)


def index_command(positional, values):
    """rw-keras index PHOTOS -o NAME: describe photos and write the index NAME, or bring it up to date.

    PHOTOS: a folder (with those below it), a glob in quotes, a .tar archive, or a text file of paths. Run again, it describes what
    is new or has changed, and drops what is gone; it takes its settings from the index, so no flag is needed. Interrupted, it goes
    on where it was.
    """
    _check_new_model(values)
    if len(positional) != 1:
        raise UsageError(f"index takes one source of PHOTOS, but got {len(positional)} arguments; quote a name that has spaces")
    if not values.output:
        raise UsageError("index needs -o NAME, the index to write")
    from rw_keras.commands.settings import check_flags, known_settings
    from rw_keras.description.extract import extract, listed_photos
    from rw_keras.description.update import check_loss
    from rw_keras.retrieval import columns, store

    (source,) = positional
    # All that can be refused is, before seconds are spent on the network.
    about = store.about(store.check_target(values.output))
    known = {} if about is None else known_settings(about)
    if not values.force:
        check_flags(values.output, known, {flag: values[flag].value for flag in known if values[flag].present})
    items = listed_photos(source, values.prune and about is not None)
    names = {item.name for item in items}
    check_loss(values.output, names, values.prune)
    table = columns.read_columns(values.metadata, names) if values.metadata else {}
    settings = _take_files(values, about)
    model = _model_for(values, about, known)
    engine, precision = (
        known.get(flag, values[flag].value) if not values[flag].present else values[flag].value for flag in ("engine", "precision")
    )
    done = extract(
        model,
        items,
        values.output,
        max_side=values.max_side if values["max_side"].present else known.get("max_side", values.max_side),
        batch_size=values.batch_size or "auto",
        workers=values.workers or "auto",
        resume=not values.force,
        dtype=values.dtype or known.get("dtype"),
        checksum=values.checksum,
        strict=values.strict,
        progress=not values.quiet,
        source=os.path.abspath(source) if os.path.isdir(source) else None,
        engine=engine,
        precision=precision,
        prune=values.prune,
        settings=settings,
    )
    if table:
        columns.add_columns(values.output, table)
    _tell_of_index(values, done, model.output_shape[-1])
    return LEFT_OUT if done.failures or done.unread else DONE


def _tell_of_index(values, done, dimensions):
    """The summary of `index`: all counts, and every photo that has no descriptor, or an old one, by name."""
    lists = {
        "left_out": (done.failures, "left out"),
        "unread": (done.unread, "could not be read now; what the index holds of them was kept"),
        "undecodable": (done.undecodable, "have changed and cannot be decoded; they left the index"),
    }
    if values.json:
        counts = {field: getattr(done, field) for field in ("described", "changed", "kept", "removed")}
        listed = {field: [{"name": name, "reason": reason} for name, reason in found] for field, (found, _) in lists.items()}
        print(json.dumps({"index": values.output, "photos": done.described + done.kept, **counts, **listed}))
        return
    print(f"{values.output}: {done} ({dimensions} dimensions, {done.seconds:.0f} s)")
    for found, words in lists.values():
        if found:
            print(f"{len(found)} {words}:")
            for name, reason in found:
                print(f"  {printable(name)}: {printable(reason)}")


def search_command(positional, values):
    """rw-keras search NAME PHOTO: find the photos of the index NAME that show what PHOTO shows, best first."""
    _check_new_model(values)
    if len(positional) != 2:
        raise UsageError(f"search takes an index and a photo, NAME PHOTO, but got {len(positional)} arguments")
    if values["alpha"].present and (values.expand or 1) == 1:
        raise UsageError(
            f"--alpha {values.alpha:g} weighs what --expand averages; give --expand a number above 1, or leave --alpha out"
        )
    from rw_keras.photos.reading import read_image
    from rw_keras.retrieval import Index, columns, store

    name, photo = positional
    box = _box(values.box)
    _take_files(values, store.about(name))
    _check_to_write(values)
    index = Index.load(name, searcher=values.engine)
    if index.recipe is None:
        raise ValueError(f"{name} does not say what model made it; search it from Python with Index.search")
    _check_recipe(name, index.recipe)
    read_image(photo, box, index.recipe.get("max_side", 1024))  # before seconds are spent on the network
    model = _describer_of(index.recipe, values)
    within = columns.condition(values.within, index.metadata)
    options = {"within": within, "min_score": values.min_score, "alpha": values.alpha}
    hits = index.search_photo(model, photo, box, values.k, values.expand, **options)
    if values.html or values.sheet:
        _show(name, photo, box, hits, values)
    if values.json:
        print(json.dumps([{"rank": rank, "name": hit, "cosine": score} for rank, (hit, score) in enumerate(hits, 1)]))
    else:
        print("rank  cosine  photo")
        for rank, (hit, score) in enumerate(hits, 1):
            print(f"{rank:4d}  {score:6.3f}  {printable(hit)}")
    return DONE


def _check_to_write(values):
    """Says so when `--html` or `--sheet` cannot be written: a page is no reason to make a folder."""
    from rw_keras.views.contact_sheet import check_picture

    for flag in ("html", "sheet"):
        path = values[flag].value
        if path and os.path.isdir(path):
            raise ValueError(f"--{flag} {path} is a folder; give the name of a file")
        folder = path and os.path.dirname(os.path.abspath(path))
        if path and not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no folder {folder} to write --{flag} {path} into; make it first, or choose another")
    if values.html:
        checked_path(values.html)
    if values.sheet:
        check_picture(values.sheet)


def _show(name, photo, box, hits, values):
    """Writes the pages that `search --html` and `--sheet` ask for."""
    from rw_keras.files import inside, written_whole
    from rw_keras.retrieval import store
    from rw_keras.views.result_page import result_page, search_sheet

    folder = values.photos or (store.about(name) or {}).get("source")
    found = [(rank, hit, score, folder and inside(folder, hit)) for rank, (hit, score) in enumerate(hits, 1)]
    if values.html:
        options = {"index": name, "k": values.k, "expansion": values.expand or "none"}
        if values.alpha:
            options["alpha"] = values.alpha
        page = result_page(photo, box, found, folder=os.path.dirname(os.path.abspath(values.html)), options=options)
        with written_whole(values.html) as file:
            file.write(page.encode("utf8"))
    if values.sheet:
        search_sheet(photo, box, found).save(values.sheet)


def duplicates_command(positional, values):
    """rw-keras duplicates NAME: photos of the index NAME that are almost the same, the most alike first."""
    if len(positional) != 1:
        raise UsageError(f"duplicates takes one index, NAME, but got {len(positional)} arguments")
    from rw_keras.retrieval import Index

    index = Index.load(positional[0])
    found = index.near_duplicates(values.threshold, groups=values.groups)
    if values.json:
        pairs = found if values.groups else [{"photos": [one, other], "cosine": score} for one, other, score in found]
        print(json.dumps(pairs))
        return DONE
    number = 0
    for number, one in enumerate(found, 1):
        if values.groups:
            print(("\n" if number > 1 else "") + "\n".join(map(printable, one)))
        else:
            print(f"{one[2]:6.3f}  {printable(one[0])}  {printable(one[1])}")
    if not number:
        print(f"{positional[0]}: no two photos have a cosine of {values.threshold:g} or more", file=sys.stderr)
    return DONE


def check_command(positional, values):
    """rw-keras check NAME: read all of the index NAME and compare it with its checksums.

    Exit codes: 0 it is as it was written; 1 it is damaged, with the files and the photos that are concerned.
    """
    if len(positional) != 1:
        raise UsageError(f"check takes one index, NAME, but got {len(positional)} arguments")
    from rw_keras.retrieval import store

    (name,) = positional
    found = store.check(name)
    if values.json:
        print(json.dumps([dataclasses.asdict(damage) for damage in found]))
    elif not found:
        print(f"{name}: no damage found")
    for damage in () if values.json else found:
        print(f"{name}: {damage.file}: {printable(damage.what)}")
        for photo in damage.photos:
            print(f"  {printable(photo)}")
    return FAILED if found else DONE


def merge_command(positional, values):
    """rw-keras merge NAME NAME ... -o NAME: join indices of one recipe into a new one; they stay as they are."""
    if len(positional) < 2:
        raise UsageError(f"merge takes two indices or more, but got {len(positional)} arguments")
    if not values.output:
        raise UsageError("merge needs -o NAME, the index to write")
    from rw_keras.retrieval.exchange import merge

    print(f"{values.output}: {merge(positional, values.output)} photos of {len(positional)} indices")
    return DONE


def export_vectors_command(positional, values):
    """rw-keras export-vectors NAME FILE: write the descriptors of the index NAME to a file for other tools.

    FILE ends in .npy: an array of float32, with the names beside it in a JSON list; or in .parquet: names, descriptors, metadata.
    """
    if len(positional) != 2:
        raise UsageError(f"export-vectors takes an index and a file, NAME FILE, but got {len(positional)} arguments")
    from rw_keras.retrieval.exchange import export_vectors

    name, path = positional
    print(f"{path}: {export_vectors(name, path)} descriptors of {name}")
    return DONE


def engines_command(positional, values):
    """rw-keras engines: what can compute the network on this machine, how fast, how exactly, and what --engine auto takes."""
    _check_new_model(values)
    if positional:
        raise UsageError(f"engines takes no arguments, but got {positional[0]!r}")
    model = _new_model(values)
    from rw_keras import runtimes as engines
    from rw_keras.model.recipe import smallest_side

    size = engines.usual_size(values.max_side, smallest_side(model))
    choice = engines.choose(model, values.precision, size, anew=values.anew)
    print(json.dumps(dataclasses.asdict(choice)) if values.json else choice)
    return DONE


def export_command(positional, values):
    """rw-keras export PATH: write a model that serves. PATH: a version folder, such as serving/rw_vgg16/1, or a file."""
    _check_new_model(values)
    if len(positional) != 1:
        raise UsageError(f"export takes one PATH, but got {len(positional)} arguments")
    (path,) = positional
    name, takes = _FORMATS[values.format]
    given = {flag: values[flag].value for flag in ("max_side", "dtype", "int8", "batching") if values[flag].present}
    superfluous = [flag for flag in given if flag not in takes]
    if superfluous:
        raise UsageError(f"--{superfluous[0]} does not go with --format {values.format}")
    if os.path.exists(checked_path(path)):
        raise FileExistsError(f"{path} exists already; choose another name, or the next version's folder")
    model = _new_model(values)
    from rw_keras.export import saved_model as export

    logging.set_verbosity(logging.WARNING)  # the converters tell every step
    getattr(export, name)(model, path, **given)
    print(f"{path}: {model.name}, {model.output_shape[-1]} dimensions")
    return DONE


def demo_command(positional, values):
    """rw-keras demo: index ten photos that need no download, search harder views of them, and draw the result."""
    if positional:
        raise UsageError(f"demo takes no arguments, but got {positional[0]!r}")
    _load_keras_quietly()
    from rw_keras.commands.demo import demo

    result = demo(values.output)
    print(json.dumps(result) if values.json else _demo_table(result))
    return DONE


def _demo_table(result):
    lines = [
        f"{result['photos']} photos, {result['queries']} queries: halves, perspectives, rotated, blurred, compressed, dimmed views",
        "",
        "                              mAP   first hit right",
    ]
    lines += [f"{name:28s}{m['map']:6.3f}   {m['right']} of {result['queries']}" for name, m in result["measured"].items()]
    lines += [
        "",
        "A smoke test: ten photos are told apart by nearly anything. rw is whitened with shrinkage 0.2; expansion (QE) averages",
        "the query with its first hit.",
        f"picture: {result['picture']}",
    ]
    return "\n".join(lines)


def _load_keras_quietly():
    """Imports Keras and its backend without TensorFlow's start-up lines, which no setting of its own keeps back."""
    error_stream = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for a GPU, and says so where there is none
    finally:
        os.dup2(error_stream, 2)
        os.close(error_stream)
        os.close(silence)


def _new_model(values):
    """The model of a .keras file, or one built as the flags say."""
    _load_keras_quietly()
    from rw_keras.model.build import build_descriptor, multi_scale

    if values.model is not None:
        return _saved_model(values.model)
    model = build_descriptor(
        values.backbone,
        weights=values.weights or "imagenet",
        levels=values.levels,
        shrinkage=values.shrinkage,
        whitening=values.whitening or "auto",
        whiten=values.whiten,
    )
    return model if values.scales is None else multi_scale(model, values.scales)


def _check_recipe(name, recipe):
    """Refuses a recipe whose fields are of other kinds than a model writes; their values are looked at as the model is built."""
    kinds = {"whitening": (dict, type(None)), "min_side": int, "max_side": (int, type(None)), "backbone": str, "method": str}
    for field, kind in kinds.items():
        if field in recipe and not isinstance(recipe[field], kind):
            raise ValueError(f"{name} is damaged: its recipe has {field} {recipe[field]!r}; make it again with `rw-keras index`.")


def _describer_of(recipe, values):
    """What describes a query: the model that made an index, on the engine asked for; without Keras, where it was used before."""
    from rw_keras import runtimes as engines

    plain = (values.network_engine, values.precision) == ("tensorflow", "exact")
    size = engines.usual_size(recipe.get("max_side", 1024), recipe.get("min_side", 1))
    given = any(values[flag].present for flag in ("model", "weights", "whitening"))
    if not plain and not given:
        found = engines.load_cached(recipe, values.network_engine, values.precision, size=size)
        if found is not None:
            return found
    model = _model_of(recipe, values)
    return model if plain else engines.load(model, values.network_engine, values.precision, size=size)


def _take_files(values, about):
    """Takes files that an index was made with, where the flags name none; flag -> absolute path of those that count."""
    noted = (about or {}).get("settings") or {}
    for flag in ("model", "weights", "whitening"):
        if not values[flag].present and not values["model"].present and noted.get(flag):
            values[flag].value = noted[flag]
    return {flag: os.path.abspath(values[flag].value) for flag in ("model", "weights", "whitening") if values[flag].value}


def _model_for(values, about, known):
    """The model that `index` describes with: as the flags say, and where they say nothing as an index that is there was made."""
    given = [flag for flag in ("backbone", "levels", "shrinkage", "whiten", "scales") if values[flag].present]
    if about is None or about["recipe"] is None or (values.force and given):
        for flag in known.keys() & {"backbone", "levels", "shrinkage", "whiten", "scales"} - set(given):
            values[flag].value = known[flag]
        return _new_model(values)
    return _model_of(about["recipe"], values)


def _model_of(recipe, values):
    """The model that made an index: of a .keras file, or built as the index's recipe says."""
    _load_keras_quietly()
    from rw_keras.model.build import build_descriptor, multi_scale

    if values.model is not None:
        return _saved_model(values.model)
    whitening = recipe.get("whitening") or {}
    try:
        model = build_descriptor(
            recipe["backbone"],
            weights=values.weights or "imagenet",
            layer=recipe["layer"],
            method=recipe["method"],
            levels=recipe["levels"] or 3,
            components=whitening.get("components"),
            shrinkage=whitening.get("shrinkage", 0.0),
            whitening=(values.whitening or "auto") if whitening else None,
            whiten=recipe.get("whiten", "regions"),
        )
        return multi_scale(model, recipe["scales"]) if "scales" in recipe else model
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"the model that made the index is not one that its recipe can build; pass it with --model ({error})"
        ) from error


def _saved_model(path):
    from rw_keras.model.build import load_model

    model = load_model(path)
    if "min_side" not in getattr(model, "recipe", {}):
        raise ValueError(f"{path} holds the model {model.name!r}, which is none that rw_keras.build_descriptor made")
    return model


def _box(text):
    if text is None:
        return None
    try:
        box = tuple(float(number) for number in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise UsageError(f"--box takes four numbers x1,y1,x2,y2, but got {text!r}")
    return box


# Format -> the function of `rw_keras.export.saved_model` that writes it, and the flags that go with it.
_FORMATS = {
    "saved_model": ("export_saved_model", ("max_side", "dtype", "batching")),
    "onnx": ("export_onnx", ()),
    "openvino": ("export_openvino", ("int8",)),
    "litert": ("export_litert", ("int8",)),
}

_COMMANDS = {
    "index": (index_command, _define_index),
    "search": (search_command, _define_search),
    "duplicates": (duplicates_command, _define_duplicates),
    "check": (check_command, _define_check),
    "merge": (merge_command, _define_merge),
    "export-vectors": (export_vectors_command, _define_nothing),
    "engines": (engines_command, _define_engines),
    "export": (export_command, _define_export),
    "demo": (demo_command, _define_demo),
}
