"""`python -m luthier_trainer`."""

import os
import sys

from luthier_trainer.cli import main

code = main()
sys.stdout.flush()
sys.stderr.flush()
# Not sys.exit, which would wait for threads that still upload a checkpoint that is not needed any more.
os._exit(code)
