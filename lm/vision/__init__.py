"""What sees: encoders of frames and of short runs of frames, what maps their features to a language model, and budgets.

It does not know questions or methods, nor how a file is decoded (video/).
"""

from lm.vision.aligners import Aligner
from lm.vision.batch import Clip, VideoBatch
from lm.vision.encoders import PretrainedVision, ScratchVision, VisionBackbone
from lm.vision.sight import Sight

__all__ = ["Aligner", "Clip", "PretrainedVision", "ScratchVision", "Sight", "VideoBatch", "VisionBackbone"]
