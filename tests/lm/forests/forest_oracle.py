"""What forests are checked against: tiny models with loud weights, and every path run alone through a plain copy."""

import copy

import torch
import transformers as tf

from lm.forests.forest import Node

VOCAB = 61
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # at the default of 0.02 a wrong mask hides in the noise
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}
WINDOW = {"sliding_window": 6}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}

# The 18 models of the design's table: config, what is set on it, and how it was built to differ from a Llama.
FAMILIES = {
    "llama": (tf.LlamaConfig, {}),
    "qwen2": (tf.Qwen2Config, {}),
    "qwen2-alternating": (tf.Qwen2Config, {"use_sliding_window": True, **ALTERNATING}),
    "qwen3": (tf.Qwen3Config, {}),
    "qwen3-moe": (tf.Qwen3MoeConfig, {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    "olmo2": (tf.Olmo2Config, {}),
    "olmo3": (tf.Olmo3Config, ALTERNATING),
    "smollm3": (tf.SmolLM3Config, {}),
    "phi3": (tf.Phi3Config, {}),
    "phi3-window": (tf.Phi3Config, WINDOW),
    "mistral": (tf.MistralConfig, WINDOW),
    "gemma2": (tf.Gemma2Config, {**ALTERNATING, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0}),
    "gemma3": (tf.Gemma3TextConfig, {**ALTERNATING, "final_logit_softcapping": 4.0}),
    "granite": (tf.GraniteConfig, {"logits_scaling": 3.0}),
    "cohere": (tf.CohereConfig, {"logit_scale": 0.3}),
    "gpt2": (tf.GPT2Config, {**GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "gpt-neox": (tf.GPTNeoXConfig, {"attention_dropout": 0.0, "hidden_dropout": 0.0}),
    "opt": (tf.OPTConfig, {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2, "dropout": 0.0}),
}


def build(family, dtype=torch.float64, **changes):
    """A model of the family in training mode, always with the same weights."""
    config_class, settings = FAMILIES[family]
    # The experts' grouped matmul refuses float64.
    dtype = torch.float32 if family == "qwen3-moe" else dtype
    return from_config(config_class(**{**SIZES, **settings, **changes}), dtype)


def from_config(config, dtype=torch.float64):
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(config).to(dtype).train()


def plain_copy(model):
    """A copy that has never seen a forest, in the attention its authors wrote."""
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager" if plain.config.model_type == "gemma2" else "sdpa")
    return plain


def alone(model, tokens):
    """Log-probs of all tokens but the first, of one sequence by itself."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def trees_alone(model, trees):
    """Log-probs of the scored tokens of `trees`, depth-first, from one run per root-to-leaf path."""
    pieces = []

    def walk(node, before):
        path = [*before, *node.tokens]
        if not node.children:
            runs[tuple(path)] = alone(model, path)
        for child in node.children:
            walk(child, path)

    def collect(node, before):
        path = [*before, *node.tokens]
        if node.scored:
            run = next(values for leaf, values in runs.items() if leaf[: len(path)] == tuple(path))
            pieces.append(run[len(before) - 1 :][: len(node.tokens)])
        for child in node.children:
            collect(child, path)

    for tree in trees:
        runs = {}
        walk(tree, [])
        collect(tree, [])
    return torch.cat(pieces) if pieces else torch.zeros(0)


def random_trees(rng, trees=3, branches=3, levels=3, longest=9, vocab=VOCAB):
    """Unscored roots with scored and unscored runs below them, in every proportion."""

    def node(level):
        tokens = rng.integers(0, vocab, rng.integers(1 if level == 0 else 0, longest + 1)).tolist()
        children = [node(level + 1) for _ in range(rng.integers(1, branches + 1) if level < levels - 1 else 0)]
        return Node(tokens, children, scored=level > 0 and bool(rng.random() < 0.8))

    return [node(0) for _ in range(trees)]


def assert_gradients_agree(ours, theirs, tolerance):
    """Gradients of the same parameters, relative to the largest of each; norms compute in float32, which costs 1e-7."""
    assert len(ours) == len(theirs) > 0
    for mine, yours in zip(ours, theirs, strict=True):
        scale = max(1.0, yours.abs().max().item())
        assert (mine - yours).abs().max().item() <= tolerance * scale
