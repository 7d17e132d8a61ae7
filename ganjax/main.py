"""The command line.

python -m ganjax.main --config=configs/biggan.py                     # train, or continue
python -m ganjax.main --mode=sample --workdir=runs/biggan            # a grid from a run
python -m ganjax.main --mode=sample --workdir=runs/biggan --video=z  # an mp4
python -m ganjax.main --mode=sample --workdir=runs/VIDEOS --seconds=60  # of a family of videos
python -m ganjax.main --mode=sample --workdir=runs/aurora --prompt="a large red circle"
python -m ganjax.main --mode=evaluate --workdir=runs/biggan          # measure it
python -m ganjax.main --mode=evaluate --real=FOLDER --fake=FOLDER    # measure pictures
python -m ganjax.main --config=configs/biggan.py:imagenet128 --config.train.batch=1024
python -m ganjax.main --config=configs/biggan.py:imagenet128 --mode=plan --topology=v5e:16x16
python -m ganjax.main --mode=import --weights=network-snapshot.pkl --workdir=runs/ffhq
python -m ganjax.main --mode=export --workdir=runs/ffhq --out=ffhq   # loads without ganjax
"""

import functools
import pathlib
from typing import Any, Literal

from ganjax import environment

environment.prepare()  # before anything looks for devices

from absl import flags  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from ganjax import config as configs  # noqa: E402
from ganjax import errors  # noqa: E402
from ganjax.metrics import protocols  # noqa: E402
from ganjax.sampling.prompts import gather, short_name  # noqa: E402

__doc__ += f"""
Metrics, each name a whole protocol: ganjax/metrics/protocols.py has all of it (without --metrics:
those that need no download; samples "of 16/8" are clips of 16 frames, every 8th of a video's):

{protocols.table()}
"""

CONFIG = flags.DEFINE_string(
    "config", None, "Config file, as configs/biggan.py or configs/biggan.py:shapes."
)
MODES = ["train", "sample", "evaluate", "plan", "import", "export"]
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; runs/<config> without it.")
N = flags.DEFINE_integer("n", 0, "sample: write so many single pictures instead of a sheet.")
SHEET = flags.DEFINE_string(
    "sheet",
    None,
    "sample: which of the family's pictures; grid without it. BigGAN: grid, truncation, latents, "
    "classes. StyleGAN: grid, truncation, mixing, latents, mean, with ADA augment, with MTM "
    "offsets; StyleGAN3: transform, too.",
)
VIDEO = flags.DEFINE_string(
    "video",
    None,
    "sample: one of the family's videos instead: z; StyleGAN: z, w; clips, which families of "
    "videos make without it.",
)
CLASSES = flags.DEFINE_list("classes", [], "sample: class numbers; all without it.")
PROMPT = flags.DEFINE_multi_string(
    "prompt",
    [],
    "sample: what is to be seen, of a family that draws what texts say; may be repeated.",
)
PROMPTS = flags.DEFINE_string("prompts", None, "sample: a file of prompts, one a line.")
TRUNCATION = flags.DEFINE_float(
    "truncation",
    None,
    "sample: BigGAN: values of a latent beyond this are drawn again (the paper: 2 to 0.04; without "
    "it none are). StyleGAN: share of the distance from the mean w that is kept (1: all, 0: the "
    "mean image; without it that of the config); Aurora: of each prompt's. export: BigGAN's.",
)
SEED = flags.DEFINE_integer("seed", 0, "sample, evaluate: of the latents.")
ROWS = flags.DEFINE_integer("rows", None, "sample: rows of a sheet (8) or a video (2).")
SECONDS = flags.DEFINE_float(
    "seconds",
    None,
    "sample: length of a video; 8, after which it begins anew; of a family of videos that of its "
    "clips, or 8 where these are a few frames.",
)
FPS = flags.DEFINE_float(
    "fps",
    None,
    "sample: frames of a video a second; 30, of a family of videos as many as its data has.",
)
START = flags.DEFINE_float("start", 0.0, "sample: where a family of videos begins, in seconds.")
ANCHORS = flags.DEFINE_integer("anchors", 4, "sample: latents that a video passes on its way.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "sample, evaluate, export: a step, or best; the newest without it."
)
METRICS = flags.DEFINE_list("metrics", [], "evaluate: names of the list above.")
SAMPLES = flags.DEFINE_integer("samples", None, "evaluate: how many, of metrics of built-in data.")
REAL = flags.DEFINE_string("real", None, "evaluate: folder or zip of real pictures or videos.")
FAKE = flags.DEFINE_string("fake", None, "evaluate: folder or zip of samples, not a run's.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "plan: the TPU to compile for.")
WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "import: official .pkl, .pth, .safetensors, or folder of .pth (docs/interop.md).",
)
OUT = flags.DEFINE_string(
    "out",
    None,
    "sample: PNG, folder with --n, of a video an .mp4, a .gif or a .png of frames side by side; "
    "plan: JSON; evaluate: file that gets a line; export: folder.",
)


