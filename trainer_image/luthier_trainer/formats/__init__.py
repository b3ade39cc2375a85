"""The layout of prepared data: the files that *prepare* writes and *train* reads, and nothing of what fills them.

`prepared` is the Arrow columns and their description; `quality_report` is quality.json. No torch here.
"""
