"""A pool of worker processes that report to one store: hand it over like any argument."""

from concurrent.futures import ProcessPoolExecutor
from tempfile import TemporaryDirectory

from actorstore import Event, Store


def work(store, unit):
    """Do what there is to do, in a worker."""
    with store.unit(unit):
        pass
    store.flush()


if __name__ == "__main__":
    with TemporaryDirectory() as folder, Store(listen=f"{folder}/store.sock") as store:
        store.handle_event(Event.orch_started({"a": [], "b": ["a"]}))
        with ProcessPoolExecutor(2) as pool:
            for unit in ("a", "b"):
                pool.submit(work, store, unit).result()
        store.handle_event(Event.orch_completed())
        print(store.snapshot())
