"""The computations behind the metrics of all tasks: counts, rankings, calibration, entity spans and the bootstrap.

Arrays in, numbers out. Most are functions of how often each text counts, so that the bootstrap can ask again and again.
"""
