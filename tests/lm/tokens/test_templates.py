"""Templates of published families: how they end a turn, which marks are theirs, and those that fail or never end."""

import copy
import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest

import lm.tokens.templates
from lm.tokens.templates import TemplateRefusal, check_arguments, end_of_turn, render, template_marks, turn_marks
from tests.chat_templates import FAMILIES, OWN_WORDS, TOOLS, TURNS, marked_tokenizer

USER = [{"role": "user", "content": "Hi"}]


def tokenizer(template, name=""):
    made = copy.copy(marked_tokenizer())
    made.chat_template, made.name_or_path = template, name
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_turn_is_what_the_template_writes(family):
    template, end = FAMILIES[family]
    own = tokenizer(template)
    assert own.convert_ids_to_tokens(end_of_turn(own)) == end


def test_without_a_mark_or_a_template_the_end_of_text_ends_a_turn():
    for template in (None, "{% for m in messages %}{{ m.content }}\n{% endfor %}", "{{ raise_exception('never') }}"):
        own = tokenizer(template)
        assert end_of_turn(own) == own.eos_token_id
    endless = copy.deepcopy(tokenizer(None))
    endless.eos_token = None
    assert end_of_turn(endless) is None
    endless.chat_template = FAMILIES["chatml"].template
    assert endless.convert_ids_to_tokens(end_of_turn(endless)) == "<|im_end|>"


def test_marks_of_turns_are_told_from_marks_that_models_write():
    own = tokenizer(FAMILIES["marks that are not special"].template)
    assert {"<s>", "</s>", "<|im_end|>", *TURNS} <= turn_marks(own)  # what is special always is one
    assert not turn_marks(own) & set(OWN_WORDS)
    assert {"<think>", "</think>"} <= template_marks(own)
    assert "<tool_call>" not in template_marks(own)
    assert set(TURNS).isdisjoint(turn_marks(tokenizer(FAMILIES["chatml"].template)))


def test_several_templates_of_one_tokenizer_are_all_looked_at():
    own = tokenizer({"default": FAMILIES["chatml"].template, "tool_use": TOOLS})
    assert own.convert_ids_to_tokens(end_of_turn(own)) == "<|im_end|>"
    assert "<tool_call>" in template_marks(own)
    assert "Tools:" in render(own, USER, [{"name": "clock"}])
    assert "Tools:" not in render(own, USER)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='a') %}{% for a in range(99999) %}{% for b in range(999) %}{% set n.s = a ~ b %}"
        "{% endfor %}{% endfor %}{{ n.s }}",
        "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) if n < 30 }}{% endfor %}{% endmacro %}{{ f(0) }}",
    ],
)
def test_a_template_that_never_ends_is_stopped(template, monkeypatch):
    monkeypatch.setattr(lm.tokens.templates, "SECONDS", 0.2)
    with pytest.raises(TemplateRefusal, match=r"refuses these messages: it runs longer than 0.2 seconds"):
        render(tokenizer(template), USER)
    assert render(tokenizer("{{ messages[0].content }}"), USER) == "Hi"  # and nothing is left behind


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ messages[0].content.missing.deeper }}", "has no attribute"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ range(10 ** 9) }}", "range"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{% include 'other' %}", "loader"),
        ("{{ raise_exception('I will not') }}", "I will not"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'a' * 10 ** 15 }}", "it needs more memory than 1 GB"),
        ("{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}", "more memory"),
        ("{{ 'a' * 10 ** 8 }}", "it writes more than 67,108,864 characters"),
        ("{% for %}", "Expected"),
    ],
)
def test_whatever_fails_within_a_template_names_it(template, told):
    with pytest.raises(TemplateRefusal, match="refuses these messages") as refusal:
        render(tokenizer(template, "models/mine"), USER)
    assert told in str(refusal.value)
    assert str(refusal.value).endswith("[the template of 'models/mine'; chat.template takes another]")


def test_any_thread_renders_within_the_limits(monkeypatch):
    """The endless template is stopped, and those of other threads come out whole."""
    monkeypatch.setattr(lm.tokens.templates, "SECONDS", 0.2)
    echo, endless = (
        "{{ messages[0].content }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    )

    def told(number):
        try:
            return render(tokenizer(endless if number == 3 else echo), [{"role": "user", "content": f"{number}"}])
        except TemplateRefusal as refusal:
            return str(refusal)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(told, range(8)))
    assert "it runs longer than 0.2 seconds" in found.pop(3)
    assert found == ["0", "1", "2", "4", "5", "6", "7"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_that_of_transformers(family):
    own = tokenizer(FAMILIES[family].template)
    turns = [{"role": role, "content": f"{role} \ud800 é\n", "name": None} for role in ("user", "assistant", "user")]
    for ask in (False, True):
        expected = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
        assert render(own, turns, ask=ask) == expected


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(TemplateRefusal, match="Object of type date is not JSON serializable"):
        render(tokenizer("{{ day }}"), USER, arguments={"day": datetime.date(2024, 1, 1)})


def test_variables_are_those_of_the_template():
    own = tokenizer(TOOLS)
    check_arguments(own, {"enable_thinking": False})
    with pytest.raises(TemplateRefusal, match="the chat template has no variable 'enable_thinkin_g'"):
        check_arguments(own, {"enable_thinkin_g": False})
    for name in ("messages", "tools", "add_generation_prompt", "eos_token", "tokenize"):
        with pytest.raises(TemplateRefusal, match=f"'{name}' is not a variable that can be given"):
            check_arguments(own, {name: "x"})
