"""``python -m chipmink`` is the command ``chipmink``."""

import sys

from chipmink._cli import main

sys.exit(main())
