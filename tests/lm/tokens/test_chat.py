"""Prompts as text and tokens: system messages, templates that refuse them, what opens a text and ends an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from lm.tokens.chat import PLAIN_TEMPLATE, ChatFormat, TemplateRefusal
from lm.tokens.tokenizer import BPETokenizer
from text.chat.chat_records import Message
from text.chat.messages import TemplateInputs
from text.errors import UserError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRACKETS = (  # as Mistral 7B v0.2: no system role, roles must alternate, writes its own beginning of text
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
SILENT = "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\nA:{% endif %}{% endfor %}"
MODES = ("auto", "native", "merge_user", "drop", "replace")


def tokenizer(template=None, opens=False):
    made = BPETokenizer(vocab_size=270, special_tokens=("<s>", "<|im_start|>", "<|im_end|>")).build(["a cat sat"])
    if opens:  # as Llama's and Mistral's: every text begins with <s>
        made.bos_token = "<s>"
        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
        )
    made.chat_template = template
    return made


def renderer(template=None, opens=False, **format):
    if format.get("system_mode") == "replace":
        format = {"uniform_system": "uniform", **format}
    return ChatFormat(**format).renderer(tokenizer(template, opens))


def messages(*roles_and_words):
    return [Message(role=role, content=words) for role, words in roles_and_words]


@pytest.mark.parametrize(
    ("template", "mode", "expected"),
    [
        (CHATML, "auto", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "merge_user", "<|im_start|>user\nS\nU<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "drop", "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "replace",
         "<|im_start|>system\nuniform<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
        (BRACKETS, "auto", "<s>[INST] S\nU [/INST]"),  # it raises on a system role
        (BRACKETS, "merge_user", "<s>[INST] S\nU [/INST]"),
        (BRACKETS, "drop", "<s>[INST] U [/INST]"),
        (BRACKETS, "replace", "<s>[INST] uniform\nU [/INST]"),
        (SILENT, "auto", "Q: S\nU\nA:"),  # it would lose the system message without a word
        (None, "auto", "S\nU"),
        (None, "drop", "U"),
        (None, "replace", "uniform\nU"),
    ],
)  # fmt: skip
def test_where_system_messages_go(template, mode, expected):
    own = renderer(template, opens=True, system_mode=mode)
    assert own.prompt_text("U", "S") == expected
    if template is not None:
        assert own.prompt_text(messages(("system", "S"), ("user", "U"))) == expected


@pytest.mark.parametrize("template", [CHATML, BRACKETS, None])
def test_an_empty_system_message_adds_nothing(template):
    own = renderer(template, opens=True, system_separator=" | ")
    assert own.prompt_text("U", "") == own.prompt_text("U", None) == own.prompt_text("U")
    assert (own.prompt_text("U", "S") == "S | U") == (template is None)


def test_a_template_that_refuses_system_roles_says_so_if_they_are_asked_for():
    with pytest.raises(TemplateRefusal, match=r"roles must alternate.*\(chat.system_mode: merge_user puts it before"):
        renderer(BRACKETS, system_mode="native").prompt_text("U", "S")
    with pytest.raises(TemplateRefusal, match=r"refuses these messages: Conversation roles must alternate[^(]*$"):
        renderer(BRACKETS).prompt_text(messages(("user", "U"), ("user", "V")))
    with pytest.raises(TemplateRefusal, match="the chat template refuses these messages: Expected an expression"):
        renderer("{% if %}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("template", [CHATML, BRACKETS, SILENT, None])
def test_training_and_inference_read_the_same_prompt(template, mode, tmp_path):
    """In training prompts are tokenised by the hundred; a run's saved tokenizer serves at inference."""
    if (template, mode) in ((BRACKETS, "native"), (SILENT, "native")):
        pytest.skip("has no system role")
    trained = renderer(template, opens=True, system_mode=mode)
    prompts = [("U", "S"), ("a longer prompt, with words", "S"), ("U", None), ("", "")]
    in_training = trained.encode_prompts([trained.prompt_text(*prompt) for prompt in prompts])
    trained.tokenizer.save_pretrained(tmp_path)
    loaded = type(trained.tokenizer).from_pretrained(tmp_path)
    later = trained.format.renderer(loaded)
    assert [later.prompt_ids(*prompt) for prompt in prompts] == in_training
    answer = trained.answer_ids("fine")
    assert [*in_training[0], *answer][: len(in_training[0])] == later.prompt_ids(*prompts[0])


@pytest.mark.parametrize("template", [CHATML, BRACKETS])
def test_the_tokens_are_those_of_transformers(template):
    own = renderer(template, opens=template is BRACKETS)
    turns = messages(("user", "U"), ("assistant", "fine"), ("user", "a cat"))
    theirs = own.tokenizer.apply_chat_template(
        [turn.model_dump() for turn in turns], add_generation_prompt=True, return_dict=False
    )
    assert own.prompt_ids(turns) == theirs


def test_a_text_is_opened_once():
    """Whether the template writes the token, the tokenizer adds it, the user typed it, or nobody knows of one."""
    for template in (BRACKETS, CHATML, SILENT, None):
        own = renderer(template, opens=True)
        begin = own.tokenizer.bos_token_id
        for prompt in ("U", "<s>U"):
            assert own.prompt_ids(prompt).count(begin) == 1, template  # what the user typed is a word
            assert own.prompt_ids(prompt)[0] == begin
    assert renderer(CHATML).prompt_ids("U") == tokenizer()(renderer(CHATML).prompt_text("U"))["input_ids"]


