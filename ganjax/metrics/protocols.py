"""What each metric's name stands for: everything that decides its number.

Codes that say "FID" differ in the network, the resize, how many samples, which real ones, the
labels of the samples and the covariance's divisor, and their numbers do not compare. Here a name is
a protocol, a line of `TABLE`; another choice is another name. A result is recorded with its
protocol, the hash of the network's weights and the fingerprint of the real set.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

CLASSIFIER = "classifier"  # the network that is trained on the spot, `metrics.classifier`
COMBINATIONS = "combinations"  # of captioned shapes, likewise: `subjects.captioned_shapes`
TINY = "clip-shapes"
INCEPTION = "inception-2015-12-05"
B32, L14 = "clip-vit-b-32", "clip-vit-l-14"
VGG = "vgg16"
I3D, I3D_DIGAN = "i3d-styleganv", "i3d-videogpt"
C3D = "c3d-ucf101"
PIXELS = "pixels"  # no network: pairs of pictures are compared as they are, `metrics.pairs`
SHAPE_CLIPS = "shape-clips"  # trained on the spot and kept, `metrics.shape_clips`
FRAMES = "frames"  # no network: neighbouring frames of clips are compared as they are
OF_CLIPS = (I3D, I3D_DIGAN, C3D, SHAPE_CLIPS, FRAMES)
NO_WEIGHTS = (CLASSIFIER, COMBINATIONS, PIXELS, SHAPE_CLIPS, FRAMES)  # nothing lies in a file

ALL = None
BY_N, BY_N_LESS_1 = {"ddof": 0}, {"ddof": 1}  # divisors of covariances
EPSILON = 1e-4  # the step of path lengths, as a share of the way between two latents
STEP = {"epsilon": EPSILON}

# What could not be looked up where a network or a protocol is reproduced; part of each record.
ASSUMED = {
    I3D: "the resize to 224x224 inside of the TorchScript is bilinear with half-pixel centres and"
    " without smoothing; batch normalisation's epsilon is 1e-3, as in kinetics_i3d_pytorch",
    VGG: "vgg16.pt scales by ImageNet's mean and deviation, and resizes as TensorFlow 1",
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a video metric looks at in videos.

    Attributes:
      frames: of a clip.
      stride: every how many-th frame is taken.
      reals: which real clips: "one" at a random place of each of the first videos that are long
        enough; "windows", any of all videos' places, each as likely; "frames", no clips: every
        frame of every video is a picture.
      jpeg: quality of the JPEG in which a model's frames are kept until they are seen; None: they
        are not. Folders are looked at as they are.
      rounding: of a model's frames to bytes: to the "nearest", or "down".
    """

    frames: int
    stride: int = 1
    reals: Literal["one", "windows", "frames"] = "one"
    jpeg: int | None = None
    rounding: Literal["nearest", "down"] = "nearest"


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a protocol asks of a model's family instead of samples.

    Attributes:
      name: of `family.Family.probes`.
      options: of that function.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol:
    """One way to a number.

    Attributes:
      name: of the metric.
      measure: what is computed from features, a key of `measures.MEASURES`.
      network: of `pretrained.catalog`, or of `NO_WEIGHTS`.
      feature: of the network.
      reals: how many real samples, the first of the set's order; None: all; 0: none.
      fakes: how many samples; None: all of a folder; 0: none, the metric is of real samples alone.
      labels: of samples of a class-conditional model: "even" goes round the classes, "data" takes
        those of real samples at random.
      options: of the measure.
      source: whose protocol it is.
      clip: of each sample of a video metric, whose numbers count clips; None for images. A network
        of images sees every frame of a clip on its own.
      probe: makes the samples, a pair of images each, where they are not the model's own.
      caption: what a picture's caption is put into, as "{}"; None: captions are not looked at.
      prompts: of samples that texts are asked of: captions of the real samples, or of built-in
        pictures that no training has ("heldout").
      repeats: how often all is measured, each time by the next seed; the value is the mean.
      assumed: what its source does not say, beside `ASSUMED` of its network.
    """

    name: str
    measure: str
    network: str
    feature: str
    reals: int | None
    fakes: int | None
    labels: Literal["even", "data"]
    options: Mapping[str, Any]
    source: str
    clip: Clip | None = None
    probe: Probe | None = None
    caption: str | None = None
    prompts: Literal["data", "heldout"] = "data"
    repeats: int = 1
    assumed: str = ""

    @property
    def sees_frames(self) -> bool:
        """Whether a network of images looks at clips."""
        return self.clip is not None and self.network not in OF_CLIPS

    @property
    def built_in(self) -> bool:
        """Whether it is of one built-in set, and needs no download."""
        return self.network in (CLASSIFIER, COMBINATIONS, SHAPE_CLIPS, TINY)

    @property
    def sees(self) -> tuple[Any, ...]:
        """What its network looks at: equal for protocols that share a pass over the samples."""
        return self.clip, self.sees_frames, self.probe, self.caption, self.prompts, self.repeats

    def record(self) -> dict[str, Any]:
        """All of it, and what is assumed of its network."""
        assumed = "; ".join(filter(None, (self.assumed, ASSUMED.get(self.network))))
        return dataclasses.asdict(self) | {"assumed": assumed}


