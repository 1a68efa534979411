"""Benchmarks: seeded workloads, one script a question, one adapter a competitor."""
