"""A batch prediction: the model over files, from storage to storage, by workers that may be killed at any point.

    rows of the files ─> shards of so many rows ─> a worker computes its own ─> one part each ─> a manifest, last

`worker` is the way through, from the document to the result. `source` lists and reads the files, `predictions` computes
a shard by the same model code as the server, `part_files` writes a part as bytes, and `output_folder` is what of all
that lies in storage and how it comes to exist once only. `progress` tells the operator; `__main__` and `outcome` are
the process: arguments, signals, exit codes.

Nothing here knows Ray or HTTP requests.
"""
