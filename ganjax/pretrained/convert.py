"""`python -m ganjax.pretrained.convert NETWORK`: official weights as one safetensors file.

The file holds our arrays by our names and the hashes of what it was made of; it is read without a
map and without transposing, and is all that a machine without internet needs. No code in the
official file is run. Reading and its errors are those of `ganjax.pretrained.catalog.load`.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed

from ganjax.pretrained import catalog, weights


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the file was written, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m ganjax.pretrained.convert",
        description=__doc__,
        epilog="networks and their official files:\n\n" + weights.table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", choices=list(catalog.KINDS), metavar="NETWORK", help="see below")
    parser.add_argument(
        "--path", help="the official file or its folder (default: $GANJAX_WEIGHTS, the cache, the"
        " internet)"
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=Path,
        help="file or folder to write (default: NETWORK.safetensors in the cache)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not name what matched")
    options = parser.parse_args(arguments)
    try:
        variables, report, sha256 = catalog.read(options.network, options.path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if options.quiet:
        print(f"{len(report.ignored)} entries carry no weights")
        report = dataclasses.replace(report, ignored=())
    else:
        print(*(f"matched {name}" for name in report.matched), sep="\n")
    print(report)
    if report.unexpected:
        print(f"what is unexpected has no place in {options.network} and is left out")
    out = options.out or weights.folders()[-1]
    if out.suffix != ".safetensors":
        out = out / weights.converted_name(options.network)
    out.parent.mkdir(parents=True, exist_ok=True)
    catalog.write(out, options.network, variables, sha256)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB), made of SHA-256 {sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
