"""`python -m benchmarks`: every question, one table."""

from benchmarks import bench_encoding, bench_import, bench_latency, bench_memory, bench_throughput
from benchmarks.report import main

QUESTIONS = {
    "throughput": bench_throughput.measure,
    "latency": bench_latency.measure,
    "encoding": bench_encoding.measure,
    "memory": bench_memory.measure,
    "import": bench_import.measure,
}

if __name__ == "__main__":
    main(QUESTIONS)
