"""Which runtime is the fastest here: measured once a machine, and kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rw_keras._moved import RenamedAttribute, renamed
from rw_keras.runtimes import cache
from rw_keras.runtimes.describer import RUNTIMES, KnownModel, ModelRuntimes, check_installed, least_seconds, record, usable
from rw_keras.runtimes.keras_backend import BACKENDS, KERAS, settled_runtime_name
from rw_keras.runtimes.promises import PRECISIONS, keeps

if TYPE_CHECKING:
    import keras

# After a run that warms up, candidates go by turns for so many rounds, and no longer than so many seconds in all.
_ROUNDS, _SECONDS = 4, 4.0
# A candidate that takes so many times as long as the best on a small photo of its check is not measured.
_HOPELESS = 4.0
# Below this gain times differ by chance: the earlier one, which is the plainer one, stays.
_GAIN = 0.05


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was taken, and why.

    Attributes:
        runtime, variant: what was taken.
        precision: "exact", "fast" or "int8".
        size: (height, width) of the photo that was measured.
        rows: a dictionary a candidate: `runtime`, `variant`, `cosine` (the lowest) and `mean`, `seconds` (`None` where it was not
            measured), and `note`.
    """

    runtime: str
    variant: str
    precision: str
    size: tuple[int, int]
    rows: list[dict[str, Any]]

    engine = RenamedAttribute("runtime")

    def __str__(self):
        height, width = self.size
        mean = "mean " if self.precision == "int8" else ""
        lines = [
            f"{cache.machine()['processor']}, {cache.cores()} cores; one photo of {width} x {height}; {self.precision}: "
            f"{mean}cosine to Keras in float32 at least {PRECISIONS[self.precision]}",
            "",
            f"{'runtime':12s}{'computes in':14s}{'lowest cosine':>15s}{'mean cosine':>13s}{'seconds':>10s}",
        ]
        for row in self.rows:
            cosine, mean = ("" if row[field] is None else f"{row[field]:.7f}" for field in ("cosine", "mean"))
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.3f}"
            lines.append(f"{row['runtime']:12s}{row['variant']:14s}{cosine:>15s}{mean:>13s}{seconds:>10s}  {row['note']}".rstrip())
        return "\n".join(lines)


