"""Video-language models: an encoder, an aligner and a language model that reads what they see (arXiv 2404.14687).

It does not know how files are decoded, nor how questions become trees.
"""
