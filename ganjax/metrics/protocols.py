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
INCEPTION = "inception-2015-12-05"
CLIP = "clip-vit-b-32"
VGG = "vgg16"
I3D = "i3d-styleganv"
C3D = "c3d-ucf101"
PIXELS = "pixels"  # no network: pairs of pictures are compared as they are, `metrics.pairs`

ALL = None
BY_N, BY_N_LESS_1 = {"ddof": 0}, {"ddof": 1}  # divisors of covariances
EPSILON = 1e-4  # the step of path lengths, as a share of the way between two latents
STEP = {"epsilon": EPSILON}


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
      network: of `pretrained.catalog`, or `CLASSIFIER`.
      feature: of the network.
      reals: how many real samples, the first of the set's order; None: all; 0: none.
      fakes: how many samples; None: all of a folder; 0: none, the metric is of real samples alone.
      labels: of samples of a class-conditional model: "even" goes round the classes, "data" takes
        those of real samples at random.
      options: of the measure.
      source: whose protocol it is.
      clip: (frames, stride) of each sample of a video metric, whose numbers count clips; None for
        images. A network of images sees every frame of a clip on its own.
      probe: makes the samples, a pair of images each, where they are not the model's own.
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
    clip: tuple[int, int] | None = None
    probe: Probe | None = None

    @property
    def sees_frames(self) -> bool:
        """Whether a network of images looks at clips."""
        return self.clip is not None and self.network not in (I3D, C3D)

    @property
    def sees(self) -> tuple[Any, ...]:
        """What its network looks at: equal for protocols that share a pass over the samples."""
        return self.clip, self.sees_frames, self.probe


_TORCH_FIDELITY = {"seed": 2020}
_NVIDIA = "stylegan2-ada-pytorch, stylegan3"
# NOTE: resize and epsilon inside of its I3D are assumed, see `pretrained.i3d`.
_STYLEGANV = "stylegan-v, released code"


def _path(space: str, sampling: str) -> Probe:
    """Both ends of a short step between two latents."""
    return Probe("path", {"space": space, "sampling": sampling, "epsilon": EPSILON})


# fmt: off
TABLE = tuple(Protocol(*row) for row in (
    ("fd_digits", "frechet", CLASSIFIER, "features", 10_000, 1000, "even", BY_N_LESS_1, "ganjax"),
    ("fd_shapes", "frechet", CLASSIFIER, "features", 10_000, 1000, "even", BY_N_LESS_1, "ganjax"),
    ("class_accuracy", "accuracy", CLASSIFIER, "logits", 10_000, 1000, "even", {}, "ganjax"),
    ("fid50k_full", "frechet", INCEPTION, "2048", ALL, 50_000, "data", BY_N, _NVIDIA),
    ("fid50k", "frechet", INCEPTION, "2048", ALL, 50_000, "even", BY_N_LESS_1, "BigGAN, TTUR"),
    ("fid10k", "frechet", INCEPTION, "2048", ALL, 10_000, "even", BY_N_LESS_1, "as fid50k"),
    ("fid_all", "frechet", INCEPTION, "2048", ALL, ALL, "even", BY_N_LESS_1, "two folders"),
    ("reference_fid10k", "reference", INCEPTION, "2048", 20_000, 0, "even", BY_N_LESS_1,
     "Aurora: two sets of 10,000"),
    ("fid30k_coco", "frechet", INCEPTION, "2048", 30_000, 30_000, "even", BY_N_LESS_1,
     "XMC-GAN, Aurora"),
    ("sfid50k", "frechet", INCEPTION, "spatial", ALL, 50_000, "even", BY_N_LESS_1,
     "guided-diffusion"),
    ("clipfd50k", "frechet", CLIP, "embedding", ALL, 50_000, "even", BY_N_LESS_1,
     "torch-fidelity"),
    ("kid50k", "kid", INCEPTION, "2048", 50_000, 50_000, "even",
     {"subsets": 100, "subset_size": 1000} | _TORCH_FIDELITY, "torch-fidelity"),
    ("kid_all", "kid", INCEPTION, "2048", ALL, ALL, "even",
     {"subsets": 100, "subset_size": 1000} | _TORCH_FIDELITY, "two folders"),
    ("is50k", "inception_score", INCEPTION, "logits_unbiased", 0, 50_000, "even",
     {"splits": 10} | _TORCH_FIDELITY, "torch-fidelity"),
    ("pr50k3", "precision_recall", VGG, "fc2", 50_000, 50_000, "data",
     {"k": 3, "closed": True, "half": True}, _NVIDIA),
    ("pr_all", "precision_recall", VGG, "fc2", ALL, ALL, "even",
     {"k": 3, "closed": True}, "two folders"),
    ("dc10k5", "density_coverage", VGG, "fc2", 10_000, 10_000, "even",
     {"k": 5, "closed": False}, "Naeem et al. 2020"),
    ("fvd2048_16f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N, _STYLEGANV, (16, 1)),
    ("fvd2048_128f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N, _STYLEGANV, (128, 1)),
    ("fvd2048_128f_subsample8f", "frechet", I3D, "logits", 2048, 2048, "data", BY_N, _STYLEGANV,
     (16, 8)),
    ("fvd_all_16f", "frechet", I3D, "logits", ALL, ALL, "data", BY_N, "two folders", (16, 1)),
    ("fid_video2048x16", "frechet", INCEPTION, "2048", 2048, 2048, "data", BY_N,
     "frames of fvd2048_16f", (16, 1)),
    ("isv2048_ucf", "video_inception_score", C3D, "probabilities", 0, 2048, "data",
     {"splits": 10, "seed": 42}, _STYLEGANV, (16, 1)),
    ("ppl2_wend", "path_length", VGG, "lpips", 0, 50_000, "data", STEP, _NVIDIA, None,
     _path("w", "end")),
    ("ppl_wend", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA, None,
     _path("w", "end")),
    ("ppl_wfull", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA, None,
     _path("w", "full")),
    ("ppl_zend", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA, None,
     _path("z", "end")),
    ("ppl_zfull", "path_length", VGG, "lpips_faces", 0, 50_000, "data", STEP, _NVIDIA, None,
     _path("z", "full")),
    ("eqt50k_int", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3", None,
     Probe("translation", {"reach": 0.125, "whole": True})),
    ("eqt50k_frac", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3", None,
     Probe("translation", {"reach": 0.125, "whole": False})),
    ("eqr50k", "psnr", PIXELS, "squares", 0, 50_000, "data", {}, "stylegan3", None,
     Probe("rotation", {"reach": 1.0})),
))
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
    rows = [("metric", "measure", "network", "feature", "real", "samples", "labels", "as in")]
    for p in TABLE:
        counts = _count(p.reals), _count(p.fakes)
        rows.append((p.name, p.measure, p.network, p.feature, *counts, p.labels, p.source))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _count(samples: int | None) -> str:
    return "all" if samples is None else f"{samples or '-'}"