_FIDELITY = {"seed": 2020}
_SUBSETS = "the subsets are torch-fidelity's: NVIDIA's code leaves them to NumPy's state"
_NVIDIA = "NVIDIA (ada, stylegan3)"
_STYLEGANV, _STYLEGANV_PAPER = "stylegan-v, released code", "StyleGAN-V, appendix C"
_RUNS = "the paper states deviations, not of how many runs: 10"
_KEPT = Clip(16, jpeg=95), Clip(128, jpeg=95)
_DIGAN: Any = dict(clip=Clip(16, reals="windows", rounding="down"), repeats=10)
_MEAN, _HUNDRED = {"scale": 1.0}, {"scale": 100.0, "floor": "mean"}
_TWO_AND_A_HALF = {"scale": 2.5, "floor": "each"}


def _path(space: str, sampling: str) -> Probe:
    """Both ends of a short step between two latents."""
    return Probe("path", {"space": space, "sampling": sampling, "epsilon": EPSILON})


# fmt: off
TABLE = (
    # Without any download.
    Protocol("fd_digits", "frechet", CLASSIFIER, "features", 10_000, 1000, "even", BY_N_LESS_1,
             "ganjax"),
    Protocol("fd_warped_digits", "frechet", CLASSIFIER, "features", 10_000, 1000, "even",
             BY_N_LESS_1, "ganjax"),
    Protocol("fd_shapes", "frechet", CLASSIFIER, "features", 10_000, 1000, "even", BY_N_LESS_1,
             "ganjax"),
    Protocol("fd_captioned_shapes", "frechet", TINY, "embedding", 10_000, 1000, "even",
             BY_N_LESS_1, "ganjax"),
    Protocol("prompt_accuracy", "combinations", COMBINATIONS, "logits", 0, 1000, "even",
             {"shapes": 6}, "ganjax", prompts="heldout"),
    Protocol("clip_score_shapes", "clip_score", TINY, "embeddings", 0, 1000, "even", _MEAN,
             "mean cosine", caption="{}", prompts="heldout"),
    Protocol("class_accuracy", "accuracy", CLASSIFIER, "logits", 10_000, 1000, "even", {},
             "ganjax"),
    # Of images.
    Protocol("fid50k_full", "frechet", INCEPTION, "2048", ALL, 50_000, "data", BY_N, _NVIDIA),
    Protocol("fid50k", "frechet", INCEPTION, "2048", ALL, 50_000, "even", BY_N_LESS_1,
             "BigGAN, TTUR"),
    Protocol("fid10k", "frechet", INCEPTION, "2048", ALL, 10_000, "even", BY_N_LESS_1, "as fid50k"),
    Protocol("fid_all", "frechet", INCEPTION, "2048", ALL, ALL, "even", BY_N_LESS_1, "two folders"),
    Protocol("reference_fid10k", "reference", INCEPTION, "2048", 20_000, 0, "even", BY_N_LESS_1,
             "Aurora: two sets of 10,000"),
    Protocol("fid10k_train", "frechet", INCEPTION, "2048", 10_000, 10_000, "even", BY_N_LESS_1,
             "Aurora: FID-10K"),
    Protocol("fid30k_coco", "frechet", INCEPTION, "2048", 30_000, 30_000, "even", BY_N_LESS_1,
             "XMC-GAN"),
    Protocol("fid30k_coco_full", "frechet", INCEPTION, "2048", ALL, 30_000, "even", BY_N_LESS_1,
             "Aurora: zero-shot FID-30K"),
    Protocol("sfid50k", "frechet", INCEPTION, "spatial", ALL, 50_000, "even", BY_N_LESS_1,
             "guided-diffusion"),
    Protocol("clipfd50k", "frechet", B32, "embedding", ALL, 50_000, "even", BY_N_LESS_1,
             "torch-fidelity"),
    Protocol("kid50k", "kid", INCEPTION, "2048", 50_000, 50_000, "even",
             {"subsets": 100, "subset_size": 1000} | _FIDELITY, "torch-fidelity"),
    Protocol("kid50k_full", "kid", INCEPTION, "2048", ALL, 50_000, "data",
             {"subsets": 100, "subset_size": 1000} | _FIDELITY, _NVIDIA, assumed=_SUBSETS),
    Protocol("kid_all", "kid", INCEPTION, "2048", ALL, ALL, "even",
             {"subsets": 100, "subset_size": 1000} | _FIDELITY, "two folders"),
    Protocol("is50k", "inception_score", INCEPTION, "logits_unbiased", 0, 50_000, "even",
             {"splits": 10} | _FIDELITY, "torch-fidelity"),
    Protocol("pr50k3", "precision_recall", VGG, "fc2", 50_000, 50_000, "data",
             {"k": 3, "closed": True, "half": True}, _NVIDIA),
    Protocol("pr50k3_full", "precision_recall", VGG, "fc2", 200_000, 50_000, "data",
             {"k": 3, "closed": True, "half": True}, _NVIDIA),
    Protocol("pr_all", "precision_recall", VGG, "fc2", ALL, ALL, "even",
             {"k": 3, "closed": True}, "two folders"),
    Protocol("dc10k5", "density_coverage", VGG, "fc2", 10_000, 10_000, "even",
             {"k": 5, "closed": False}, "Naeem et al. 2020"),
    # Of pictures and their captions.
    Protocol("clip_score_b32", "clip_score", B32, "embeddings", ALL, 0, "even", _MEAN,
             "mean cosine", caption="{}"),
    Protocol("clip_score_l14", "clip_score", L14, "embeddings", ALL, 0, "even", _MEAN,
             "mean cosine", caption="{}"),
    Protocol("clip_score100_b32", "clip_score", B32, "embeddings", ALL, 0, "even", _HUNDRED,
             "torchmetrics", caption="{}"),
    Protocol("clip_score100_l14", "clip_score", L14, "embeddings", ALL, 0, "even", _HUNDRED,
             "torchmetrics", caption="{}"),
    Protocol("clip_s_b32", "clip_score", B32, "embeddings", ALL, 0, "even", _TWO_AND_A_HALF,
             "Hessel et al. 2021", caption="A photo depicts {}"),
    Protocol("clip_score30k_b32", "clip_score", B32, "embeddings", 0, 30_000, "even", _MEAN,
             "mean cosine", caption="{}"),
    Protocol("clip_score30k_l14", "clip_score", L14, "embeddings", 0, 30_000, "even", _MEAN,
             "mean cosine", caption="{}"),
    # Of pairs of images that a generator makes.
    Protocol("ppl2_wend", "path_length", VGG, "lpips", 0, 50_000, "data", STEP, _NVIDIA,
             probe=_path("w", "end")),
    Protocol("ppl_wend", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA,
             probe=_path("w", "end")),
    Protocol("ppl_wfull", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA,
             probe=_path("w", "full")),
    Protocol("ppl_zend", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA,
             probe=_path("z", "end")),
    Protocol("ppl_zfull", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA,
             probe=_path("z", "full")),
    Protocol("eqt50k_int", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3",
             probe=Probe("translation", {"reach": 0.125, "whole": True})),
    Protocol("eqt50k_frac", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3",
             probe=Probe("translation", {"reach": 0.125, "whole": False})),
    Protocol("eqr50k", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3",
             probe=Probe("rotation", {"reach": 1.0})),
    Protocol("eqt1k_int", "psnr", PIXELS, "squares", 0, 1000, "data", {}, "as eqt50k_int",
             probe=Probe("translation", {"reach": 0.125, "whole": True})),
    Protocol("eqt1k_frac", "psnr", PIXELS, "squares", 0, 1000, "data", {}, "as eqt50k_frac",
             probe=Probe("translation", {"reach": 0.125, "whole": False})),
    Protocol("eqr1k", "psnr", PIXELS, "squares", 0, 1000, "data", {}, "as eqr50k",
             probe=Probe("rotation", {"reach": 1.0})),
    # Of videos.
    Protocol("fd_shape_clips", "frechet", SHAPE_CLIPS, "features", 2000, 1000, "even", BY_N_LESS_1,
             "ganjax", clip=Clip(16)),
    Protocol("frame_difference", "motion", FRAMES, "difference", 2000, 1000, "even", {}, "ganjax",
             clip=Clip(16)),
    Protocol("fvd2048_16f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N,
             _STYLEGANV, clip=Clip(16)),
    Protocol("fvd2048_128f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N,
             _STYLEGANV, clip=Clip(128)),
    Protocol("fvd2048_128f_subsample8f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N,
             _STYLEGANV, clip=Clip(16, stride=8)),
    Protocol("fvd2048_16f_paper", "frechet", I3D, "logits", ALL, 2048, "data", BY_N,
             _STYLEGANV_PAPER, clip=_KEPT[0], repeats=10, assumed=_RUNS),
    Protocol("fvd2048_128f_paper", "frechet", I3D, "logits", ALL, 2048, "data", BY_N,
             _STYLEGANV_PAPER, clip=_KEPT[1], repeats=10, assumed=_RUNS),
    Protocol("fvd2048_16f_digan", "frechet", I3D_DIGAN, "logits", 2048, 2048, "data", BY_N_LESS_1,
             "DIGAN, on UCF-101", **_DIGAN),
    Protocol("kvd2048_16f_digan", "kernel", I3D_DIGAN, "logits", 2048, 2048, "data", {},
             "DIGAN, on UCF-101", **_DIGAN),
    Protocol("fvd_all_16f", "frechet", I3D, "logits", ALL, ALL, "data", BY_N, "two folders",
             clip=Clip(16)),
    Protocol("fid50k_video", "frechet", INCEPTION, "2048", ALL, 3125, "data", BY_N,
             _STYLEGANV, clip=Clip(16, reals="frames")),
    Protocol("fid_video2048x16", "frechet", INCEPTION, "2048", ALL, 2048, "data", BY_N,
             _STYLEGANV_PAPER, clip=Clip(16, reals="frames"),
             assumed="real pictures are every frame"),
    Protocol("isv2048_ucf", "video_is", C3D, "probabilities", 0, 2048, "data",
             {"splits": 10, "seed": 42}, _STYLEGANV, clip=Clip(16)),
    Protocol("isv2048_ucf_tganv2", "video_is", C3D, "probabilities", 0, 2048, "data",
             {"splits": 1, "seed": None}, "TGANv2", clip=Clip(16), repeats=10),
)
# fmt: on

