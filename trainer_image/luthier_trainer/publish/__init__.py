"""The folder that becomes a version: model files, documents for machines, and pages for people.

`artifact` builds it; `report`, `card` and `event_files` are for people and `metrics_file` for programs; all show the
same findings. `reference` is what the server compares its texts with. `trained_model` goes from trained weights to the
version, `kept_weights` finds weights that an earlier version has, and `published` turns what the registry answers into
the result document.
"""
