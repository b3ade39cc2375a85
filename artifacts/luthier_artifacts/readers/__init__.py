"""Reads rows from CSV, TSV, JSONL and Parquet files, plain or gzipped: for the trainer, and for batch predictions.

Owns the file formats and all that can be wrong with a file; each fault is one sentence with file, line and column.
Decides nothing about the rows: empty cells come out as None and labels as the file has them. `formats` picks the reader
by a file's name, `rows` is what all readers yield, `errors` what they raise. `separated` and `jsonl` read text by the
standard library, because it says in which line a fault is; `parquet` reads by pyarrow, which whoever reads Parquet
brings along.
"""
