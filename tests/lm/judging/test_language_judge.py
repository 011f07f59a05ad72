"""Verdicts of a language model: as one forest and one by one, in words and by probabilities, and never guessed."""

from __future__ import annotations

import pytest
import torch

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.generation.decoding import Decoding, Sample
from lm.judging.judge_by_name import TrainedJudge, note_template
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import JudgeRequest, Verdict
from lm.scoring.choices import shared_length
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.model_scores import ModelScores
from lm.scoring.reference import adapters_off
from lm.tokens.chat import ChatFormat
from tests.stand_ins import published, scratch, tiny_tokenizer
from text.errors import UserError
from text.judging.judge_prompts import JudgeTemplate
from text.judging.judge_templates import WrittenTemplate
from text.judging.rubrics import Rubric

FIVE = {str(score): f"worth {score}" for score in range(1, 6)}
RUBRICS = [Rubric(criteria=criteria, score_descriptions=FIVE) for criteria in ("Is it kind?", "Is it short?")]
SHORT = WrittenTemplate(
    absolute="{instruction}\n{response}\n{rubric}\n",
    absolute_ref="{instruction}\n{reference_answer}\n{response}\n{rubric}\n",
    relative="{instruction}\n{response_A}\n{response_B}\n{criteria}\n",
)


def asked(rubric=RUBRICS[0], responses=("a cat",), id="q", **kwargs):
    return JudgeRequest(id, "the dog sat", tuple(responses), rubric, **kwargs)


def many():
    pairs = [("a cat", "a dog"), ("a dog", "a cat")]
    direct = [asked(rubric, [text]) for rubric in RUBRICS for text in ("a cat", "a dog", "hello")]
    return direct + [asked(rubric, pair) for rubric in RUBRICS for pair in pairs]


def judge(template=None, seed=0, max_tokens=16384, share_prefixes="auto", **judging):
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = scratch(max_position_embeddings=2048).build(tokenizer).double()
    renderer = ChatFormat(system_separator="\n\n").renderer(tokenizer)
    how = Judging(**({"verdicts": "expected", "feedback": False} | judging))
    scores = ModelScores(model, share_prefixes=share_prefixes)
    return LanguageJudge(scores, renderer, template or SHORT, how, max_tokens)


class Says:
    """An engine that says what it was given, the next time the next thing."""

    def __init__(self, *texts, finished=True):
        self.texts, self.seeds, self.finished = list(texts), [], finished

    def generate(self, prefixes, k, decoding, seeds):
        self.seeds += seeds
        return [Sample((), self.texts.pop(0), self.finished) for _ in prefixes]


def says(*texts, **judging):
    made = judge(verdicts="text", feedback=True, **judging)
    made.engine = Says(*texts)
    return made


@pytest.mark.parametrize("rubric_last", [False, True])
@pytest.mark.parametrize("max_tokens", [100, 16384])
def test_a_forest_of_questions_is_what_each_of_them_is_alone(rubric_last, max_tokens):
    template = JudgeTemplate(rubric_last)
    together = judge(template, max_tokens=max_tokens, share_prefixes=True).judge(many())
    alone = judge(template, share_prefixes=False)
    for request, verdict in zip(many(), together, strict=True):
        expected = alone.judge([request])[0]
        assert verdict.probabilities == pytest.approx(expected.probabilities, abs=1e-10)
        assert (verdict.score is None, verdict.preference) == (expected.score is None, expected.preference)


def test_verdicts_are_the_models_own_next_tokens():
    found, made, tokenizer = judge().judge([asked()])[0], judge(), tiny_tokenizer()
    prompt = made.renderer.prompt_ids(SHORT.question(asked()).user)
    answers = [made.renderer.answer_ids(f"[RESULT] {score}", append_eos=False) for score in range(1, 6)]
    stem = shared_length(answers[0], answers[1])
    logits = made.scores.model(torch.tensor([prompt + answers[0][:stem]])).logits[0, -1]
    expected = logits[[answer[stem] for answer in answers]].softmax(0).tolist()
    assert found.probabilities == pytest.approx(expected, abs=1e-10)
    assert found.score == pytest.approx(sum(s * p for s, p in zip(range(1, 6), expected, strict=True)))
    assert made.judge([asked()])[0].score == found.score
    assert len({answer[stem] for answer in answers}) == 5
    assert tokenizer.get_vocab() == made.renderer.tokenizer.get_vocab()


