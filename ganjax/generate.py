"""The Python API of trained generators: load one, sample it, draw its sheets.

model = ganjax.generate.load("runs/biggan")
images = model.sample(16, classes=(3,), truncation=0.5)   # uint8 [16, 32, 32, 1]
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from ganjax import checkpoint
from ganjax import config as configs
from ganjax.data.clips import Dense, read_clip
from ganjax.family import Family, Request, build
from ganjax.layers.images import to_uint8
from ganjax.pretrained import catalog
from ganjax.sampling import clips, grid
from ganjax.sampling.sheets import Sheet, Video

CHUNK = 64  # images made at a time
SECONDS = 8.0  # of a video


def reads_texts(family: Family | None) -> bool:
    """Whether it draws what texts say."""
    return family is not None and "tokens" in family.item


class Programs:
    """What a family samples with, jitted.

    Args:
      family: whose.
      place: of the images; by default as their variables lie.

    Attributes:
      draws: ``draws(key, indices, request)``.
      sample: ``sample(variables, draws)``.
    """

    def __init__(self, family: Family, place: jax.sharding.Sharding | None = None):
        self.draws = jax.jit(family.draws, static_argnums=2, out_shardings=place)
        self.sample = jax.jit(family.sample, out_shardings=place)


class Model:
    """A generator with its weights.

    Args:
      family: what it is.
      variables: of the sampling player (the average), as `Family.sampled` gives them.
      config: the run's.
      step: of the checkpoint.
      programs: the compiled ones, shared by the models of one family.
    """

    def __init__(
        self,
        family: Family,
        variables: Mapping[str, Any],
        config: ConfigDict,
        step: int,
        programs: Programs | None = None,
    ):
        self.family = family
        self.variables = variables
        self.config = config
        self.step = step
        self.programs = programs or Programs(family)
        self._ready: dict[Any, Any] = {}

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        classes: Sequence[int] = (),
        truncation: float | None = None,
        prompts: Sequence[str] = (),
    ) -> UInt8[np.ndarray, "n *t h w c"]:
        """``n`` images, or clips [n, t, h, w, c]; sample i depends on the seed, i and the request.

        Args:
          classes: gone round in this order; empty for all.
          truncation: BigGAN: threshold beyond which values of latents are drawn again; StyleGAN:
            distance from the mean w that is kept.
          prompts: gone round in this order, of a family that draws what texts say.

        Raises:
          ValueError: fewer than one image, or prompts that cannot be read.
        """
        if n < 1:
            raise ValueError(f"{n} images; set n (--n) to 1 or more.")
        request = Request(tuple(classes), truncation, prompts=self.checked(prompts))
        return np.concatenate(list(self.batches(np.arange(n), seed, request)))

    def batches(
        self,
        indices: Int[np.ndarray, "n"],
        seed: int,
        request: Request,
        chunk: int = CHUNK,
        to_bytes: Callable[[Any], Any] = to_uint8,
    ) -> Iterator[UInt8[np.ndarray, "m ..."]]:
        """The images or clips of these indices, up to `chunk` at a time."""
        sample = self.bind(seed, request)
        key = jax.random.key(seed)
        for start in range(0, len(indices), chunk):
            chosen = indices[start : start + chunk]
            padded = np.resize(chosen, chunk).astype(np.int32)  # one shape, one program
            images = sample(self.programs.draws(key, padded, request))
            yield np.asarray(to_bytes(images))[: len(chosen)]

    def checked(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Prompts that can be read.

        Raises:
          ValueError: the family draws no texts; words that its vocabulary does not know; a prompt
            that is too long, or empty.
        """
        if not prompts:
            return ()
        if not reads_texts(self.family):
            raise ValueError(
                f"{self.config.family} does not draw what texts say; leave the prompts out, or "
                "take a run of a family that does, such as configs/aurora.py."
            )
        catalog.find_tokenizer(self.config.data.text)(prompts, truncate=False)
        return tuple(prompts)

    @property
    def rate(self) -> float | None:
        """Frames a second of the videos that it learnt from; None: it makes images."""
        clip = self.config.data.get("clip")
        return read_clip(clip).rate if clip else None

    @functools.cached_property
    def clip_frames(self) -> int:
        """Frames of a clip where nobody says how many, of a family of videos."""

        def clips(variables: Any, key: Any) -> Any:
            draws = self.family.draws(key, jnp.arange(1), Request())
            return self.family.sample(variables, draws)

        return jax.eval_shape(clips, self.variables, jax.random.key(0)).shape[1]

    def timed(
        self,
        request: Request,
        seconds: float | None = None,
        fps: float | None = None,
        start: float = 0.0,
    ) -> tuple[Request, float]:
        """The request for a video of so many seconds, and its frames a second.

        Args:
          seconds: of the video; 8, or of a family of videos as many as its clips have. Where these
            are a few frames of a video, 8 again, but no more than was looked at of videos.
          fps: frames a second; 30, of a family of videos as many as its data has. What moves is
            as fast at any.
          start: of a family of videos, in seconds.

        Raises:
          ValueError: no frames, or ``start`` of a family of images.
        """
        if fps is not None and not fps > 0:
            raise ValueError(f"{fps:g} frames a second; set --fps to a number above 0.")
        if self.rate is None:
            if start:
                raise ValueError(
                    f"--start={start:g} is of families of videos; {self.config.family} makes "
                    "images, whose videos go round. Leave --start out."
                )
            fps, seconds = fps or 30.0, SECONDS if seconds is None else seconds
            return dataclasses.replace(request, frames=round(seconds * fps)), fps
        fps = fps or self.rate
        seconds = self._seconds() if seconds is None else seconds
        timed = dataclasses.replace(
            request, frames=round(seconds * fps), start=start * self.rate, step=self.rate / fps
        )
        return timed, fps

    def _seconds(self) -> float:
        """Of a video of a family of videos, where nobody says how long it is to be."""
        clip = read_clip(self.config.data.clip)
        if isinstance(clip.times, Dense):
            return self.clip_frames / clip.rate
        return min(SECONDS, (clip.max_frames or math.inf) / clip.rate)

    def clip(self, index: int, *, seed: int = 0, request: Request = Request()) -> Video:  # noqa: B008
        """Sample `index` of a family of videos as a video of any length, of one clip a frame.

        Args:
          request: as of `timed`.

        Raises:
          ValueError: times that the family has no frames for; as of `sample`.
        """
        if self.rate is None:
            raise ValueError(f"{self.config.family} makes images; take sample().")
        ends = np.unique(np.clip([0, 1, request.frames - 1], 0, request.frames - 1))
        times = tuple(request.moments(ends).tolist())  # by these the family looks at the request
        asked = dataclasses.replace(request, times=times)
        draws = self.programs.draws(jax.random.key(seed), np.array([index], np.int32), asked)
        sample = self.bind(seed, request)
        return clips.film(sample, draws, request.moments, request.frames, 1)

    def sheet(self, name: str, *, seed: int = 0, request: Request = Request()) -> Sheet:  # noqa: B008
        """One of the family's pictures.

        Raises:
          ValueError: the family has no sheet of that name.
        """
        return self._made("sheet", self.family.sheets, name, seed, request)

    def video(self, name: str, *, seed: int = 0, request: Request = Request()) -> Video:  # noqa: B008
        """One of the family's videos; `draw` its sheets, or give them to `sampling.video.write`.

        Raises:
          ValueError: the family has no video of that name.
        """
        return self._made("video", self.family.videos, name, seed, request)

    def _made(self, what: str, made: Mapping[str, Any], name: str, seed: int, request: Request):
        if name not in made:
            raise ValueError(
                f"There is no {what} {name!r}; {self.config.family} has {list(made) or 'none'}."
            )

        def bind(truncation: float | None) -> Any:
            return self.bind(seed, dataclasses.replace(request, truncation=truncation))

        return made[name](bind, jax.random.key(seed), request)

    @staticmethod
    def draw(sheet: Sheet) -> UInt8[np.ndarray, "height width 3"]:
        """A sheet as one picture."""
        return grid.draw(
            np.asarray(to_uint8(jnp.asarray(sheet.images))),
            sheet.columns,
            column_titles=sheet.column_titles,
            row_titles=sheet.row_titles,
        )

    def bind(self, seed: int, request: Request) -> Any:
        """``draws -> images`` with variables made ready for this request."""
        variables = self.ready(seed, request)
        return lambda draws: self.programs.sample(variables, draws)

    def ready(self, seed: int, request: Request) -> Any:
        """The variables that this request is sampled with, made once."""
        at = (seed, request.truncation)
        if at not in self._ready:
            key = jax.random.fold_in(jax.random.key(seed), 1)
            self._ready[at] = self.family.ready(self.variables, key, request)
        return self._ready[at]


