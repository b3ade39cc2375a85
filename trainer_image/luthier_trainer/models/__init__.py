"""The base model: fetched, checked, loaded with a head, and adapted by the method (Full, LoRA, QLoRA, Frozen).

`base_model`, `fetch` and `model_cache` need no torch, because *prepare* checks a model before a GPU is asked for.
`load` and `methods` build what is trained, `adapters` turns what was trained into a plain model.
"""
