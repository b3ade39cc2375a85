"""`make bench-serving`: Luthier's server beside what a model is served with elsewhere, on one core.

- `artifact`: one int8 model for all, made by Luthier's trainer, and the real texts that are sent.
- `sides`: the servers Q1 to Q5 and ours, each started on a core of its own; `peers/` holds those that are not ours.
- `luthier`: how ours and Q5 are configured; `serve`: how an application is put on a real Ray.
- `load`: wrk (a fixed number of clients) and vegeta (a fixed rate), on the other core, and what they saw.
- `usage`: CPU and memory of all processes of a server. `answers`: checks what it said.
- `cases`: what is measured of one server. `results`: the raw samples, and the tables with the targets.
"""