def load(
    workdir: str | os.PathLike,
    step: int | Literal["best"] | None = None,
    platform: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Model:
    """The averaged generator of a run.

    Args:
      workdir: of the run.
      step: of a checkpoint, or ``"best"``; the newest without it.
      platform: to compute as fits it; this process's without it.
      overrides: of fields that only sampling looks at, as ``{"sample.standing": "0"}``.

    Raises:
      FileNotFoundError: no run there.
      CheckpointError: no checkpoint, none of that step, or none that was measured.
    """
    config = configs.override(checkpoint.read_config(workdir), overrides or {})
    family = build(config, platform or jax.default_backend())
    state = family.abstract_state()
    wanted = {"ema": state.ema} | ({"extras": state.extras} if family.growth else {})
    with checkpoint.Checkpoints(workdir, best=checkpoint.RANK, read_only=True) as checkpoints:
        if step == "best":
            step = checkpoints.best_step()
            if step is None:
                raise checkpoint.CheckpointError(
                    f"No checkpoint in {checkpoints.directory} was measured, so none is the best. "
                    "Set config.evaluate.every_images before training, or choose one by its step: "
                    f"there are {', '.join(map(str, checkpoint.steps(workdir))) or 'none'}."
                )
        restored, step = checkpoints.restore(wanted, step)
    variables = family.sampled(restored["ema"], restored.get("extras", {}), family.load_frozen())
    return Model(family, variables, config, step)
