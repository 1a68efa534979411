"""Run a graph of work in worker processes, and know at any moment how it goes."""

from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from multiprocessing import get_context

from actorstore import Event, Store

PIPELINE = {  # each unit, and what it depends on
    "fetch": [],
    "clean": ["fetch"],
    "train": ["clean"],
    "plot": ["clean"],
    "publish": ["train", "plot"],
}


def work(unit):
    """Do what the unit stands for; runs in a worker process."""
    if unit == "train":
        raise MemoryError("the model does not fit")


def orchestrate(graph, store, workers):
    """Start each unit once what it depends on is done, and tell the store what happens."""
    report = store.handle_event
    sorter, waiting, running = TopologicalSorter(graph), [], {}
    sorter.prepare()
    report(Event.orch_started(graph, parallelism=workers))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while True:
            for unit in sorter.get_ready():
                report(Event.unit_queued(unit))
                waiting.append(unit)
            while waiting and len(running) < workers:
                unit = waiting.pop(0)
                report(Event.unit_started(unit))
                running[pool.submit(work, unit)] = unit
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                unit = running.pop(future)
                if error := future.exception():
                    report(Event.unit_failed(unit, error))
                else:
                    report(Event.unit_completed(unit))
                    sorter.done(unit)
    for unit in store.snapshot().units:
        if unit.status == "pending":  # something it depends on has failed
            report(Event.unit_blocked(unit.id))
    failed = store.snapshot().summary.failed
    report(Event.orch_failed(f"{failed} failed") if failed else Event.orch_completed())


if __name__ == "__main__":
    with Store() as store:
        orchestrate(PIPELINE, store, workers=2)
        snapshot = store.snapshot()
    print(snapshot)
    for unit in snapshot.units:
        print(f"{unit.id:8} {unit.status:9} {unit.error or ''}")