BY_NAME = {protocol.name: protocol for protocol in TABLE}


def find(names: Sequence[str]) -> tuple[Protocol, ...]:
    """The protocols of these names, each once.

    Raises:
      ValueError: there is none of a name.
    """
    for name in names:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, 1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"There is no metric {name!r}{meant} A name is a whole protocol; there are "
                f"{', '.join(BY_NAME)}."
            )
    return tuple(BY_NAME[name] for name in dict.fromkeys(names))


def that_see_alike(chosen: Iterable[Protocol]) -> list[list[Protocol]]:
    """The protocols, those together that see alike."""
    groups: list[list[Protocol]] = []
    for protocol in chosen:
        for group in groups:
            if group[0].sees == protocol.sees:
                group.append(protocol)
                break
        else:
            groups.append([protocol])
    return groups


def table() -> str:
    """All protocols, for people."""
    rows = [("metric", "measure", "looks at", "real", "samples", "as in")]
    for p in TABLE:
        looks = f"{p.network.removesuffix('-2015-12-05')} {p.feature}"
        rows.append((p.name, p.measure, looks, _count(p.reals), _samples(p), p.source))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _samples(p: Protocol) -> str:
    """ "10 x 2048 of 16/8": ten times 2048 clips of 16 frames, every 8th of a video's."""
    stride = f"/{p.clip.stride}" if p.clip and p.clip.stride > 1 else ""
    frames = f" of {p.clip.frames}{stride}" if p.clip else " pairs" if p.probe else ""
    return (f"{p.repeats} x " if p.repeats > 1 else "") + _count(p.fakes) + frames


def _count(samples: int | None) -> str:
    return "all" if samples is None else f"{samples or '-'}"
