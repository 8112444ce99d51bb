"""Protocols by name: what is left out, and which scores are reported."""

from reidkit.registry import UnknownName, nearest
from reidkit.types import EvalProtocol

PERSON = ("mAP", "mINP", "rank-1", "rank-5", "rank-10", "rank-20")

PROTOCOLS: dict[str, EvalProtocol] = {
    # Zheng et al., ICCV 2015: the query's identity in the query's camera is neither right nor
    # wrong.
    "market1501": EvalProtocol("same_camera", PERSON),
    # Leave-one-out retrieval on one set (Song et al., CVPR 2016: Recall@K on SOP; CUB and Cars use
    # K = 1, 2, 4, 8).
    "same_class": EvalProtocol("itself", ("mAP", "R@1", "R@2", "R@4", "R@8", "R@10", "R@100")),
    # One's own data without cameras: every gallery item counts.
    "no_camera": EvalProtocol("nothing", PERSON),
}


def protocol(name: str) -> EvalProtocol:
    """The protocol of that name; a ValueError lists the known ones and the nearest."""
    if name not in PROTOCOLS:
        known = sorted(PROTOCOLS)
        raise UnknownName(
            f"unknown protocol {name!r}; known: {', '.join(known)}.{nearest(name, known)}"
        )
    return PROTOCOLS[name]
