"""Conversations about clips: token for token those of computing every turn anew; computed once, resumed, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.responses import Responses
from datamodules.video_prompts import VideoPrompts
from lm.forests.vector_ids import FIRST_VECTOR
from lm.generation.decoding import Decoding, Sample
from lm.vision.batch import VideoPromptBatch
from modules.pegasus.pegasus import Pegasus
from tests.clips import clip
from tests.conversation_files import jsonl
from tests.modules.pegasus.test_pegasus import WORDS, seeing_more
from tests.stand_ins import trainer
from text.errors import DataFormatError, UserError
from video.sampling import Sampling

ASKED = ["which colour comes first ?", "and then ?", "is that all ?"]
SPEECH = [{"start": 0, "end": 1, "text": "hello there"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, three questions about each; the second has a transcript, a third record no clip."""
    folder = tmp_path_factory.mktemp("talks")
    files = [str(clip(folder, 20 + 10 * number, f"{number}.mp4", height=128)) for number in range(2)]
    questions = {"questions": [{"question": question, "answer": "red"} for question in ASKED]}
    jsonl(
        folder / "asked.jsonl",
        {"id": "v0", "video": files[0], **questions},
        {"id": "v1", "video": files[1], "transcript": SPEECH, **questions},
        {"id": "text", **questions},
    )
    return folder


def talks(source: Path | str, module: Pegasus, **options: Any) -> VideoPrompts:
    """Prompts for a module that is built."""
    data = VideoPrompts(
        records=str(source), tokenizer=WORDS, sampling=Sampling(frames=5), conversation=True, batch_size=3, **options
    )
    data.sight = module.sight
    data.setup("predict")
    module.tokenizer = data.tokenizer
    torch.manual_seed(0)
    module.configure_model()
    module.eval()
    return data


def held(module: Pegasus, data: VideoPrompts) -> list[Sample]:
    return module.predict_step(data.batch(range(len(data.asked))), 0)


def by_hand(module: Pegasus, data: VideoPrompts, batch: VideoPromptBatch, said: list[str], record: int) -> list[int]:
    """The ids of a turn's prompt, from the words of the plain template."""
    speech = "Speech [0.0-1.0]: hello there\n" if record == 1 else ""
    turns = [f"user:\n{asked}\nassistant:\n" for asked in [f"{speech}{ASKED[0]}", *ASKED[1:]]]
    text = "".join(f"{turn}{answer}<end>\n" for turn, answer in zip(turns, said, strict=False)) + turns[len(said)]
    ids: list[int] = data.tokenizer(text, add_special_tokens=False)["input_ids"]
    if record == 2:
        return ids
    first = sum(one.tokens for one in batch.clips[:record])
    return [ids[0], *range(FIRST_VECTOR + first, FIRST_VECTOR + first + batch.clips[record].tokens), *ids[1:]]


@torch.no_grad()
def anew(module: Pegasus, data: VideoPrompts) -> tuple[list[list[int]], int]:
    """The tokens of each answer, every turn's prompt computed anew from embeddings; and tokens of all prompts."""
    batch, embed, made, count = data.batch(range(9)), module.model.get_input_embeddings(), list[list[int]](), 0
    table = module.vectors(batch.clips)
    for record in range(3):
        said: list[str] = []
        for _ in ASKED:
            ids = torch.tensor(by_hand(module, data, batch, said, record))
            given = embed(ids.masked_fill(ids >= FIRST_VECTOR, 0))
            given[ids >= FIRST_VECTOR] = table[ids[ids >= FIRST_VECTOR] - FIRST_VECTOR]
            asked = {"inputs_embeds": given[None], "attention_mask": torch.ones(1, len(ids))}
            written = module.model.generate(**asked, max_new_tokens=4, do_sample=False)[0].tolist()
            made.append([id for id in written if id != data.tokenizer.eos_token_id])
            said.append(data.tokenizer.decode(made[-1]))
            count += len(ids)
    return made, count


@pytest.mark.oracle("VideoPrompts.conversation")
@pytest.mark.parametrize("engine", ["cache", "plain"])
def test_turns_are_those_of_computing_each_of_them_anew(folder: Path, engine: Any):
    module = seeing_more(engine=engine, decoding=Decoding(max_new_tokens=4))
    data = talks(folder / "asked.jsonl", module)
    found = held(module, data)
    expected, tokens = anew(module, data)
    assert [list(sample.tokens) for sample in found] == expected
    assert len({tuple(answer) for answer in expected}) > 1
    seen = sum(one.tokens for one in data.batch(range(9)).clips)
    assert seen == 2 * 80
    computed = module.engine.prefilled  # type: ignore[union-attr]
    if engine == "plain":
        assert computed == tokens
    else:  # vectors once and not at each of the three turns; words of earlier turns once too
        assert computed <= tokens - 2 * seen


