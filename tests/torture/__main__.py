"""`python -m tests.torture`; see `command`, which worker processes import by that name."""

import sys

from tests.torture.command import main

sys.exit(main(sys.argv[1:]))
