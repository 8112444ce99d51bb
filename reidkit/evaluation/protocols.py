"""Protocols by name: what is left out, which scores are reported, and where that comes from."""

from reidkit.registry import UnknownName
from reidkit.types import EvalProtocol

PERSON = ("mAP", "mINP", "rank-1", "rank-5", "rank-10", "rank-20")
# Recall@K of Song et al., with the two scores Musgrave et al. put beside it.
FINE_GRAINED = ("R@1", "R@2", "R@4", "R@8", "MAP@R", "R-precision", "NMI")
# Scores of the features alone: no function of ranks, so `metrics.metric` does not know them.
OF_FEATURES = frozenset({"NMI"})

PROTOCOLS: dict[str, EvalProtocol] = {
    "market1501": EvalProtocol("same_camera", PERSON),
    "market1501_matlab": EvalProtocol("same_camera", PERSON, precision="trapezoid"),
    "msmt17": EvalProtocol("same_camera", PERSON),
    "cuhk03_new": EvalProtocol("same_camera", PERSON),
    "cuhk03_single_shot": EvalProtocol(
        "same_camera", ("rank-1", "rank-5", "rank-10", "rank-20", "mAP"), single_shot=True
    ),
    "veri776": EvalProtocol("same_camera", ("mAP", "mINP", "rank-1", "rank-5", "rank-10")),
    "mars": EvalProtocol("same_camera", PERSON, precision="trapezoid"),
    "mars_torchreid": EvalProtocol("same_camera", PERSON, gallery="without_queries"),
    "gait3d": EvalProtocol("nothing", ("rank-1", "rank-5", "rank-10", "mAP", "mINP")),
    "same_class": EvalProtocol("itself", ("mAP", "R@1", "R@2", "R@4", "R@8", "R@10", "R@100")),
    "cub200": EvalProtocol("itself", FINE_GRAINED),
    "cars196": EvalProtocol("itself", FINE_GRAINED),
    "sop": EvalProtocol("itself", ("R@1", "R@10", "R@100", "R@1000", "NMI")),
    "in_shop": EvalProtocol("nothing", ("R@1", "R@10", "R@20", "R@30", "R@40", "R@50")),
    "no_camera": EvalProtocol("nothing", PERSON),
}

