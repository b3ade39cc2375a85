"""The folder that becomes a version: model files, documents for machines, and pages for people.

`artifact` builds it; `report`, `card` and `event_files` are for people and `metrics_file` for programs; all show the
same findings. `published` turns what the registry answers into the result document.
"""