def main(overrides: dict[str, str]) -> None:
    """Runs a mode.

    What a person can mend ends it with one paragraph and status 2, a bug with a traceback and
    status 1, Ctrl-C with status 130, but while it trains with a checkpoint and 0.
    """
    modes = {"train": _train, "sample": _sample, "evaluate": _evaluate, "plan": _plan}
    modes |= {"import": _import, "export": _export}
    with errors.explained():
        modes[MODE.value](overrides)


def _config(overrides: dict[str, str]) -> ConfigDict:
    if CONFIG.value is None:
        raise configs.ConfigError("Give --config=configs/biggan.py, or another config file.")
    config = configs.load(CONFIG.value)
    if "family" not in config:
        raise configs.ConfigError(
            f"{CONFIG.value} is of no family of GANs; its first lines say which command takes it."
        )
    return configs.override(config, overrides)


def _own_config(overrides: dict[str, str]) -> ConfigDict:
    """The config of a run that goes on, when nobody gives one."""
    from ganjax.checkpoint import read_config

    if CONFIG.value is None and WORKDIR.value:
        return configs.override(read_config(WORKDIR.value), overrides)
    return _config(overrides)


def _train(overrides: dict[str, str]) -> None:
    from ganjax.parallel import mesh
    from ganjax.train import train

    config = _own_config(overrides)
    if CONFIG.value and {"data.source", "data.name"} & overrides.keys():
        # What a preset says of its own data holds no more.
        with config.unlocked():
            config.data.update({"classes": 0, "path": ""})
        config = configs.override(config, overrides)
    mesh.start()
    train(config, _workdir())


def _sample(overrides: dict[str, str]) -> None:
    from ganjax import generate
    from ganjax.family import Request
    from ganjax.logs import write_png

    for name in overrides:
        if not name.startswith("sample."):
            raise configs.ConfigError(
                f"--config.{name} changes a run; a sample takes the run's own config, but for "
                "--config.sample.*."
            )
    workdir = _workdir()
    model = generate.load(workdir, _checkpoint(), overrides=overrides)
    classes = _classes(model.config.data.get("classes"))
    prompts = model.checked(gather(PROMPT.value, PROMPTS.value))
    if N.value:
        _singles(model, classes, prompts, workdir / "samples")
        return
    if VIDEO.value or (model.rate and not SHEET.value):
        _film(model, VIDEO.value or "clips", classes, prompts, workdir / "samples")
        return
    _refuse_times()
    rows = 8 if ROWS.value is None else ROWS.value
    request = Request(classes, TRUNCATION.value, rows=rows, prompts=prompts)
    name = SHEET.value or "grid"
    sheet = model.sheet(name, seed=SEED.value, request=request)
    file = f"{_sample_name(name, model.step, prompts)}.png"
    path = pathlib.Path(OUT.value or workdir / "samples" / file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, model.draw(sheet))
    print(path)


def _refuse_times() -> None:
    for flag in (START, SECONDS, FPS):
        if flag.value:
            raise configs.ConfigError(
                f"--{flag.name}={flag.value:g} is of videos, and pictures were asked for; leave it"
                " out, or set --video."
            )


def _singles(
    model: Any, classes: tuple[int, ...], prompts: tuple[str, ...], folder: pathlib.Path
) -> None:
    """Writes samples of a model, each as a file: pictures, beside each its prompt, or videos."""
    import numpy as np

    from ganjax.family import Request
    from ganjax.logs import write_png
    from ganjax.sampling import video

    what = "clips" if model.rate else "images"
    folder = pathlib.Path(OUT.value or folder / _sample_name(what, model.step, prompts))
    folder.mkdir(parents=True, exist_ok=True)
    if model.rate:
        asked = Request(classes, TRUNCATION.value)
        request, fps = model.timed(asked, SECONDS.value, FPS.value, START.value)
        for index in range(N.value):
            film = model.clip(index, seed=SEED.value, request=request)
            path = folder / f"{index:06d}.mp4"
            video.write(path, functools.partial(_picture, film), film.frames, fps)
    else:
        _refuse_times()
        wanted: Any = dict(classes=classes, truncation=TRUNCATION.value, prompts=prompts)
        samples = model.sample(N.value, seed=SEED.value, **wanted)
        for index, sample in enumerate(samples):
            coloured = np.broadcast_to(sample, (*sample.shape[:-1], 3))
            write_png(folder / f"{index:06d}.png", coloured)
            if prompts:
                text = prompts[index % len(prompts)]
                (folder / f"{index:06d}.txt").write_text(f"{text}\n", encoding="utf-8")
    print(f"{N.value} {what} in {folder}")


def _picture(film: Any, number: int) -> Any:
    """A frame of a film of one clip, as it is."""
    import jax.numpy as jnp
    import numpy as np

    from ganjax.layers.images import to_uint8

    (frame,) = np.asarray(to_uint8(jnp.asarray(film.sheet(number).images)))
    return np.broadcast_to(frame, (*frame.shape[:-1], 3))