# The source, then what surprises about it. "Unverified": known from memory, not from the files.
_NOTES = {
    "market1501": (
        "Market-1501: Zheng et al., Scalable Person Re-identification, ICCV 2015; the form of the "
        "Python toolboxes, whose average precision has rectangles where the authors' MATLAB code "
        "has trapezoids. 3,368 queries, 15,913 gallery images without junk (pid -1); distractors "
        "(pid 0) stay as wrong answers."
    ),
    "market1501_matlab": (
        "Market-1501 as the authors' MATLAB code scores it: Zheng et al., ICCV 2015. mAP is never "
        "higher than with 'market1501'; rank-k is the same."
    ),
    "msmt17": (
        "MSMT17: Wei et al., Person Transfer GAN to Bridge Domain Gap, CVPR 2018. 11,659 queries, "
        "82,161 gallery images, 15 cameras. Rectangles, as the Python toolboxes have them."
    ),
    "cuhk03_new": (
        "CUHK03, 767 identities to train and 700 to test: Zhong et al., Re-ranking Person "
        "Re-identification with k-reciprocal Encoding, CVPR 2017. 1,400 queries and 5,332 gallery "
        "images (detected) or 5,328 (labelled). Cameras are the two views, not the five pairs of "
        "cameras. Not comparable with 'cuhk03_single_shot'."
    ),
    "cuhk03_single_shot": (
        "CUHK03 as first published: Li et al., DeepReID, CVPR 2014. 100 test identities, the "
        "gallery one image of each, drawn at random. Here the exact expectation over all draws, "
        "where papers average ten or more of them; the one right answer makes mAP the mean of "
        "1/rank. Put one view into the gallery for the form where queries come from the other view "
        "(unverified: whether every toolbox does)."
    ),
    "veri776": (
        "VeRi-776: Liu et al., A Deep Learning-Based Approach to Progressive Vehicle "
        "Re-identification, ECCV 2016. 1,678 queries, 11,579 gallery images, 20 cameras. Image "
        "against image, as most papers report; the authors' search of image against track "
        "(unverified) is another number."
    ),
    "mars": (
        "MARS: Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, "
        "ECCV 2016; the authors' own rules. The gallery is all 12,180 test tracklets, the 1,980 "
        "queries included; junk is dropped, and the query itself leaves with its camera. All "
        "queries have a right answer. Trapezoids."
    ),
    "mars_torchreid": (
        "MARS as deep-person-reid scores it: no query tracklet stands in the gallery, which leaves "
        "9,330. 140 of the 1,980 queries then have no right answer and are not counted, which that "
        "toolbox does not say: 1,840 are averaged. Rectangles. Not comparable with 'mars'."
    ),
    "gait3d": (
        "Gait3D: Zheng et al., Gait Recognition in the Wild with Dense 3D Representations and A "
        "Benchmark, CVPR 2022. 1,000 probes against all other test sequences; no camera is left "
        "out, so a probe's own camera counts."
    ),
    "same_class": (
        "Leave-one-out on one set: every item is a query against all others of any class. Song et "
        "al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016, with the K "
        "of all their sets together."
    ),
    "cub200": (
        "CUB-200-2011: Wah et al., 2011; leave-one-out on classes 101 to 200 (5,924 images, "
        "unverified) as Song et al., CVPR 2016; MAP@R and R-precision of Musgrave et al., A Metric "
        "Learning Reality Check, ECCV 2020. The set's own split into training and test images is "
        "for classification, with the same classes in both: scores on it are not comparable."
    ),
    "cars196": (
        "Cars196: Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR "
        "2013; leave-one-out on classes 99 to 196 (8,131 images, unverified) as Song et al., CVPR "
        "2016; MAP@R and R-precision of Musgrave et al., ECCV 2020. The set's own split is for "
        "classification: merge both folders before the classes are split."
    ),
    "sop": (
        "Stanford Online Products: Song et al., CVPR 2016. Leave-one-out on 60,502 images of "
        "11,316 products (unverified). NMI clusters into as many groups as products, which takes "
        "longer than all ranking."
    ),
    "in_shop": (
        "In-shop Clothes Retrieval: Liu et al., DeepFashion, CVPR 2016. 14,218 queries against "
        "12,612 gallery images (unverified). No image is in both, so nothing is left out."
    ),
    "no_camera": "One's own data without cameras: every gallery item counts.",
}

_LEFT_OUT = {
    "same_camera": "gallery items of the query's identity from the query's camera",
    "same_view": "gallery items of the query's view, whoever they show",
    "itself": "the query itself",
    "nothing": "nothing",
}


def protocol(name: str) -> EvalProtocol:
    """The protocol of that name; a ValueError lists the known ones and the nearest."""
    if name not in PROTOCOLS:
        raise UnknownName.among("protocol", name, sorted(PROTOCOLS))
    return PROTOCOLS[name]


def describe(name: str) -> str:
    """What a protocol is: its source and what is odd about it, then its rules, a line each.

    Raises:
        UnknownName: no protocol has that name.
    """
    rules = protocol(name)
    if rules.single_shot:
        gallery = "one random image an identity, the expectation over all draws"
    else:
        gallery = "all items" if rules.gallery == "all" else "all items that are no query"
    return "\n".join(
        [
            f"{name}: {_NOTES[name]}",
            f"  left out  {_LEFT_OUT[rules.exclude]}; junk (pid -1)",
            f"  gallery   {gallery}",
            f"  AP        {rules.precision}s",
            f"  scores    {', '.join(rules.report)}",
        ]
    )
