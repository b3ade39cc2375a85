"""What the spec says, read without torch: documents, metric names, gates, precision and passed-through arguments.

Turns fields of the spec into values and refuses what cannot be, before a GPU is asked for. `transformers_source` looks
up what transformers supports without importing it; `flatten_spec` lists every setting for reports and trackers.
"""
