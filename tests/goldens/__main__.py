"""`python -m tests.goldens DIR [--family a,b] [--case GLOB]`; see `--help`."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from tests.goldens.runner import main

if __name__ == "__main__":
    raise SystemExit(main())
