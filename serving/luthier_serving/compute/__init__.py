"""From texts to the values of a task; knows nothing of HTTP or Ray.

`loading` fetches a verified artifact and opens it; `adapters` does so for a LoRA version over one that is open, and
`adapter_set` holds those of one model. `model` is the path of a text from here on: `tokenization` (with
`offsets`, which finds a character of the cleaned text in the original), `batch_plan`, one of the `engines`, and the
task's own decoding.
"""
