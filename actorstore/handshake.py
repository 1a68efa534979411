"""How a client meets a store: hello and welcome, and what a refusal means."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

from actorstore.address import peer
from actorstore.errors import (
    SILENT,
    ActorStoreError,
    AddressError,
    JournalDamagedError,
    JournalFailedError,
    NoJournalError,
    ProducerSupersededError,
    QuestionRefusedError,
    RefusedError,
    StoreFailedError,
    StoreUnreachableError,
    UnknownRunError,
    VersionGoneError,
)
from actorstore.protocol import ClientReader, FromStore, Refusal, Welcome, hello

RETRIED: Final = ("closed", "failed", "internal", "journal_failed", "no_room")
"""Why a store closes a connection that may be made again."""

RECEIVED_BYTES: Final = 1 << 18
"""How much is read at a time."""


def shake_hands(
    connection: socket.socket, reader: ClientReader, producer: str, path: str
) -> tuple[Welcome, list[FromStore]]:
    """Say hello, and return the welcome and what came behind it.

    Raises:
        StoreUnreachableError: Nobody answers, or not now.
        RefusedError: The store does not take this producer, or is no store.
    """
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have said why before it closed
            connection.sendall(hello(producer))
        while data := connection.recv(RECEIVED_BYTES):
            messages = reader.feed(data)
            for place, message in enumerate(messages):
                match message:
                    case Welcome():
                        return message, messages[place + 1 :]
                    case Refusal(code) if code not in RETRIED:
                        raise refused(message)
                    case Refusal():
                        raise StoreUnreachableError(path, message.message)
    except OSError as error:
        if isinstance(error, ActorStoreError):
            raise
        reason = SILENT if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise StoreUnreachableError(path, reason) from None
    except ValueError as error:
        raise RefusedError("not_this_protocol", f"the other end speaks something else: {error}") from None
    raise StoreUnreachableError(path, "it has closed the connection")


def check_owner(connection: socket.socket, path: str) -> None:
    """Check that the store is this user's: nothing of value has been said yet.

    Raises:
        AddressError: Somebody else listens there.
    """
    owner = peer(connection)
    if owner is not None and owner[1] != os.geteuid():
        raise AddressError(path, f"user {owner[1]} listens there; name a path in a directory of your own")


def refused(refusal: Refusal) -> RefusedError:
    """Return the error for a connection that is closed for good."""
    kind = ProducerSupersededError if refusal.code == "superseded" else RefusedError
    return kind(refusal.code, refusal.message)


def answer_error(refusal: Refusal) -> ActorStoreError:
    """Return the error for a question that has no answer."""
    match refusal.code:
        case "unknown_run":
            return UnknownRunError(refusal.run or "")
        case "failed":
            return StoreFailedError()
        case "journal_failed":
            return JournalFailedError(refusal.journal or "", refusal.message)
        case "journal_damaged":
            return JournalDamagedError(refusal.journal or "", refusal.message)
        case "no_journal":
            return NoJournalError()
        case "version_gone" if refusal.versions:
            return VersionGoneError(*refusal.versions)
        case _:
            return QuestionRefusedError(refusal.code, refusal.message)
