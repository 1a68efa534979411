"""The front door: what `import actorstore` offers, and what it does not load."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import pytest

import actorstore
from actorstore import RemoteStore, StateStore, Store, StoreProcess
from actorstore.aio import AsyncStore
from actorstore.remote_aio import AsyncRemoteStore
from tests.threads import CALLS, ROOT, python

FOR_TYPES = {"TYPE_CHECKING", "annotations"}

LATE = {"RemoteStore", "Store", "StoreActor", "StoreProcess", "connect"}
"""What is imported when it is asked for."""

METHODS = sorted(name for name in vars(StateStore) if not name.startswith("_"))


def shape(function: Callable[..., object]) -> list[tuple[object, ...]]:
    """Its parameters, as a caller sees them."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [(each.name, each.kind, each.default, each.annotation) for each in parameters]


def names(function: Callable[..., object]) -> list[tuple[object, ...]]:
    """Its parameters, but for their types."""
    return [each[:3] for each in shape(function)]


def test_the_exported_names_are_sorted_and_there_is_none_twice() -> None:
    assert actorstore.__all__ == sorted(set(actorstore.__all__))


@pytest.mark.parametrize("name", actorstore.__all__)
def test_every_exported_name_exists_and_is_documented(name: str) -> None:
    exported = getattr(actorstore, name)
    if name != "Cursor":  # a NewType, which cannot carry a docstring of its own
        assert (exported.__doc__ or "").strip()


def test_nothing_public_is_left_out_of_the_exported_names() -> None:
    public = {
        name
        for name, value in vars(actorstore).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in FOR_TYPES
    }
    assert public | LATE == set(actorstore.__all__)
    assert set(dir(actorstore)) >= LATE


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{actorstore.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_an_import_loads_nothing_that_only_some_need() -> None:
    code = "import sys; import {}; print(*sys.modules)"
    baseline = python(code=code.format("pykka, msgspec"))
    loaded = python(code=code.format("actorstore"))
    assert loaded.returncode == 0, loaded.stderr
    ours = {name.partition(".")[0] for name in loaded.stdout.split()}
    theirs = {name.partition(".")[0] for name in baseline.stdout.split()}
    assert not (ours - theirs) & {"argparse", "asyncio", "multiprocessing", "rich", "socket", "sqlite3"}


@pytest.mark.parametrize("name", METHODS)
def test_a_store_offers_what_the_protocol_says(name: str) -> None:
    for kind in (Store, RemoteStore):
        assert shape(getattr(kind, name)) == shape(getattr(StateStore, name))


@pytest.mark.parametrize("name", METHODS)
def test_the_store_for_coroutines_offers_the_same_names(name: str) -> None:
    for kind in (AsyncStore, AsyncRemoteStore):
        assert names(getattr(kind, name)) == names(getattr(StateStore, name))


def test_a_store_offers_nothing_but_the_protocol_and_its_coroutines() -> None:
    assert public(Store) == {*METHODS, "aio", "address", "compact"}
    assert public(RemoteStore) == {*METHODS, "aio", "address"}
    for kind in (AsyncStore, AsyncRemoteStore):
        assert public(kind) == set(METHODS)


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_a_store_is_documented(name: str) -> None:
    for kind in (StateStore, Store, AsyncStore, RemoteStore, AsyncRemoteStore):
        assert (getattr(kind, name).__doc__ or "").strip()


def test_a_store_and_its_coroutines_are_closed_by_with() -> None:
    for kind in (Store, RemoteStore, StoreProcess):
        assert issubclass(kind, AbstractContextManager)
    for kind in (AsyncStore, AsyncRemoteStore):
        assert issubclass(kind, AbstractAsyncContextManager)


def test_the_tests_of_every_method_leave_none_out() -> None:
    assert {name.partition(",")[0] for name in CALLS} == set(METHODS) - {"close"}
