"""How fast work goes and how long the rest of it takes, in figures and in words."""

from __future__ import annotations

from bisect import bisect_right

from recognition.events import Progress

POINTS = 64
"""How finely the time so far is remembered."""


class Pace:
    """The speed of counted work, over the later half of the time so far: it follows a change, and no single pause."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._now = (0.0, 0.0)
        self._total = 0.0

    def see(self, seconds: float, done: float, total: float) -> None:
        """Note that at some second so much of the total was done. Other work, or work done anew, begins afresh."""
        if not self._points or total != self._total or done < self._now[1]:
            self._points = [(seconds, done)]
            self._total = total
        self._now = (seconds, done)
        began, last = self._points[0][0], self._points[-1][0]
        if seconds - last > max(seconds - began, 1.0) / POINTS:
            self._points.append(self._now)
        # the oldest is kept as the beginning; what lies between it and the half is needed no more
        half = self._half()
        del self._points[1 : half - 1]

    @property
    def rate(self) -> float:
        """Done a second; 0 while it cannot be told."""
        if not self._points:
            return 0.0
        since, before = self._points[max(0, self._half() - 1)]
        seconds, done = self._now
        return (done - before) / (seconds - since) if seconds > since else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the total is done; None while it cannot be told."""
        return (self._total - self._now[1]) / self.rate if self.rate > 0 else None

    def _half(self) -> int:
        """How many points lie in the first half of the time so far."""
        began = self._points[0][0]
        return bisect_right(self._points, ((began + self._now[0]) / 2, float("inf")))


def duration(seconds: float) -> str:
    """A time in one unit, or two where the larger one alone would be coarse: 40 s, 2 min 5 s, 3 h 10 min, 2 d 4 h."""
    whole = round(seconds)
    for size, name, smaller, other in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {other}" if rest else "")
    return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"


def left_in_words(seconds: float) -> str:
    """What is left of work, no more exactly than it can be known."""
    if seconds < 5:
        return "a few seconds left"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s left"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min left"
    # in quarters of an hour, and of a day in hours
    step = 15 * 60 if seconds < 86400 else 3600
    return f"about {duration(step * round(seconds / step))} left"


def size(number: float) -> str:
    """Bytes for people."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:.0f} bytes"


def described(event: Progress, pace: Pace) -> str:
    """A stage's progress in one line: what it does, how far it is, what is left, and how fast it goes."""
    counted = size if event.unit == "bytes" else _plain
    parts = [event.text] if event.text else []
    if event.unit != "steps":
        parts.append(f"{counted(event.done)} of {counted(event.total)}")
    if pace.left is not None and event.done < event.total:
        parts.append(left_in_words(pace.left))
    rate = f"{counted(pace.rate)}{'' if event.unit == 'bytes' else f' {event.unit}'}/s" if pace.rate else ""
    return f"{event.stage}: {', '.join(parts)}" + (f" ({rate})" if rate else "")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
