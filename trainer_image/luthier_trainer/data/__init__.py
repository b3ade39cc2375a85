"""From the files of a dataset to prepared data, streaming and without torch.

    readers -> cleaning -> staging -> duplicates, splitting, partition -> quality_gates -> tokenization -> formats

`pipeline` ties them together; `readers` are the registry's, since batch predictions read rows too. Each module before
`pipeline` knows one step and no other; row numbers, not texts, travel between them.
"""