def _film(
    model: Any,
    name: str,
    classes: tuple[int, ...],
    prompts: tuple[str, ...],
    folder: pathlib.Path,
) -> None:
    """Writes a video of a model; of a family of videos as mp4, as GIF and as a strip of frames."""
    from ganjax.family import Request
    from ganjax.sampling import video

    asked = Request(
        classes,
        TRUNCATION.value,
        rows=2 if ROWS.value is None else ROWS.value,
        anchors=ANCHORS.value,
        prompts=prompts,
    )
    request, fps = model.timed(asked, SECONDS.value, FPS.value, START.value)
    film = model.video(name, seed=SEED.value, request=request)
    file = f"{_sample_name(name, model.step, prompts)}.mp4"
    path = pathlib.Path(OUT.value or folder / file)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path]
    if model.rate and not OUT.value:
        # Nobody looks at a GIF of a thousand frames, and none is smoother than browsers show.
        short = film.frames <= video.LONGEST_GIF and fps <= video.SMOOTHEST_GIF
        paths += [path.with_suffix(ending) for ending in ([".gif"] if short else []) + [".png"]]
    for path in paths:
        video.write(
            path,
            lambda i: model.draw(film.sheet(i)),
            film.frames,
            fps,
            show=path.suffix != ".png",
        )
        print(path)


def _sample_name(what: str, step: int, prompts: tuple[str, ...] = ()) -> str:
    """Pictures of other weights, seeds or wishes have other names."""
    name = f"{what}-step{step}-seed{SEED.value}"
    for flag in (START, SECONDS, FPS):
        if flag.value:
            name += f"-{flag.name}{flag.value:g}"
    if TRUNCATION.value is not None:
        name += f"-truncation{TRUNCATION.value:g}"
    name += f"-classes{'_'.join(CLASSES.value)}" if CLASSES.value else ""
    return name + (f"-{short_name(prompts)}" if prompts else "")


def _evaluate(overrides: dict[str, str]) -> None:
    from ganjax.evaluate import compare, evaluate, keep
    from ganjax.parallel import mesh

    out = pathlib.Path(OUT.value) if OUT.value else None
    if out and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise configs.ConfigError(
            f"--out={out}: a file in a folder that is there is wanted, as --out=record.jsonl."
        )
    mesh.start()
    if REAL.value or FAKE.value:
        if overrides:
            raise configs.ConfigError(
                f"--config.{next(iter(overrides))} is of a run, --real is of a folder."
            )
        for flag in (WORKDIR, SAMPLES, CHECKPOINT):
            if flag.value is not None:
                raise configs.ConfigError(f"--{flag.name} is of a run, --real is of a folder.")
        record = compare(REAL.value, FAKE.value, METRICS.value, SEED.value)
        if out:
            keep(record, out)
        return
    record = evaluate(
        _workdir(), METRICS.value, _checkpoint(), SAMPLES.value, SEED.value, overrides
    )
    if out:
        keep(record, out)


def _plan(overrides: dict[str, str]) -> None:
    from ganjax.plan import plan

    report = plan(_config(overrides), TOPOLOGY.value)
    print(report)
    if OUT.value:
        pathlib.Path(OUT.value).write_text(report.to_json())


def _import(overrides: dict[str, str]) -> None:
    from ganjax.importer import ANEW, import_run
    from ganjax.interop.weights import PLAYERS

    if not WEIGHTS.value or not WORKDIR.value:
        raise configs.ConfigError(
            "Give --weights=network-snapshot.pkl, or another official file, and --workdir=... for "
            "the run that is made of it."
        )
    config = configs.load(CONFIG.value) if CONFIG.value else None
    reports = import_run(WEIGHTS.value, WORKDIR.value, config, overrides)
    for name in PLAYERS:
        print(f"{name}: {reports.get(name, ANEW[name])}")
    print(f"{WORKDIR.value} is a run: --mode=sample, evaluate and train take it as --workdir.")


def _export(overrides: dict[str, str]) -> None:
    from ganjax.exporter import export_run

    if overrides or not OUT.value:
        raise configs.ConfigError(
            "Give --out=... for the folder that is made, and no --config.field: a run is exported "
            "by its own config."
        )
    print(export_run(_workdir(), OUT.value, _checkpoint(), TRUNCATION.value))


def _workdir() -> pathlib.Path:
    if WORKDIR.value:
        return pathlib.Path(WORKDIR.value)
    if CONFIG.value is None:
        raise configs.ConfigError("Give --workdir, the directory that training printed.")
    file, _, preset = CONFIG.value.partition(":")
    name = pathlib.Path(file).stem + (f"-{preset}" if preset else "")
    return pathlib.Path("runs") / name


def _checkpoint() -> int | Literal["best"] | None:
    value = CHECKPOINT.value
    if value is None:
        return None
    if value == "best":
        return "best"
    if not value.isdecimal():
        raise configs.ConfigError(f"--checkpoint={value}: a step, as 1000, or best is wanted.")
    return int(value)


def _classes(known: int | None) -> tuple[int, ...]:
    classes = []
    for text in CLASSES.value:
        if not text.strip().isdecimal() or (known and int(text) >= known):
            raise configs.ConfigError(
                f"--classes={text}: numbers from 0 to {known - 1 if known else '...'} are wanted, "
                "as --classes=3,5."
            )
        classes.append(int(text))
    return tuple(classes)


if __name__ == "__main__":
    configs.run(main)
