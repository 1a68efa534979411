"""Trouble, made on purpose: stores and producers are killed, frozen and cut off, and what must hold does.

Reading order: `script` (what producers send), `record` (what they write down),
`producer`, `reader`, `process`, `daemon`, `proxy` (who takes part), `scenarios`
(what happens), `checker` (a program of its own that judges it), `soak` (all of
it, for long) and `latency` (the times that are judged there).
"""
