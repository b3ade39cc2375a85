"""From a file of labelled texts to a manifest that trains on it: what can be found out is not asked.

    table      the file's first rows, as the trainer would read them
    columns    which columns hold texts and labels, and so which task it is
    language   which language the texts are in, and so which base model
    lengths    how many tokens the texts have, and so maxLength
    build      the two resources, and a sentence for each decision

Pure but for `table`. Every decision can be overruled by an option of `luthier init`; what is proposed passes the
contract's own validation.
"""

from luthier.proposal.build import Choices, Proposal, propose
from luthier.proposal.columns import Columns, find_columns
from luthier.proposal.language import BASE_MODELS, detect_language
from luthier.proposal.table import Table, read_table

__all__ = [
    "BASE_MODELS",
    "Choices",
    "Columns",
    "Proposal",
    "Table",
    "detect_language",
    "find_columns",
    "propose",
    "read_table",
]
