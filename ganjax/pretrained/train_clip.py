"""`python -m ganjax.pretrained.train_clip --config=configs/clip.py --out=FOLDER`: a tiny CLIP.

Trains `ganjax.pretrained.clip_shapes`, says how well it tells what it has never seen, and writes
`clip-shapes.safetensors` into the folder, where `$GANJAX_WEIGHTS=FOLDER` finds it. Without this
command the network of the config's own numbers is trained where it is first wanted, and kept in the
cache. Any number can be changed: `--config.steps=2000`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ganjax import config as configs
from ganjax.pretrained import catalog, clip_shapes, weights


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the file was written, 2 if a number cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m ganjax.pretrained.train_clip",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="configs/clip.py")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    rest, overrides = configs.split(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(rest)
    try:
        config = configs.override(configs.load(options.config), overrides)
        if set(config.keys()) != vars(clip_shapes.Training()).keys():
            raise configs.ConfigError(
                f"{options.config} has no numbers of a CLIP's training; give configs/clip.py."
            )
        training = clip_shapes.Training(**config)
        options.out.mkdir(parents=True, exist_ok=True)
        variables = clip_shapes.train(training)
        file = options.out / weights.converted_name(clip_shapes.NAME)
        catalog.write(file, clip_shapes.NAME, variables, catalog.digest(variables))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = clip_shapes.accuracy(variables)
    print(
        "Of pictures of combinations that are in no picture of the training, "
        f"{found['held_out']:.1%} find their own text among the {len(clip_shapes.HELD_OUT)} of "
        f"these, {found['all']:.1%} among all {len(clip_shapes.COMBINATIONS)}; "
        f"{found['captions']:.1%} find their own caption among {clip_shapes.SHOWN}.\n{file}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
