"""Questions about videos as benchmarks spread them, read as they are: MVBench's files, and Video-ChatGPT's.

Both are JSON lists, one object a question. Knows their fields. It does not know where the videos lie.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from text.chat.messages import blame

MVBENCH_FPS = 3.0
"""At which MVBench took the frames of those videos that are folders of images (its task episodic_reasoning)."""


Family: TypeAlias = Literal["ours", "llava", "mvbench", "video_chatgpt"]
FAMILIES: dict[Family, str] = {
    "ours": "ours",
    "llava": "LLaVA's, with 'from' and 'value'",
    "mvbench": "MVBench's",
    "video_chatgpt": "Video-ChatGPT's",
}
"""What formats are called."""


def read_published(given: dict[str, Any]) -> Family:
    """Bring a record of one of these files into our form, in place, and tell whose it was; others stay as they are.

    MVBench (arXiv 2311.17005): ``video``, ``question``, ``candidates``, ``answer``, which is one of them, and where a
    part is looked at ``start`` and ``end``. The task is the name of the file. Video-ChatGPT (arXiv 2306.05424):
    ``video_name`` without its ending, ``Q`` and ``A``; or ``Q1`` and ``Q2``, two wordings of a question.
    """
    if "candidates" in given:
        _require(given, ("video", "question", "answer"), "MVBench")
        asked = {"question": given.pop("question"), "options": given.pop("candidates"), "answer": given.pop("answer")}
        _put(given, [asked], "MVBench")
        given.setdefault("fps", MVBENCH_FPS)
        return "mvbench"
    if "video_name" in given and given.keys() & {"Q", "Q1"}:
        _read_video_chatgpt(given)
        return "video_chatgpt"
    return "ours"


def _read_video_chatgpt(given: dict[str, Any]) -> None:
    _require(given, ("A", "Q1", "Q2") if "Q1" in given else ("A",), "Video-ChatGPT")
    answer, video = given.pop("A"), given.pop("video_name")
    if "Q1" in given:
        first = {"id": "0", "question": given.pop("Q1"), "answer": answer, "type": "consistency"}
        again = {"id": "1", "question": given.pop("Q2"), "answer": answer, "type": "consistency", "rephrases": "0"}
        _put(given, [first, again], "Video-ChatGPT")
    else:
        _put(given, [{"question": given.pop("Q"), "answer": answer}], "Video-ChatGPT")
    given["video"] = video


def _require(given: dict[str, Any], names: tuple[str, ...], whose: str) -> None:
    for name in names:
        if name not in given:
            blame(name, f"missing: a record of {whose} needs it")


def _put(given: dict[str, Any], questions: list[dict[str, Any]], whose: str) -> None:
    if "questions" in given:
        blame("questions", f"given, and a question of {whose} too: one of them")
    given["questions"] = questions
