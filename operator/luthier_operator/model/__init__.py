"""The operator's vocabulary, below everything else: what is known of the cluster and what is to be done, as values.

`parse` turns raw objects into `views`, `resources` parses the resources, `ownership` joins Jobs and pods; `actions`
is what a plan is made of. `names`, `timestamps`, `image_reference`, `sanitize`, `merge_patch` and `defaults` are the
one place each for what they are called after. Pure: nothing here decides, waits, or makes a request.
"""
