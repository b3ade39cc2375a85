"""`python -m luthier_dev <verb>`."""

from luthier_dev.cli import main

main()
