"""The process in which chat templates are rendered (text/limited_process.py): a template is a stranger's program.

It renders with transformers, and loads nothing else of it.
"""

from __future__ import annotations

from typing import Any

from text.limited_process import serve

MEMORY = 1 << 30  # bytes; a conversation takes a few kB
LONGEST = 1 << 26  # characters that a template may write


def rendered(asked: dict[str, Any]) -> dict[str, str]:
    """What a template makes of messages: their text, or the error that it raised.

    Args:
        asked: arguments of `render_jinja_template`, for one conversation.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        [text], _ = render_jinja_template(**asked)
    except MemoryError:
        return {"error": f"it needs more memory than {MEMORY >> 30} GB"}
    except Exception as error:  # whatever a stranger's code may raise
        return {"error": str(error) or type(error).__name__}
    return {"text": text} if len(text) <= LONGEST else {"error": f"it writes more than {LONGEST:,} characters"}


if __name__ == "__main__":
    rendered({"conversations": [[]], "chat_template": "", "add_generation_prompt": True})
    serve(rendered, MEMORY)
