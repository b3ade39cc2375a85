"""What tests of one part share: the real things they run (operator, trainer, S3), and the things they play.

pytest and the benchmarks put the folder `tests` on the path, so it is `support` everywhere. A subpackage belongs to the
tests of one member, as `tests/unit` and `tests/integration` do; what several need lies here. Fixtures stay in
conftests.
"""
