"""Who says what follows from what: words, a small classifier, a small model that answers 1 or 0."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from lm.judging.entailment import Claim, ClassifierEntailment, LexicalEntailment, Seq2SeqEntailment
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError

CLAIMS = [
    Claim("the cat sat on the mat", "a cat sat."),
    Claim("the cat sat", "the dog sat"),
    Claim("hello", "it is the"),
]


def test_words():
    assert LexicalEntailment().entails(CLAIMS) == [True, False, True]
    assert LexicalEntailment().entails([Claim("the cat sat", "the cat sat not")]) == [False]


def save(folder, model) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def classifier(labels: dict[int, str]) -> BertForSequenceClassification:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=300, id2label=labels, label2id={v: k for k, v in labels.items()}, **sizes)
    return BertForSequenceClassification(config)


def test_a_classifier_by_name(tmp_path):
    model = classifier({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"})
    with torch.no_grad():
        model.classifier.bias[2] = 10.0
    name = save(tmp_path / "yes", model)
    assert ClassifierEntailment(name, batch_size=2).entails(CLAIMS) == [True, True, True]
    with torch.no_grad():
        model.classifier.bias[2] = -10.0
    assert ClassifierEntailment(save(tmp_path / "no", model)).entails(CLAIMS) == [False, False, False]
    other = ClassifierEntailment(save(tmp_path / "other", classifier({0: "a", 1: "b", 2: "c"})))
    with pytest.raises(UserError, match="has the labels a, b, c, not 'entailment'"):
        other.entails(CLAIMS)
    with pytest.raises(UserError, match="does not exist"):
        ClassifierEntailment(str(tmp_path / "none")).entails(CLAIMS)


def test_a_model_that_writes_its_answer(tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **sizes))
    name = save(tmp_path / "t5", model)
    judge = Seq2SeqEntailment(name, batch_size=2)
    tokenizer, loaded = judge._loaded
    texts = [judge.template.format(**claim._asdict()) for claim in CLAIMS]
    written = [
        tokenizer.decode(loaded.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=8)[0], True).strip()
        for text in texts
    ]
    assert judge.entails(CLAIMS) == [text == "1" for text in written]
    same = Seq2SeqEntailment(name, yes=written[0])
    assert same.entails(CLAIMS[:1]) == [True]


def test_a_long_premise_is_cut_and_the_hypothesis_never(tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    name = save(tmp_path / "t5", T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **sizes)))
    judge = Seq2SeqEntailment(name, max_length=60)
    tokenizer, _ = judge._loaded
    asked = judge._asked(tokenizer, Claim("the cat sat on the mat. " * 40, "a dog ran"))
    assert asked.startswith("premise: the cat")
    assert asked.endswith(" hypothesis: a dog ran")
    assert len(tokenizer(asked)["input_ids"]) <= 60
    short = Claim("the cat", "a cat")
    assert judge._asked(tokenizer, short) == "premise: the cat hypothesis: a cat"
