"""`python -m luthier_trainer`."""

import os
import sys

from luthier_trainer.cli import main

code = main()
sys.stdout.flush()
sys.stderr.flush()
# Not sys.exit: threads that still upload a checkpoint that nobody waits for would be waited for.
os._exit(code)
