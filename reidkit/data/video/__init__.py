"""Raw video to silhouettes: who is where in each frame, and who of one frame is who of the next."""

from reidkit.data.video.masks import PersonMask
from reidkit.data.video.pack_video import pack_video
from reidkit.data.video.reading import VideoFacts, frames_of, video_facts
from reidkit.data.video.segmentation import Segmenter, make_segmenter
from reidkit.data.video.tracking import Track, track

__all__ = [
    "pack_video",
    "frames_of",
    "video_facts",
    "VideoFacts",
    "Segmenter",
    "make_segmenter",
    "PersonMask",
    "track",
    "Track",
]
