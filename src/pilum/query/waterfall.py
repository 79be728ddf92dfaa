"""The requests of a query over time: which fragment waited for what, when.

```
fragment 0  file        ░░███
fragment 1  file        ░░░███                        all start together: good
fragment 2  data              ░██ ×2                  starts when another ends: a dependent round, or a queue
```

Light is waiting for the first byte, dark the answer arriving; where the client does not tell, all is dark.  ``×2`` took
two attempts.

A scan that opens one fragment after another is a staircase here.  `Waterfall.text` draws for a terminal, `svg` and
`html` make files that need nothing else.
"""

from __future__ import annotations

import bisect
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilum.io.tracing import Request

__all__ = ["Bar", "Waterfall", "dependent_rounds"]

_ROW = 14  # pixels
_LEFT = 260
_COLOURS = {
    "data": "#4477aa",
    "file": "#228833",
    "metadata": "#ccbb44",
    "page metadata": "#ee6677",
    "": "#888888",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One request.

    Attributes:
        label: fragment or file, and what the bytes were for.
        start, end: seconds since the query began.
        nbytes: bytes moved.
        who: what the bytes were for.
        first_byte: seconds since the query began when the answer began; None if that is not known.
        retries: attempts that failed before.
        cached: no request: a disk cache had the bytes.
    """

    label: str
    start: float
    end: float
    nbytes: int
    who: str
    first_byte: float | None = None
    retries: int = 0
    cached: bool = False

    @property
    def waited(self) -> float:
        """Seconds since the query began up to which nothing had arrived."""
        return self.start if self.first_byte is None else min(self.end, max(self.start, self.first_byte))


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The requests of one query, first asked first.

    Attributes:
        bars: one for each request, and for each read that a disk cache answered.
        elapsed: seconds the query took.
    """

    bars: tuple[Bar, ...]
    elapsed: float

    @classmethod
    def of(
        cls, requests: Sequence[Request], started: float, elapsed: float, fragments: Mapping[str, int]
    ) -> Waterfall:
        """From a trace.

        Args:
            requests: the log.
            started: when the query began, in seconds of `time.perf_counter`.
            elapsed: how long it took, seconds.
            fragments: fragment id by the name of a data file.
        """
        bars = []
        for request in sorted(requests, key=lambda one: one.started):
            name = request.path.rsplit("/", 1)[-1]
            found = fragments.get(name)
            owner = name if found is None else f"fragment {found}"
            cached = request.kind == "cache"
            who = request.who or request.kind
            label = f"{owner} {who}" + (" (cache)" if cached else "")
            began, ended = request.started - started, request.finished - started
            first = None if request.first_byte is None else request.first_byte - started
            size = request.end - request.start
            bars.append(Bar(label, began, ended, size, who, first, request.retries, cached))
        return cls(tuple(bars), elapsed)

    @property
    def rounds(self) -> int:
        """Dependent rounds: the longest chain of requests each of which began after the one before it ended."""
        return dependent_rounds([(bar.start, bar.end) for bar in self.bars if not bar.cached])

    @property
    def first_byte(self) -> float | None:
        """Seconds since the query began when the first byte of an answer came; None if clients did not tell."""
        return min([bar.first_byte for bar in self.bars if bar.first_byte is not None], default=None)

    @property
    def _summary(self) -> str:
        made = [bar for bar in self.bars if not bar.cached]
        parts = [
            f"{len(made)} requests, {sum([bar.nbytes for bar in made]):,} bytes",
            f"at most {self.rounds} one after the other",
        ]
        retries = sum([bar.retries for bar in made])
        if retries:
            parts.append(f"{retries} retries")
        if len(made) < len(self.bars):
            size = sum([bar.nbytes for bar in self.bars if bar.cached])
            parts.append(f"{len(self.bars) - len(made)} reads of {size:,} bytes from the cache")
        if self.first_byte is not None:
            parts.append(f"first byte after {self.first_byte * 1e3:.1f} ms")
        return ", ".join([*parts, f"{self.elapsed * 1e3:.1f} ms"])

    def text(self, width: int = 100, most: int = 60) -> str:
        """For a terminal: one line a request, at most ``most`` of them."""
        shown = self.bars[:most]
        left = max([len(bar.label) for bar in shown], default=0) + 2
        columns = max(10, width - left - 12)
        scale = columns / max(self.elapsed, 1e-9)
        lines = [self._summary]
        for bar in shown:
            low = min(columns - 1, max(0, int(bar.start * scale)))
            size = max(1, min(columns - low, round((bar.end - bar.start) * scale)))
            light = min(size - 1, round((bar.waited - bar.start) * scale))
            drawn = " " * low + "░" * light + "█" * (size - light)
            again = f" ×{bar.retries + 1}" if bar.retries else ""
            lines.append(f"{bar.label:<{left}}{drawn:<{columns}} {_size(bar.nbytes):>9}{again}")
        if len(self.bars) > most:
            lines.append(f"… and {len(self.bars) - most} more")
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.text()

    def svg(self, width: int = 1000) -> str:
        """As SVG, self-contained; every bar says more when pointed at."""
        height = _ROW * (len(self.bars) + 3)
        scale = (width - _LEFT - 10) / max(self.elapsed, 1e-9)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="monospace" font-size="10">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="4" y="{_ROW - 3}" font-weight="bold">{html.escape(self._summary)}</text>',
        ]
        for step in range(5):
            x = _LEFT + scale * self.elapsed * step / 4
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_ROW}" y2="{height}" stroke="#dddddd"/>'
                f'<text x="{x:.1f}" y="{2 * _ROW - 3}" text-anchor="{"end" if step == 4 else "start"}">'
                f"{self.elapsed * step / 4 * 1e3:.1f} ms</text>"
            )
        for row, bar in enumerate(self.bars):
            y = _ROW * (row + 2)
            colour = _COLOURS.get(bar.who, _COLOURS[""])
            tip = f"{bar.label}: {bar.start * 1e3:.2f} to {bar.end * 1e3:.2f} ms, {bar.nbytes:,} bytes"
            if bar.first_byte is not None:
                tip += f", first byte at {bar.first_byte * 1e3:.2f} ms"
            if bar.retries:
                tip += f", {bar.retries + 1} attempts"
            parts.append(
                f'<text x="4" y="{y + _ROW - 4}">{html.escape(bar.label[:40])}</text>'
                f'<rect x="{_LEFT + bar.start * scale:.1f}" y="{y + 1}" height="{_ROW - 2}" '
                f'width="{max(1.0, (bar.end - bar.start) * scale):.1f}" fill="{colour}">'
                f"<title>{html.escape(tip)}</title></rect>"
            )
            if bar.waited > bar.start:
                parts.append(
                    f'<path d="M{_LEFT + bar.start * scale:.1f} {y + 1}h{(bar.waited - bar.start) * scale:.1f}'
                    f'v{_ROW - 2}H{_LEFT + bar.start * scale:.1f}z" fill="white" opacity="0.6" '
                    f'pointer-events="none"/>'
                )
        return "\n".join([*parts, "</svg>"]) + "\n"

    def html(self, width: int = 1000) -> str:
        """A page of its own around `svg`."""
        return (
            '<!doctype html><html><head><meta charset="utf-8"><title>requests of a query</title></head><body>\n'
            f"{self.svg(width)}</body></html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file: SVG when its name ends so, else HTML."""
        text = self.svg() if os.fspath(path).endswith(".svg") else self.html()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def dependent_rounds(spans: Sequence[tuple[float, float]]) -> int:
    """The longest chain of requests, each of which began after the one before it had ended."""
    # first_end[n]: when the earliest chain of n + 1 requests has ended; it ascends.
    first_end: list[float] = []
    for start, end in sorted(spans, key=lambda span: span[1]):
        if bisect.bisect_right(first_end, start) == len(first_end):
            first_end.append(end)
    return len(first_end)


def _size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes} {unit}"
        nbytes //= 1024
    return f"{nbytes} GiB"
