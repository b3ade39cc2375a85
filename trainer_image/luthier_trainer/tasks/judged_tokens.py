"""How many tokens of each text are judged, for tasks per token: the first token of each word."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import IGNORED


def judged_tokens(part: Part) -> npt.NDArray[np.int64]:
    """Return the number of judged tokens of each text, in the order of the part."""
    counts = []
    for chunk in part.targets().chunks:
        assert isinstance(chunk, pa.ListArray)
        judged = np.cumsum(np.concatenate([[0], chunk.values.to_numpy() != IGNORED]))
        offsets = chunk.offsets.to_numpy()
        counts.append(judged[offsets[1:]] - judged[offsets[:-1]])
    return np.concatenate(counts or [np.zeros(0)]).astype(np.int64)
