"""Records of videos with questions, and how answers about them are read. No torch.

It does not know how a file is decoded (video/), nor who answers.
"""

from text.video.video_records import Question, VideoRecord

__all__ = ["Question", "VideoRecord"]
