"""How things look in a terminal: rich renderables made of what others have read. Nothing here asks or decides.

- `words`: times, sizes and shares as people say them.
- `bars`: progress and shares of requests, in characters.
- `status_page`: one page on a name. `tables`: lists. `diff_page`: two versions beside each other.
- `live`: a page that is drawn again and again; without a terminal, a line for each change.
- `console`: where all of it is printed, and `-o json`.
"""
