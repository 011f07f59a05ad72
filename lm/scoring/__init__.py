"""Log-probs, states and rewards of forests, the attention beneath them, and reference policies.

It does not know prompts or methods.
"""
