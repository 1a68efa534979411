"""What a producer has handed over and the store has not acked: kept in order, until it is.

Pure: no sockets, threads or clocks. The thread of a `Link` owns one.

Lines are counted here as the store counts them, which is all that is needed to
send each of them once: after a reconnect the store says how many it has
accounted for, and the ledger goes on from there.

Reading order: `Ledger`, what is handed over, what is sent, what is heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from actorstore.errors import JournalRegressionError, ProducerConflictError
from actorstore.protocol import Sendable, Welcome, count_blank


class Parcel:
    """Bytes on their way: some lines, or a question, which counts as none."""

    __slots__ = ("blank", "data", "lines")

    def __init__(self, data: bytes, lines: int, blank: int = 0) -> None:
        self.data = data
        self.lines = lines
        self.blank = blank  # of the lines


class Standing(NamedTuple):
    """What a store says of the lines of a producer that it has accounted for."""

    store: str = ""
    """Id of the store."""
    lines: int = 0
    """How many, as the store counts them."""
    rejected: int = 0
    """Of those, refused."""
    unknown: int = 0
    """Of those, events of a unit that their run did not have."""


class Ledger:
    """The lines of one producer, from the moment they are handed over until they are acked.

    Args:
        producer: Id of the producer, for what is said when the counts do not agree.
    """

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.handed = 0
        """Lines handed over so far."""
        self.acked = 0
        """Lines acked so far."""
        self.rejected = 0
        """Of those acked, lines that were refused."""
        self.unknown_units = 0
        """Of those acked, events of a unit that their run did not have."""
        self._heard = 0  # rejected lines that were heard of, and are not acked yet
        self._blank = 0  # of those acked, lines that said nothing
        self._store = ""  # id of the store that was last talked to
        self._shift = 0  # its count of our lines less ours
        self._rejected_before = 0  # our count of rejections less its
        self._unknown_before = 0  # our count of unknown units less its
        self._queue: deque[Parcel] = deque()  # to be sent
        self._begun = 0  # bytes of the first that are sent
        self._sent: deque[Parcel] = deque()  # sent and not acked
        self._in_flight = 0  # lines in those
        self._kept_bytes = 0  # of lines
        self._is_heir = False  # whether this goes on for another, and has heard of no store yet

    @property
    def unacked(self) -> int:
        """Lines handed over and not acked."""
        return self.handed - self.acked

    @property
    def accepted(self) -> int:
        """Of those acked, lines that were accepted."""
        return self.acked - self.rejected - self._blank

    @property
    def size(self) -> int:
        """Bytes of lines that are kept."""
        return self._kept_bytes

    @property
    def standing(self) -> Standing:
        """What the store that was last talked to says of the lines acked."""
        lines, rejected = self.acked + self._shift, self.rejected - self._rejected_before
        return Standing(self._store, lines, rejected, self.unknown_units - self._unknown_before)

    def inherit(self, standing: Standing, left: Sequence[Sendable]) -> None:
        """Go on for a producer that is gone; only its lines that were left count here.

        Args:
            standing: What the store said of those before.
            left: Lines that may have been sent, and were not acked.
        """
        self._store, self._shift = standing.store, standing.lines
        self._rejected_before = -standing.rejected
        self._unknown_before = -standing.unknown
        self._is_heir = True
        for lines in left:
            self._sent.append(Parcel(*lines))
            self._kept_bytes += len(lines.data)
        self._in_flight = self.handed = sum([lines.lines for lines in left])

    # What is handed over.

    def add_lines(self, lines: Sendable) -> None:
        """Keep lines, none of them a control line."""
        self._queue.append(Parcel(*lines))
        self._kept_bytes += len(lines.data)
        self.handed += lines.lines

    def add_question(self, line: bytes) -> None:
        """Send a control line after all that was handed over; it is not kept."""
        self._queue.append(Parcel(line, 0))

    # What is sent.

    def to_send(self) -> memoryview | None:
        """Return what is to be sent next, and `None` where that is nothing."""
        if not self._queue:
            return None
        return memoryview(self._queue[0].data)[self._begun :]

    def has_sent(self, size: int) -> None:
        """Take note that so many bytes of `to_send()` are sent."""
        parcel = self._queue[0]
        self._begun += size
        if self._begun == len(parcel.data):
            self._begun = 0
            self._queue.popleft()
            if parcel.lines:
                self._sent.append(parcel)
                self._in_flight += parcel.lines

    # What is heard.

    def hear_reject(self) -> None:
        """Take note that a line was refused; it counts once it is acked."""
        self._heard += 1

    def hear_ack(self, lines: int, unknown: int = 0) -> None:
        """Let go of what is acked.

        Args:
            lines: How many, as the store counts them.
            unknown: How many of them it counts as events of unknown units.

        Raises:
            ProducerConflictError: It counts lines that were never sent.
        """
        acked = lines - self._shift
        if acked > self.acked + self._in_flight + self._half_sent():
            raise ProducerConflictError(
                "producer_conflict",
                f"it counts {lines} lines of producer {self.producer}, which has sent "
                f"{self.acked + self._in_flight + self._shift}: somebody else uses the same id",
            )
        self.rejected += self._heard
        self._heard = 0
        self.unknown_units = unknown + self._unknown_before
        if acked > self.acked:
            self._let_go(acked - self.acked)
            self.acked = acked

    def resume(self, welcome: Welcome) -> None:
        """Go on from where the store says it stands; questions have to be asked again.

        Raises:
            JournalRegressionError: It has acked more than it knows.
            ProducerConflictError: It knows more than was ever sent.
        """
        self._heard = 0
        if self._is_heir:
            self._is_heir = False
            self._catch_up(welcome)
        if welcome.store != self._store:
            self._store = welcome.store
            self._shift = welcome.lines - self.acked
            self._rejected_before = self.rejected - welcome.rejected
            self._unknown_before = self.unknown_units - welcome.unknown
        if welcome.lines < self.acked + self._shift:
            raise JournalRegressionError(
                "journal_regression",
                f"it counts {welcome.lines} lines of producer {self.producer}, and has acked "
                f"{self.acked + self._shift}: its journal has lost some",
            )
        self.hear_ack(welcome.lines, welcome.unknown)
        self.rejected = welcome.rejected + self._rejected_before
        self._queue = deque([parcel for parcel in (*self._sent, *self._queue) if parcel.lines])
        self._begun = 0
        self._sent.clear()
        self._in_flight = 0

    def _catch_up(self, welcome: Welcome) -> None:
        """Take all lines that were left for acked, where the store knows even more of them.

        Only a loss of power makes it so, which takes the end of what was kept, or
        that the store was talked to. How many of those lines it has rejected is not known.
        """
        self._store = self._store or welcome.store
        more = welcome.lines - self._shift - self._in_flight
        if welcome.store == self._store and more > 0:
            good = sum([parcel.lines - parcel.blank for parcel in self._sent])
            self._shift += more
            self._rejected_before = min(welcome.rejected + self._rejected_before, good) - welcome.rejected

    def _half_sent(self) -> int:
        """Lines of the parcel that is partly sent, all of which may have been whole."""
        return self._queue[0].lines if self._begun else 0

    def _let_go(self, lines: int) -> None:
        while lines:
            parcel = self._sent[0] if self._sent else self._queue[0]
            if parcel.lines > lines:
                end = _end_of_line(parcel.data, lines)
                blank = parcel.blank and count_blank(parcel.data[:end])
                rest = Parcel(parcel.data[end:], parcel.lines - lines, parcel.blank - blank)
            else:
                end, blank, rest = len(parcel.data), parcel.blank, None
            gone = parcel.lines - (rest.lines if rest else 0)
            lines -= gone
            self._blank += blank
            self._kept_bytes -= end
            if self._sent:
                self._in_flight -= gone
                _replace_first(self._sent, rest)
            else:
                self._begun = max(0, self._begun - end)
                _replace_first(self._queue, rest)


def _replace_first(parcels: deque[Parcel], by: Parcel | None) -> None:
    parcels.popleft()
    if by is not None:
        parcels.appendleft(by)


def _end_of_line(data: bytes, lines: int) -> int:
    """Return where so many lines end."""
    end = 0
    for _ in range(lines):
        end = data.index(b"\n", end) + 1
    return end
