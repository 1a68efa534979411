"""One adapter a competitor, each used as its best user would use it.

All of them come to the same state by the same rules, from the same events, and say so in the same words: a
peer's `totals()` is what a test compares before any of its timings is believed. What a peer leaves out of
the store's contract is written at the top of its module; each omission makes the peer faster, not slower.
"""
