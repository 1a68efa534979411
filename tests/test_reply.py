"""The receiver for a thread that waits."""

from __future__ import annotations

import pytest

from actorstore.reply import Reply


def test_an_answer_is_there_however_often_it_is_waited_for() -> None:
    reply = Reply()
    assert not reply.wait(0)
    reply.set(7)
    assert reply.wait(0)
    assert reply.wait(0)
    assert reply.wait()
    assert reply.result() == 7


def test_an_error_is_raised_by_the_result() -> None:
    reply = Reply()
    reply.fail(ValueError("no"))
    assert reply.wait(0)
    with pytest.raises(ValueError, match="no"):
        reply.result()
