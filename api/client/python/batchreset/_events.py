"""Reads Server-Sent Events (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Iterator, Union

from ._waits import FIRST_WAIT


@dataclass
class Event:
    """One event."""

    id: str = ""
    name: str = ""
    data: str = ""


@dataclass
class Retry:
    """What a stream says about coming back."""

    seconds: float


@dataclass
class Line:
    """A line, of a comment, too: a sign of life."""


def read_events(lines: Iterable[str]) -> Iterator[Union[Event, Retry, Line]]:
    """Tells of every line, and then what it brings. An event that was cut is none."""
    event = Event()
    for ended in lines:
        yield Line()
        line = ended[:-1] if ended.endswith("\n") else ended
        line = line[:-1] if line.endswith("\r") else line
        if not line:
            if event.data:
                yield event
            event = Event()
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "id":
            event.id = value
        elif name == "event":
            event.name = value
        elif name == "data":
            event.data += f"\n{value}" if event.data else value
        elif name == "retry" and re.fullmatch(r"\d+", value, re.ASCII):
            yield Retry(max(FIRST_WAIT, min(int(value) / 1000, 60.0)))
