"""Clips: read by their presentation times, sampled in time, written. No torch.

It does not know what looks at the frames (lm/vision), nor what is asked about them.
"""

from video.faults import VideoError
from video.reader import Frames, read_frames, read_images
from video.sampling import Sampling
from video.table import VideoInfo, probe
from video.writer import write_clip

__all__ = ["Frames", "Sampling", "VideoError", "VideoInfo", "probe", "read_frames", "read_images", "write_clip"]
