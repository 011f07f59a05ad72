"""What is made of samples: solutions to learn from again, and pairs."""

from modules import Sampler
from tests.stand_ins import scratch
from text.reasoning.reasoning_records import SampledSolution, SampleRecord


def test_mined_files_ask_as_the_question_was_asked():
    beside = {"system": "Be brief.", "tools": [{"name": "add"}], "chat_template_kwargs": {"loud": True}}
    samples = [
        SampledSolution(text="2+3=5\nThe answer is 5", answer="5", correct=True),
        SampledSolution(text="2+3=6\nThe answer is 6", answer="6", correct=False),
    ]
    drawn = [
        SampleRecord(id="q", question="2+3?", gold="5", samples=samples, **beside),
        SampleRecord(id="r", question="2+3?", gold="5", samples=samples),
    ]
    files, _ = Sampler(scratch()).files(drawn)
    for name in ("rft", "pairs"):
        told = [record.model_dump(include={*beside}, exclude_none=True, exclude_unset=True) for record in files[name]]
        assert told == [beside, {}]
