"""The numbers of arXiv 2406.11813 that ours are put beside; None where the paper's value could not be read.

OLMo-7B on 2048 x 2048 tokens a step from early, mid and late checkpoints (Tables 2 and 6), and from the mid checkpoint
on 128 x 2048 (Tables 10 and 11). Not available here: the one-sigma errors, the 1B tables, the constant-rate arm.
"""

TYPES = {"mem": "memorization", "gen": "semantic", "hard_gen": "compositional"}

# Early, mid, late.
DECAY_CONSTANT = {
    "duplication": {"mem": (0.26, 0.25, 0.20), "gen": (0.24, 0.25, 0.21), "hard_gen": (0.18, 0.20, 0.16)},
    "paraphrase": {"mem": (0.20, 0.21, 0.18), "gen": (0.20, 0.23, 0.21), "hard_gen": (0.14, 0.15, 0.19)},
}
DECAY_CONSTANT_BATCH_128 = {
    "duplication": {"mem": 0.31, "gen": 0.29, "hard_gen": 0.26},
    "paraphrase": {"mem": 0.31, "gen": 0.32, "hard_gen": 0.26},
}
LOG10_TAU_TOKENS = {
    "duplication": {"mem": (11.01, 11.02, 11.59), "gen": (10.86, 10.98, 11.33), "hard_gen": (11.35, 11.32, 11.85)},
    "paraphrase": {"mem": (11.34, 11.37, 12.06), "gen": (11.44, 10.94, 11.47), "hard_gen": (12.05, 11.88, 11.40)},
}
LOG10_TAU_TOKENS_BATCH_128 = {
    "duplication": {"mem": 9.45, "gen": 9.49, "hard_gen": 9.47},
    "paraphrase": {"mem": 9.44, "gen": 9.39, "hard_gen": 9.28},
}
