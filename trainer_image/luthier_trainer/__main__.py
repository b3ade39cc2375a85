"""`python -m luthier_trainer`."""

import sys

from luthier_trainer.cli import main

sys.exit(main())