def test_a_prompt_has_a_token_at_least():
    assert renderer(opens=True).prompt_ids("") == [tokenizer(opens=True).bos_token_id]
    assert renderer().prompt_ids("") == [tokenizer().eos_token_id]
    headless = tokenizer()
    headless.eos_token = None
    with pytest.raises(
        UserError, match="a prompt is empty, and the tokenizer has a token neither for the beginning nor"
    ):
        ChatFormat().renderer(headless).prompt_ids("")


def test_answers_are_tokenised_alone_and_ended_once():
    own = renderer(opens=True)
    eos = own.tokenizer.eos_token_id
    bare = own.tokenizer("a cat", add_special_tokens=False)["input_ids"]
    assert own.answer_ids("a cat") == own.answer_ids("a cat<|endoftext|>") == [*bare, eos]
    assert own.answer_ids("a cat", append_eos=False) == bare
    assert own.answer_ids("a cat<|endoftext|>", append_eos=False) == [*bare, eos]
    assert (own.answer_ids(""), own.answer_ids("", append_eos=False)) == ([eos], [])
    assert own.encode_answers(["a", "a"], [True, False]) == [own.answer_ids("a"), own.answer_ids("a", False)]
    endless = tokenizer()
    endless.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token to end answers with: name it with 'eos_token'"):
        ChatFormat().renderer(endless).answer_ids("a")


def test_the_last_token_of_a_prompt_does_not_merge_with_the_first_of_an_answer():
    joined = BPETokenizer(vocab_size=300).build(["abab ab abab"] * 9)
    own = ChatFormat().renderer(joined)
    assert len(joined("ab")["input_ids"]) == 1
    assert own.prompt_ids("a") + own.answer_ids("b", append_eos=False) == [
        *joined("a")["input_ids"],
        *joined("b")["input_ids"],
    ]


def test_without_a_template_messages_get_a_plain_one_that_the_tokenizer_keeps():
    own = renderer()
    turns = messages(("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))
    assert own.prompt_text(turns) == "system:\nS\nuser:\nU\nassistant:\nA<|endoftext|>\nuser:\nV\nassistant:\n"
    assert own.tokenizer.chat_template == PLAIN_TEMPLATE
    with pytest.raises(UserError, match=r"some prompts are text and some are messages.*give chat\.template"):
        own.prompt_text("text")
    plain = renderer()
    assert (plain.prompt_text("text"), plain.tokenizer.chat_template) == ("text", None)
    given = renderer(template=None, opens=False, **{"system_mode": "auto"})
    assert given.placement == "native"


def test_turns_of_a_conversation_begin_with_the_same_tokens():
    own = renderer(CHATML)
    turns = messages(("user", "U"), ("assistant", "a cat sat"), ("user", "V"))
    first = own.prompt_ids(turns[:1]) + own.answer_ids("a cat sat", append_eos=False)
    assert own.prompt_ids(turns)[: len(first)] == first


def test_a_template_of_the_configuration_replaces_the_tokenizers_own():
    own = ChatFormat(template=SILENT).renderer(tokenizer(CHATML))
    assert own.prompt_text("U") == "Q: U\nA:"
    assert own.tokenizer.chat_template == SILENT


@pytest.mark.parametrize("template", [CHATML, BRACKETS, None])
@given(system=st.text("astu é\n", max_size=9), words=st.text("astu é\n", min_size=1, max_size=9))
def test_what_comes_before_the_users_words(template, system, words):
    own = renderer(template, opens=template is not None)
    before = own.system_length(words, system)
    ids = own.prompt_ids(words, system)
    if system:
        shown = own.tokenizer.decode(ids[:before])
        assert system in shown or "�" in shown
        assert words in own.tokenizer.decode(ids[before - 1 :])
    else:
        assert before == 0


def test_impossible_formats_are_refused():
    for wrong in ({"system_mode": "replace"}, {"uniform_system": "x"}):
        with pytest.raises(UserError, match="'replace' and 'uniform_system' need one another"):
            ChatFormat(**wrong)


def test_two_renderers_of_one_tokenizer_keep_their_templates():
    shared = tokenizer(CHATML)
    brackets, own = ChatFormat(template=BRACKETS).renderer(shared), ChatFormat().renderer(shared)
    silent = ChatFormat(template=SILENT).renderer(shared)
    assert (brackets.prompt_text("U"), silent.prompt_text("U")) == ("[INST] U [/INST]", "Q: U\nA:")
    assert own.prompt_text("U") == "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    assert shared.chat_template == CHATML
    assert (brackets.end, own.end) == (shared.eos_token_id, shared.convert_tokens_to_ids("<|im_end|>"))
    bare = tokenizer()
    talk = messages(("user", "U"), ("assistant", "A"), ("user", "V"))
    assert ChatFormat().renderer(bare).prompt_text(talk).startswith("user:\nU")
    assert (ChatFormat().renderer(bare).prompt_text("U"), bare.chat_template) == ("U", None)


def test_tools_need_a_template():
    with pytest.raises(TemplateRefusal, match="tools and chat_template_kwargs need a chat template"):
        renderer().prompt_text("U", None, TemplateInputs(({"name": "f"},)))
    with pytest.raises(TemplateRefusal, match="does not show 'tools'"):
        renderer(CHATML, tools=[{"name": "f"}]).prompt_text("U")


def test_variables_that_the_format_gives_are_checked_before_any_record():
    with pytest.raises(TemplateRefusal, match="the chat template has no variable 'enable_thinking'"):
        renderer(CHATML, chat_template_kwargs={"enable_thinking": False})
