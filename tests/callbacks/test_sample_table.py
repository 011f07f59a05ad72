import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.sample_table import SampleTable
from datamodules.instruction import Instructions
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.generation.sampling import seed_of
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import PretrainedTokenizer
from modules.knowledge_probe.knowledge_probe import KnowledgeProbe
from modules.sft import SFT
from tests.stand_ins import Rows, published, scratch, token_rows, trainer
from text.errors import UserError
from text.excerpts import markdown_table

PAIRS = [("the cat", "sat"), ("the dog", "on the log"), ("the cat", "on the mat"), ("hello", "world")]


def instructions(tmp_path, **options) -> Instructions:
    model = published(tmp_path / "model")
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "output": o}) + "\n" for p, o in PAIRS))
    tokenizer = PretrainedTokenizer(str(model))
    return Instructions(str(file), val=str(file), tokenizer=tokenizer, batch_size=4, **options)


def fitted(tmp_path, callback, data=None, module=None, steps=4):
    torch.manual_seed(0)
    callbacks = [] if callback is None else [callback]
    runner = trainer(
        tmp_path,
        logger=TensorBoardLogger(str(tmp_path), "run", ""),
        callbacks=callbacks,
        max_steps=steps,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
    )
    module = module or SFT(scratch(attention_dropout=0.3))
    runner.fit(module, data or instructions(tmp_path))
    return module


def tables(tmp_path) -> list[tuple[int, list[list[str]]]]:
    """(step, rows of prompt and output)."""
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    found = []
    for event in events.Tensors("samples/text_summary") if "samples/text_summary" in events.Tags()["tensors"] else []:
        lines = event.tensor_proto.string_val[0].decode().split("\n")
        assert lines[:2] == ["| prompt | output |", "| --- | --- |"]
        found.append((event.step, [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[2:]]))
    return found


def test_the_first_held_out_prompts_are_answered_at_every_validation(tmp_path):
    fitted(tmp_path, SampleTable(examples=2, decoding=Decoding(max_new_tokens=3)))
    assert [step for step, _ in tables(tmp_path)] == [2, 4]  # and not in the sanity check
    for _, rows in tables(tmp_path):
        assert [prompt for prompt, _ in rows] == ["the cat", "the dog"]  # each once


def test_given_prompts_are_rendered_as_the_data_is(tmp_path):
    chat = ChatFormat(template="{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    decoding = Decoding(max_new_tokens=3, temperature=1.0)
    callback = SampleTable(["hello"], decoding=decoding, seed=3, every=2)
    module = fitted(tmp_path, callback, instructions(tmp_path, chat=chat), steps=6)
    found = tables(tmp_path)
    assert [step for step, _ in found] == [2, 6]
    assert [prompt for prompt, _ in found[1][1]] == ["&lt;user&gt;hello"]
    (tokens,) = callback.tokens
    (sample,) = PlainEngine(module.model, module.tokenizer).generate([tokens], 1, decoding, [seed_of(3, 0)])
    (((_, output),),) = (rows for step, rows in found if step == 6)
    assert markdown_table([], [[sample.text + " …"]], 600).endswith(f"| {output} |")


def test_training_cannot_tell(tmp_path):
    plain = fitted(tmp_path / "plain", None)
    watched = fitted(tmp_path / "watched", SampleTable(examples=1, characters=20))
    assert len(tables(tmp_path / "watched")) == 2
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)


def test_dense_rows_have_no_prompts(tmp_path):
    data = Rows(token_rows(8), micro=2)
    with pytest.raises(UserError, match="a TokenRows has no prompts: give 'prompts'"):
        fitted(tmp_path, SampleTable(), data, KnowledgeProbe(scratch()))
    fitted(tmp_path, SampleTable(["hello"], decoding=Decoding(max_new_tokens=2)), data, KnowledgeProbe(scratch()))
    assert [[row[0] for row in rows] for _, rows in tables(tmp_path)] == [["hello"]] * 2


def test_a_resumed_run_answers_at_the_validations_of_an_uninterrupted_one():
    answered = []
    fitting = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), sanity_checking=False)

    def validated(table, times):
        table._log = lambda *_: answered.append(table.validations)
        for _ in range(times):
            table.on_validation_epoch_end(fitting, None)
        return table

    begun = validated(SampleTable(["hello"], every=3), 2)
    resumed = SampleTable(["hello"], every=3)
    resumed.load_state_dict(begun.state_dict())
    validated(resumed, 5)
    assert answered == [1, 4, 7]
    assert begun.state_key == resumed.state_key
    assert len({table.state_key for table in (begun, SampleTable(), SampleTable(examples=9))}) == 3  # of one fit


@pytest.mark.parametrize("options", [{"examples": 0}, {"every": 0}, {"prompts": []}])
def test_refuses_numbers_that_mean_nothing(options):
    with pytest.raises(UserError, match="at least 1"):
        SampleTable(**options)