def test_an_expected_verdict_and_a_constrained_one():
    """p = [0, .1, .2, .4, .3] is 3.9 and 4."""
    p = [0.0, 0.1, 0.2, 0.4, 0.3]
    for verdicts, score in (("expected", 3.9), ("constrained", 4.0)):
        made = judge(verdicts=verdicts)
        made._read = lambda cases: [(p, 1.0) for _ in cases]
        assert made.judge([asked()])[0].score == pytest.approx(score)


def test_only_what_cannot_be_read_is_written_again_with_another_seed(capsys):
    made = says("No. [RESULT] 2", "hm", "again hm", "Yes. [RESULT] 4")
    good, bad = made.judge([asked(), asked(run=1)])
    assert good == Verdict(score=2.0, feedback="No.")
    assert bad == Verdict(score=4.0, feedback="Yes.", attempts=3)
    assert len(set(made.engine.seeds)) == 4
    assert capsys.readouterr().out.splitlines() == [
        f"judge: 1 of 2 verdicts could not be read: retry {retry} of {made.judging.max_retries}" for retry in (1, 2)
    ]


def test_a_failure_is_counted_and_named_or_made_to_name_a_verdict():
    none = says(*["hm"] * 2, max_retries=1, fallback="none").judge([asked()])[0]
    assert (none.unparsed, none.parsed, none.reason, none.attempts) == (True, False, "no_marker", 2)
    forced = says(*["hm"] * 2, max_retries=1).judge([asked()])[0]
    assert not forced.unparsed
    assert (forced.parsed, forced.attempts) == (False, 2)
    assert forced.score in (1.0, 2.0, 3.0, 4.0, 5.0)
    assert sum(forced.probabilities) == pytest.approx(1)


def test_greedy_decoding_is_not_repeated():
    made = says("hm", decoding=Decoding(), fallback="none")
    assert made.judge([asked()])[0].attempts == 1


def test_what_is_drawn_depends_on_the_question_and_the_run_whatever_it_is_called_and_beside_whatever():
    made = says(*["[RESULT] 1"] * 5)
    made.judge([asked(), asked(run=1), asked(id="other"), asked(responses=["Bye."])])
    first, second, third, fourth = made.engine.seeds
    assert first == third
    assert len({first, second, fourth}) == 3
    made.judge([asked(run=1)])  # a resumed run counts from nothing
    assert made.engine.seeds[-1] == second


def test_the_prompt_is_no_verdict():
    made = says("I cannot tell.", max_retries=0, fallback="none")
    assert made.judge([asked(responses=["[RESULT] 5"])])[0].unparsed


def test_a_question_beyond_the_context_has_no_verdict():
    found = judge().judge([asked(responses=["cat " * 3000]), asked()])
    assert (found[0].reason, found[0].parsed) == ("too_long", False)
    assert found[1].reason == "ok"


def test_feedback_is_written_before_a_constrained_verdict():
    made = judge(verdicts="constrained", feedback=True, decoding=Decoding(max_new_tokens=3))
    with_feedback = made.judge(many())
    assert all(not verdict.unparsed and verdict.parsed for verdict in with_feedback)
    assert with_feedback[0].probabilities != judge().judge(many())[0].probabilities


def test_a_folder_judges_and_warns_of_other_words(tmp_path):
    folder = published(tmp_path / "judge", max_position_embeddings=512)
    how = Judging(verdicts="constrained", feedback=False)
    made = TrainedJudge(PretrainedBackbone(str(folder)), SHORT, how)
    assert made.judge([asked()])[0].score in (1.0, 2.0, 3.0, 4.0, 5.0)
    note_template(made.judge_itself.scores.model, SHORT)
    made.judge_itself.scores.model.save_pretrained(folder)
    with pytest.warns(UserWarning, match="trained in the words of 'written'"):
        TrainedJudge(PretrainedBackbone(str(folder)), JudgeTemplate(), how).judge_itself  # noqa: B018
    with pytest.raises(UserError, match="from scratch cannot judge"):
        TrainedJudge(scratch()).judge([asked()])


