"""How far a long run is, on standard error."""

import sys
import time

# Between two lines, where standard error is no terminal.
_LINE_SECONDS = 30


class Progress:
    """One bar on a terminal, a line now and then elsewhere, or nothing; for a `with` statement.

    Args:
        total: how many photos there are; `None` where that is not known.
        shown: whether to show anything.
        words: what is done with them.
    """

    def __init__(self, total: int | None, shown: bool, words: str = "describing photos") -> None:
        self._total, self._shown, self._words = total, shown, words
        self._done = self._failed = self._new = 0
        self._bar = None

    def __enter__(self):
        self._began = self._last = time.monotonic()
        if self._shown and sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(desc=self._words, total=self._total, unit="photo", smoothing=0.05)
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def advance(self, failed: int, new: bool = True, count: int = 1) -> None:
        """Counts photos: how many were left out, whether they were read now, as those are that the rate is of, and how many."""
        self._done, self._failed, self._new = self._done + count, self._failed + failed, self._new + new * count
        if self._bar is not None:
            self._bar.update(count)
            if failed:
                self._bar.set_postfix_str(f"{self._failed} left out")
        elif self._shown and time.monotonic() - self._last > _LINE_SECONDS:
            self._last = time.monotonic()
            rate = self._new / (self._last - self._began)
            words = f"rw_keras: {self._done}" + (f" of {self._total}" if self._total else "") + f" photos, {rate:.1f} a second"
            if self._total and rate:
                words += f", {_duration((self._total - self._done) / rate)} left"
            print(f"{words}, {self._failed} left out", file=sys.stderr, flush=True)


def _duration(seconds):
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
