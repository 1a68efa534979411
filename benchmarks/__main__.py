"""`python -m benchmarks`: every question, one table."""

from benchmarks import (
    bench_distance,
    bench_encoding,
    bench_idle,
    bench_import,
    bench_journal,
    bench_latency,
    bench_memory,
    bench_remote,
    bench_throughput,
)
from benchmarks.report import main

QUESTIONS = {
    "throughput": bench_throughput.measure,
    "latency": bench_latency.measure,
    "encoding": bench_encoding.measure,
    "memory": bench_memory.measure,
    "import": bench_import.measure,
    "remote": bench_remote.measure,
    "distance": bench_distance.measure,
    "idle": bench_idle.measure,
    "journal": bench_journal.measure,
}

if __name__ == "__main__":
    main(QUESTIONS)