def usual_size(max_side: int | None, min_side: int = 1) -> tuple[int, int]:
    """(height, width) to measure at for photos reduced to `max_side`: at most 512 x 384, beyond which proportions stay."""
    width = max(min(max_side or 512, 512), min_side)
    return max(width * 3 // 4, min_side), width


@renamed(engines="runtimes")
def choose(
    model: keras.Model,
    precision: str = "exact",
    size: tuple[int, int] = (384, 512),
    *,
    runtimes: Sequence[str] | None = None,
    few_sizes: bool = False,
    anew: bool = False,
) -> Choice:
    """Measures the runtimes that are installed, and takes the fastest that keeps the promise. Kept for the next time.

    Args:
        model: a model of `build_descriptor`.
        precision: "exact", "fast" or "int8".
        size: (height, width) of the photos.
        runtimes: which may be taken. Default: `usable()`, all that this process can use.
        few_sizes: whether TensorFlow's XLA is measured as well. It compiles for seconds at every new size of a photo.
        anew: whether to measure again what an earlier run has measured.

    Raises:
        ValueError: for an argument out of range, or when no runtime keeps the promise.
        ImportError: when the only runtime that may be taken is not installed.
    """
    check_arguments("auto", precision)
    runtimes = usable() if runtimes is None else tuple(map(settled_runtime_name, runtimes))
    own = ModelRuntimes.of(model)
    name, field = own.known.measured_name(), _field(precision, size, runtimes, few_sizes)
    kept = None if anew else _kept(own.known, field)
    if kept is not None:
        return kept
    if len(runtimes) == 1:
        # Not another way of computing in its place: a runtime that was named is to be what it can be.
        check_installed(runtimes[0], RUNTIMES[runtimes[0]].VARIANTS[precision][-1])
    rows, running = _checked(own, precision, runtimes, few_sizes)
    least = min((seconds for seconds, _ in running), default=0)
    for seconds, row in running:
        if seconds > _HOPELESS * least:
            row["note"] = f"{seconds / least:.0f} times as slow as the best on a small photo"
    _measure(own, [row for _, row in running if not row["note"]], size)
    best = None
    for row in rows:
        if row["seconds"] is not None and (best is None or row["seconds"] < best["seconds"] * (1 - _GAIN)):
            best = row
    if best is None:
        reasons = "; ".join(f"{row['runtime']} {row['variant']}: {row['note']}" for row in rows)
        raise ValueError(f'None of {", ".join(runtimes)} keeps precision="{precision}" for {model.name!r}: {reasons}.')
    best["note"] = "taken: the fastest"
    others = [row for row in rows if row["seconds"] is not None and row is not best]
    if any(row["seconds"] <= best["seconds"] for row in others):
        best["note"] = "taken: none is faster by more than chance"
    for row in others:
        row["note"] = f"{row['seconds'] / best['seconds']:.2f} times its time"
    choice = Choice(best["runtime"], best["variant"], precision, tuple(size), rows)
    record(name, "choices", field, dataclasses.asdict(choice))
    return choice


def kept_choice(model: KnownModel, precision: str, size: tuple[int, int], runtimes: Sequence[str] | None = None) -> Choice | None:
    """What `choose` has taken earlier on this machine, without Keras."""
    return _kept(model, _field(precision, size, usable() if runtimes is None else runtimes, False))


def check_arguments(runtime: str, precision: str) -> None:
    """Raises a ValueError for a runtime or a precision that there is not."""
    if runtime not in (*RUNTIMES, KERAS, "auto"):
        raise ValueError(f"runtime is one of auto, {KERAS}, {', '.join(RUNTIMES)}, but got {runtime!r}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, but got {precision!r}.")


def _field(precision, size, runtimes, few_sizes):
    return f"{precision} {size[1]}x{size[0]} {' '.join(runtimes)}" + (" few sizes" if few_sizes else "")


def _kept(model, field):
    found = cache.read_json(model.measured_name()).get("choices", {}).get(field)
    try:
        return Choice(**{**found, "size": tuple(found["size"])})
    except (TypeError, KeyError):  # nothing, or other fields
        return None


def _checked(own, precision, runtimes, few_sizes):
    """A row for each candidate; and of those that keep the promise, the seconds that they took on a small photo, and the row."""
    rows, running = [], []
    for runtime in runtimes:
        for variant in RUNTIMES[runtime].VARIANTS[precision]:
            row = {"runtime": runtime, "variant": variant, "cosine": None, "mean": None, "seconds": None, "note": ""}
            if not _applies(runtime, variant, few_sizes):
                continue
            rows.append(row)
            try:
                check = own.check(runtime, variant)
            except ImportError as error:
                if variant == "int8":  # the runtime is there, and what quantises is not
                    row["note"] = str(error)
                    continue
                row["variant"], row["note"] = "", f'not installed: pip install "rw_keras[{RUNTIMES[runtime].EXTRA}]"'
                break
            except (ValueError, RuntimeError) as error:
                row["note"] = str(error)
                continue
            row["cosine"], row["mean"] = check["cosine"], check["mean"]
            if not keeps(check, precision):
                row["note"] = "cosine too low"
            else:
                running.append((check["seconds"], row))
    return rows, running


def _applies(runtime, variant, few_sizes):
    if "xla" in variant:
        return few_sizes
    # On a processor, float16 is slower than float32.
    return not (runtime in BACKENDS and variant == "float16") or bool(RUNTIMES[runtime].accelerators())


def _measure(own, rows, size):
    """Gives each row its seconds: the least of several runs, by turns, so that what else the machine does falls on all alike.

    A turn is two runs: the threads of the runtime before go on waiting for work a while, and take the processor from the first.
    """
    soft = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), "uint8"))
    pixels = np.asarray(soft.resize((size[1], size[0]), Image.Resampling.BICUBIC))[None]
    functions = [own.function(row["runtime"], row["variant"]) for row in rows]
    for function in functions:
        function(pixels)
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        for row, function in zip(rows, functions):
            seconds = least_seconds(function, pixels, 2)
            row["seconds"] = seconds if row["seconds"] is None else min(seconds, row["seconds"])
        if time.perf_counter() - began > _SECONDS:
            break