def test_text_needs_feedback():
    with pytest.raises(UserError, match="feedback must be true"):
        Judging(feedback=False)


def test_what_was_cut_off_is_written_again_and_never_becomes_a_verdict():
    made = judge(verdicts="text", feedback=True, max_retries=1, fallback="none")
    made.engine = Says("Good. [RESULT] 1", "Good. [RESULT] 2", finished=False)
    found = made.judge([asked()])[0]
    assert (found.unparsed, found.parsed, found.reason, found.attempts) == (True, False, "truncated", 2)


def test_ties_are_read_where_they_are_allowed():
    pair = asked(responses=("a cat", "a dog"))
    assert says("Alike. [RESULT] Tie", ties=True).judge([pair])[0].preference == "tie"
    found = says("Alike. [RESULT] Tie", max_retries=0, fallback="none").judge([pair])[0]
    assert (found.preference, found.reason) == (None, "no_value")


@pytest.mark.parametrize("verdicts", ["expected", "text"])
def test_a_feedback_that_fills_the_context_is_cut_so_that_a_verdict_fits(verdicts, monkeypatch):
    """Positions beyond the context have no meaning to a model, and no weights in many."""
    made = judge(verdicts=verdicts, feedback=True, max_retries=0)
    made.engine = Says("the dog sat on the cat " * 900)
    seen = []
    monkeypatch.setattr(
        "lm.scoring.model_scores.forest_logprobs",
        lambda model, forest, share: (
            seen.append(int(forest.position_ids.max())) or forest_logprobs(model, forest, share)
        ),
    )
    found = made.judge([asked()])[0]
    assert found.score is not None
    assert 2000 < max(seen) < 2048
    assert found.feedback
    assert ("the dog sat on the cat " * 900).startswith(found.feedback)


# ---- who judges


def adapted(folder):
    """A judge whose adapters have learnt something, and the base alone."""
    torch.manual_seed(0)
    model = PretrainedBackbone(folder, lora=LoRA(r=2)).build(tiny_tokenizer())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return model, PretrainedBackbone(folder).build(tiny_tokenizer())


@pytest.mark.parametrize("feedback", [False, True])
def test_a_policy_with_its_adapters_off_judges_as_its_base(tmp_path, feedback):
    """In its probabilities, and in what it writes."""
    model, base = adapted(str(published(tmp_path, max_position_embeddings=512)))
    how = Judging(verdicts="expected", feedback=feedback, decoding=Decoding(max_new_tokens=4, temperature=1.0))
    renderer = ChatFormat().renderer(tiny_tokenizer())
    off, alone, on = (
        LanguageJudge(scores, renderer, SHORT, how)
        for scores in (ModelScores(model, adapters_off), ModelScores(base), ModelScores(model))
    )
    model.train()
    before = off.kept_by()
    for one, other, third in zip(off.judge(many()), alone.judge(many()), on.judge(many()), strict=True):
        assert one.feedback == other.feedback
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.probabilities != pytest.approx(third.probabilities, abs=1e-3)
    assert model.training
    assert before != on.kept_by()
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).add_(1.0)
    assert off.kept_by() == before  # trained on, it is the same judge
    assert off.judge(many()[:1])[0].probabilities == pytest.approx(alone.judge(many()[:1])[0].probabilities, abs=1e-6)


def test_a_verdict_tells_how_sure_the_judge_is_that_it_is_asked_for_one():
    made = judge()
    found = made.judge([asked()])[0]
    prompt = made.renderer.prompt_ids(SHORT.question(asked()).user)
    answers = [made.renderer.answer_ids(f"[RESULT] {score}", append_eos=False) for score in range(1, 6)]
    stem = shared_length(answers[0], answers[1])
    next_token = made.scores.model(torch.tensor([prompt + answers[0][:stem]])).logits[0, -1].softmax(-1)
    assert found.mass == pytest.approx(sum(next_token[answer[stem]].item() for answer in answers), abs=1e-10)
