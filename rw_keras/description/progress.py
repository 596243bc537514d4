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
    """

    def __init__(self, total: int | None, shown: bool) -> None:
        self._total, self._shown = total, shown
        self._done = self._failed = self._new = 0
        self._bar = None

    def __enter__(self):
        self._began = self._last = time.monotonic()
        if self._shown and sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(desc="describing photos", total=self._total, unit="photo", smoothing=0.05)
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def advance(self, failed: bool, new: bool = True) -> None:
        """Counts a photo: whether it was left out, and whether it was read now, as those are that the rate is of."""
        self._done, self._failed, self._new = self._done + 1, self._failed + failed, self._new + new
        if self._bar is not None:
            self._bar.update()
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
