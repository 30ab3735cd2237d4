"""A timeline as a Gantt chart: lines for a terminal, or a picture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from bus import clock
from bus.reports import Bar, Timeline
from bus_cli.text import milliseconds, moment, safe

LABEL = 28  # characters
ROW, LEFT, WIDE, TICKS = 18, 260, 900, 6  # of the picture, in its units
FITTING = 38  # characters of a label in the picture, left of the bars
IDLE = "#cfd8dc"
COLOURS = {
    "completed": "#2e7d32",
    "failed": "#c62828",
    "killed": "#6a1b9a",
    "running": "#1565c0",
    "spawned": "#90a4ae",
}


class Scale:
    """Where a moment lies between the first spawn and the last end, 0 to 1."""

    def __init__(self, timeline: Timeline) -> None:
        self._now = timeline.now
        self.first = min((bar.spawned for bar in timeline.agents), default=timeline.now)
        self.last = max((self.end(bar) for bar in timeline.agents), default=timeline.now)

    def __call__(self, seconds: float) -> float:
        length = self.last - self.first
        return min(max((seconds - self.first) / length, 0.0), 1.0) if length > 0 else 0.0

    def end(self, bar: Bar) -> float:
        """When a bar ends: now, if it runs still; where it began, if nobody knows."""
        if bar.status in ("spawned", "running"):
            return max(self._now, bar.spawned)
        return bar.ended if bar.ended is not None else bar.started or bar.spawned


def _by_priority(timeline: Timeline) -> list[tuple[str | None, list[Bar]]]:
    order = {priority.priority_number: place for place, priority in enumerate(reversed(timeline.priorities))}
    bars = sorted(timeline.agents, key=lambda bar: -order.get(bar.priority_number, -1))
    return [(name, list(group)) for name, group in groupby(bars, key=lambda bar: bar.priority_number)]


def _title(name: str | None) -> str:
    return "no priority" if name is None else f"priority {name}"


def lines(timeline: Timeline) -> Iterator[str]:
    """The chart for a terminal, as wide as that is."""
    if not timeline.agents:
        yield "no agent is on record"
        return
    scale = Scale(timeline)
    width = max(shutil.get_terminal_size((110, 24)).columns - LABEL - 12, 20)
    first, last = (moment(datetime.fromtimestamp(seconds, UTC)) for seconds in (scale.first, scale.last))
    yield f"{first} to {last}, {milliseconds((scale.last - scale.first) * 1000)}"
    for name, bars in _by_priority(timeline):
        yield safe(_title(name))
        for bar in bars:
            label = _label(f"  {bar.agent_id} {bar.agent_type} {bar.task_id}", LABEL)
            yield f"{label:<{LABEL}} {_drawn(bar, scale, width)} {_took(bar, scale)}"


def _label(words: str, most: int) -> str:
    shown = safe(words)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _drawn(bar: Bar, scale: Scale, width: int) -> str:
    first, last = (min(int(scale(moment) * width), width - 1) for moment in (bar.spawned, scale.end(bar)))
    started = last if bar.started is None else min(max(int(scale(bar.started) * width), first), last)
    tip = ">" if bar.status in ("spawned", "running") else "?" if bar.ended is None else ""
    work = "█" * max(last - started - len(tip), not tip) + tip
    return (" " * first + "░" * (started - first) + work).ljust(width)


def _took(bar: Bar, scale: Scale) -> str:
    known = bar.ended is not None or bar.status in ("spawned", "running")
    return milliseconds((scale.end(bar) - bar.spawned) * 1000 if known else None)


def svg(timeline: Timeline) -> str:
    """The chart as an SVG picture; moments are in UTC."""
    scale = Scale(timeline)
    rows: list[str] = []
    place = 2
    for name, bars in _by_priority(timeline):
        rows.append(_text(8, place, _title(name), "bold"))
        for bar in bars:
            place += 1
            rows += _row(bar, scale, place)
        place += 1
    rows += _legend(place + 1)
    height = (place + 2) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDE + 20}" height="{height}" font-family="sans-serif"'
    )
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'{head} font-size="11">', ground, *_axis(scale, height), *rows, "</svg>"]) + "\n"


def _row(bar: Bar, scale: Scale, place: int) -> list[str]:
    begin, end = (LEFT + scale(moment) * WIDE for moment in (bar.spawned, scale.end(bar)))
    started = end if bar.started is None else LEFT + scale(bar.started) * WIDE
    title = f"{bar.agent_id} {bar.agent_type} {bar.task_id}: {bar.status}, {_took(bar, scale)}"
    return [
        _text(20, place, _label(f"{bar.agent_id} {bar.agent_type} {bar.task_id}", FITTING)),
        f"<g><title>{escape(safe(title))}</title>",
        _box(begin, started, place, IDLE),
        _box(started, max(end, started + 1), place, COLOURS.get(bar.status, "#455a64")) + "</g>",
    ]


def _legend(place: int) -> Iterator[str]:
    """What the colours mean."""
    colours = {"idle": IDLE, **{status: colour for status, colour in COLOURS.items() if status != "spawned"}}
    for number, (words, colour) in enumerate(colours.items()):
        x = LEFT + number * 100
        yield _box(x, x + 12, place, colour)
        yield _text(x + 18, place, words)


def _axis(scale: Scale, height: int) -> Iterator[str]:
    between = (scale.last - scale.first) / TICKS
    for tick in range(TICKS + 1):
        x = LEFT + WIDE * tick / TICKS
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{ROW * 1.4:.1f}" y2="{height - ROW}" stroke="#eceff1"/>'
        if tick < TICKS:
            yield _text(x, 1, clock.stamp(scale.first + between * tick)[: 19 if between >= 1 else 23])


def _text(x: float, place: int, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{place * ROW:.1f}" font-weight={quoteattr(weight)}>{escape(safe(words))}</text>'


def _box(begin: float, end: float, place: int, colour: str) -> str:
    y = place * ROW - 11
    return f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 0):.1f}" height="12" fill={quoteattr(colour)}/>'
