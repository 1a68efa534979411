"""The front door: what `import actorstore` offers, and what it does not load."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import pytest

import actorstore
from actorstore import StateStore, Store
from actorstore.aio import AsyncStore
from tests.threads import CALLS, ROOT, python

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
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(actorstore.__all__)


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
    assert shape(getattr(Store, name)) == shape(getattr(StateStore, name))


@pytest.mark.parametrize("name", METHODS)
def test_the_store_for_coroutines_offers_the_same_names(name: str) -> None:
    assert names(getattr(AsyncStore, name)) == names(getattr(StateStore, name))


def test_a_store_offers_nothing_but_the_protocol_and_its_coroutines() -> None:
    public = {name for name in vars(Store) if not name.startswith("_")}
    assert public == {*METHODS, "aio"}
    assert {name for name in vars(AsyncStore) if not name.startswith("_")} == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_a_store_is_documented(name: str) -> None:
    for kind in (StateStore, Store, AsyncStore):
        assert (getattr(kind, name).__doc__ or "").strip()


def test_a_store_and_its_coroutines_are_closed_by_with() -> None:
    assert issubclass(Store, AbstractContextManager)
    assert issubclass(AsyncStore, AbstractAsyncContextManager)


def test_the_tests_of_every_method_leave_none_out() -> None:
    assert {name.partition(",")[0] for name in CALLS} == set(METHODS) - {"close"}
