"""Errors: their facts are attributes, they survive pickling, and they say what to do next."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest

from actorstore import errors
from actorstore.errors import (
    CROWDED,
    SILENT,
    ActorStoreError,
    ActorThreadError,
    AddressError,
    ForkedStoreError,
    InvalidEventError,
    JournalDamagedError,
    JournalError,
    JournalFailedError,
    JournalFullError,
    JournalInUseError,
    JournalRegressionError,
    NoJournalError,
    ProducerConflictError,
    ProducerSupersededError,
    QuestionRefusedError,
    RefusedError,
    SocketInUseError,
    SpoolError,
    SpoolInUseError,
    StoreClosedError,
    StoreFailedError,
    StoreTimeoutError,
    StoreUnreachableError,
    UnknownRunError,
    UnknownUnitError,
    VersionGoneError,
)


class Case(NamedTuple):
    error: ActorStoreError
    facts: dict[str, object]
    subject: str
    """What the message must name."""
    cure: str
    """What it must say about the way on."""
    also: type[Exception]
    """The built-in error that it is as well."""


CASES = [
    Case(
        InvalidEventError("task: expected `int` >= 1"),
        {"reason": "task: expected `int` >= 1"},
        "task",
        "expected `int` >= 1",
        ValueError,
    ),
    Case(UnknownRunError("r7"), {"run": "r7"}, "'r7'", "runs() lists", LookupError),
    Case(
        UnknownUnitError("u", "r7"),
        {"unit": "u", "run": "r7"},
        "run 'r7' has no unit 'u'",
        "units",
        LookupError,
    ),
    Case(
        StoreTimeoutError(0.5, 12),
        {"waited": 0.5, "pending": 12, "trouble": None},
        "0.5 s; 12 events",
        "again",
        TimeoutError,
    ),
    Case(
        JournalError("/j", "it is a directory; name a file in it"),
        {"path": "/j", "reason": "it is a directory; name a file in it"},
        "the journal /j",
        "name a file",
        OSError,
    ),
    Case(
        JournalInUseError("/j", 47),
        {"path": "/j", "owner": 47, "reason": JournalInUseError("/j", 47).reason},
        "process 47",
        "stop it",
        JournalError,
    ),
    Case(
        JournalDamagedError("/j", "batch 7 is missing"),
        {
            "path": "/j",
            "place": "batch 7 is missing",
            "reason": JournalDamagedError("/j", "batch 7 is missing").reason,
            "cure": JournalDamagedError("/j", "batch 7 is missing").cure,
        },
        "batch 7",
        "journal export /j",
        JournalError,
    ),
    Case(
        JournalFullError("/j", "no space left on the device"),
        {"path": "/j", "reason": "no space left on the device"},
        "/j cannot be compacted: no space left",
        "make room",
        JournalError,
    ),
    Case(
        JournalFailedError("/j", "fsync failed"),
        {"path": "/j", "reason": "fsync failed"},
        "/j failed: fsync",
        "start the store again",
        StoreFailedError,
    ),
    Case(
        VersionGoneError(5, 10, 20),
        {"at": 5, "oldest": 10, "newest": 20},
        "version 5 was cut off",
        "10 to 20",
        LookupError,
    ),
    Case(
        SpoolError("/s", "no space left on device"),
        {"path": "/s", "reason": "no space left on device"},
        "the spool /s",
        "no space left",
        OSError,
    ),
    Case(
        SpoolInUseError("/s", 47),
        {"path": "/s", "owner": 47, "reason": SpoolInUseError("/s", 47).reason},
        "process 47",
        "name another file",
        SpoolError,
    ),
    Case(NoJournalError(), {}, "no journal", "Store(journal=FILE)", LookupError),
    Case(ActorThreadError(), {}, "the store's own actor", "call from another thread", RuntimeError),
    Case(ForkedStoreError(4711), {"owner": 4711}, "process 4711", "listen=", RuntimeError),
    Case(StoreClosedError(), {}, "the store is closed", "changed nothing", RuntimeError),
    Case(StoreFailedError(), {}, "actor has died", "Make a new Store", StoreClosedError),
    Case(
        AddressError("/x.sock", "a file is in the way; remove it"),
        {"address": "/x.sock", "reason": "a file is in the way; remove it"},
        "/x.sock",
        "remove it",
        OSError,
    ),
    Case(SocketInUseError("/x", 47), {"address": "/x", "owner": 47}, "process 47", "another path", OSError),
    Case(
        SocketInUseError("/x", 0), {"address": "/x", "owner": 0}, "another process", "another path", OSError
    ),
    Case(
        StoreUnreachableError("/x", "nobody listens", 3),
        {"address": "/x", "reason": "nobody listens", "unacked": 3},
        "at /x: nobody listens",
        "actorstore serve --socket /x",
        ConnectionError,
    ),
    *[
        Case(
            StoreUnreachableError("/x", reason),
            {"address": "/x", "reason": reason, "unacked": 0},
            f"at /x: {reason}",
            "stopped or overloaded",
            ConnectionError,
        )
        for reason in (SILENT, CROWDED)
    ],
    *[
        Case(
            QuestionRefusedError(code, "it said no"),
            {"code": code, "reason": "it said no"},
            "it said no",
            cure,
            ActorStoreError,
        )
        for code, cure in [
            ("too_many_questions", "ask less at once"),
            ("unknown_question", "run both with the same one"),
            ("duplicate_id", "another number"),
            ("internal", "the log of the store has the traceback"),
            ("of_a_newer_store", "the log of the store may say more"),
        ]
    ],
    Case(
        RefusedError("forbidden", "it is user 0's alone"),
        {"code": "forbidden", "reason": "it is user 0's alone"},
        "user 0's",
        "a directory of your own",
        StoreClosedError,
    ),
    *[
        Case(
            kind("code", "it said no"),
            {"code": "code", "reason": "it said no"},
            "it said no",
            cure,
            StoreClosedError,
        )
        for kind, cure in [
            (RefusedError, "connect() again"),
            (ProducerSupersededError, "a producer of its own"),
            (ProducerConflictError, "a producer of its own"),
            (JournalRegressionError, "check the journal"),
        ]
    ],
]
every_error = pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.error).__name__)


def test_where_a_store_is_there_the_cure_is_not_to_start_one():
    for reason, is_there in {SILENT: True, CROWDED: True, "there is no such socket": False}.items():
        error = StoreUnreachableError("/x", reason)
        assert error.is_there == is_there
        assert ("actorstore serve" in str(error)) != is_there


def test_only_too_many_questions_are_cured_by_asking_less():
    cured = [case.error.code for case in CASES if "ask less" in str(case.error)]  # type: ignore[attr-defined]
    assert cured == ["too_many_questions"]


def descendants(cls: type[Exception]) -> set[type[Exception]]:
    return {cls}.union(*map(descendants, cls.__subclasses__()))


def test_every_error_is_tested_here():
    ours = {cls for cls in descendants(ActorStoreError) if cls.__module__.startswith("actorstore.")}
    assert {type(case.error) for case in CASES} == ours - {ActorStoreError}


def test_the_tree_at_the_top_of_the_module_names_every_error():
    assert errors.__doc__ is not None
    named = {word for word in errors.__doc__.split() if word.endswith("Error")}
    assert {
        cls.__name__ for cls in descendants(ActorStoreError) if cls.__module__ == errors.__name__
    } == named


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_its_facts(case: Case, protocol: int):
    back = pickle.loads(pickle.dumps(case.error, protocol))
    assert type(back) is type(case.error)
    assert vars(back) == vars(case.error) == case.facts
    assert str(back) == str(case.error)


@every_error
def test_an_error_survives_copying_with_its_facts(case: Case):
    for back in (copy.copy(case.error), copy.deepcopy(case.error)):
        assert vars(back) == case.facts
        assert str(back) == str(case.error)


@every_error
def test_a_message_names_the_subject_and_what_to_do(case: Case):
    message = str(case.error)
    assert case.subject in message
    assert case.cure in message
    assert message.splitlines() == [message]


@every_error
def test_an_error_is_caught_by_the_root_and_by_its_built_in_kin(case: Case):
    assert isinstance(case.error, ActorStoreError)
    assert isinstance(case.error, case.also)


def test_an_id_with_line_breaks_keeps_a_message_on_one_line():
    for error in (UnknownRunError("a\nb\x1b[31m"), UnknownUnitError("a\nb", "c\u2028d")):
        assert len(str(error).splitlines()) == 1
        assert "\x1b" not in str(error)
