"""What the operator knows of the cluster, and which resources wait to be reconciled.

`informers` take in what the watches tell and say whom it wakes; `store` keeps it, by the resource that it is for, and
on top of it what our own writes returned; `index` is a table of the store; `audit` compares the store with the cluster;
`workqueue` has each key reconciled by one worker at a time.
"""