def test_a_conversation_that_was_broken_off_goes_on(folder: Path, tmp_path: Path):
    options = {"decoding": Decoding(max_new_tokens=4, temperature=1.0)}
    whole = seeing_more(**options)
    expected = held(whole, talks(folder / "asked.jsonl", whole))
    module = seeing_more(kept_answers=str(tmp_path), **options)
    data = talks(folder / "asked.jsonl", module)
    batch = data.batch(range(9))

    def broken(turn: Any, answers: Any) -> list[int]:
        if len(answers) == 2:
            raise KeyboardInterrupt
        return turn(answers)

    batch.talks = [talk._replace(prompt=lambda said, turn=talk.prompt: broken(turn, said)) for talk in batch.talks]
    with pytest.raises(KeyboardInterrupt):
        module.predict_step(batch, 0)
    again = seeing_more(kept_answers=str(tmp_path), **options)
    assert held(again, talks(folder / "asked.jsonl", again)) == expected
    kept = again.engine.found  # type: ignore[union-attr]
    assert 4 <= kept < 9
    assert held(again, talks(folder / "asked.jsonl", again)) == expected
    assert again.engine.found == kept + 9  # type: ignore[union-attr]
    records = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
    jsonl(tmp_path / "other.jsonl", records[0] | {"video": records[1]["video"]})
    other = seeing_more(kept_answers=str(tmp_path), **options)
    held(other, talks(tmp_path / "other.jsonl", other))
    assert other.engine.found == 0  # type: ignore[union-attr]  # the same words and ids about another clip


def test_several_conversations_are_held_each_by_itself(folder: Path):
    module = seeing_more(samples=2, decoding=Decoding(max_new_tokens=4, temperature=1.0))
    found = held(module, talks(folder / "asked.jsonl", module))
    assert len(found) == 18
    alone = seeing_more(decoding=Decoding(max_new_tokens=4, temperature=1.0))
    assert found[::2] == held(alone, talks(folder / "asked.jsonl", alone))
    assert found[::2] != found[1::2]
    greedy = seeing_more(samples=2, decoding=Decoding(max_new_tokens=4))
    same = held(greedy, talks(folder / "asked.jsonl", greedy))
    assert same[::2] == same[1::2]


def test_answers_on_record_are_not_what_the_model_is_told_that_it_said(folder: Path, tmp_path: Path):
    """The user's turns of messages are asked; the assistant's are what is right. And `predict` writes them in order."""
    said = [
        ("system", "be brief"),
        ("user", ASKED[0]),
        ("assistant", "first"),
        ("user", ASKED[1]),
        ("assistant", "blue"),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    video = str(folder / "0.mp4")
    jsonl(tmp_path / "talk.jsonl", {"id": "a", "video": video, "messages": messages}, {"id": "b", "prompt": "well ?"})
    module = seeing_more(decoding=Decoding(max_new_tokens=3))
    data = VideoPrompts(
        records=str(tmp_path / "talk.jsonl"), tokenizer=WORDS, sampling=Sampling(frames=5), conversation=True
    )
    trainer(tmp_path, logger=True, callbacks=[Responses()]).predict(module, data)
    (file,) = tmp_path.rglob("responses.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["id"], line["prompt"], line.get("answer")) for line in lines] == [
        ("a#0", ASKED[0], "first"),
        ("a#1", ASKED[1], "blue"),
        ("b#0", "well ?", None),
    ]
    batch = data.batch(range(3))
    told = data.tokenizer.decode([id for id in batch.talks[0].prompt(["then"]) if id < FIRST_VECTOR])
    assert "be brief" in told
    assert (told.count("then"), told.count("first")) == (2, 1)  # the second question has the one, the first the other


def test_what_is_no_conversation_or_has_no_room_is_refused(folder: Path, tmp_path: Path):
    spoken = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    jsonl(tmp_path / "two.jsonl", {"messages": spoken})
    with pytest.raises(DataFormatError, match=r"two\.jsonl:1: field 'messages'"):
        talks(tmp_path / "two.jsonl", seeing_more())
    questions = [{"question": "what now ? " * 20}] * 5
    jsonl(tmp_path / "long.jsonl", {"id": "long", "video": str(folder / "0.mp4"), "questions": questions})
    module = seeing_more(decoding=Decoding(max_new_tokens=2))
    with pytest.raises(UserError, match=r"'long#\d': turn \d of the conversation has a prompt of \d+ tokens"):
        held(module, talks(tmp_path / "long.jsonl", module))


def test_conversations_about_clips_that_cannot_be_shown_are_left_out(folder: Path, tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    lines = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
    jsonl(tmp_path / "asked.jsonl", lines[0] | {"video": str(tmp_path / "empty.mp4")}, *lines[1:])
    module = seeing_more(decoding=Decoding(max_new_tokens=2))
    data = talks(tmp_path / "asked.jsonl", module, on_bad_video="skip", max_bad_share=0.5)
    batch = data.batch(range(9))
    assert batch.rows == [3, 4, 5, 6, 7, 8]
    assert [talk.places for talk in batch.talks] == [range(0, 3), range(3, 6)]
    assert len(module.predict_step(batch, 0)) == 6
