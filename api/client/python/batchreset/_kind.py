"""What jobs and runs are called, and where they are."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import FrozenSet, Generic, List, Mapping, Optional, Tuple, TypeVar, cast

from ._connection import Answer

Record = TypeVar("Record", bound=Mapping[str, object])


@dataclass(frozen=True)
class Kind(Generic[Record]):
    """A kind of record."""

    name: str
    """What paths, IDs and events call it: job or run."""
    open: FrozenSet[str]
    """The states that are not final."""

    @property
    def list_path(self) -> str:
        """Is the path of the list of such records."""
        return f"/v1/{self.name}s"

    def path(self, record_id: str, below: str = "") -> str:
        """Gives the path of a record, or of what is below it."""
        if record_id in ("", ".", ".."):  # a proxy may lose these, and then it is another operation's
            raise ValueError(f"{record_id!r} is not the ID of a {self.name}")
        return f"{self.list_path}/{urllib.parse.quote(record_id, safe='')}" + (f"/{below}" if below else "")

    def final(self, record: Record) -> bool:
        """Tells whether it has ended."""
        return record["state"] not in self.open

    def is_record(self, data: object) -> bool:
        """Tells whether it is such a record."""
        if not isinstance(data, dict):
            return False
        fields = cast(Mapping[str, object], data)
        return bool(fields.get(f"{self.name}_id") and fields.get("state"))

    def record_of(self, answer: Answer) -> Record:
        """Reads the record in an answer."""
        if not answer.fields:
            raise answer.unusable("data that cannot be read")
        return self._checked(answer, answer.fields)

    def page_of(self, answer: Answer) -> Tuple[List[Record], Optional[str]]:
        """Reads the records, and where there are more, in a page of a list."""
        records = answer.fields.get(f"{self.name}s")
        if not isinstance(records, list):
            raise answer.unusable(f"no list of {self.name}s")
        return [self._checked(answer, record) for record in cast(List[object], records)], answer.fields.get("next_cursor")

    def _checked(self, answer: Answer, data: object) -> Record:
        if not self.is_record(data):
            raise answer.unusable(f"a record without {self.name}_id or state")
        return cast(Record, data)
