"""From texts to the values of a task; knows nothing of HTTP or Ray.

`loading` fetches a verified artifact and opens it. `model` is the path of a text from here on: `tokenization` (with
`offsets`, which finds a character of the cleaned text in the original), `batch_plan`, one of the `engines`, and the
task's own decoding.
"""
