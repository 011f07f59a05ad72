"""From words to token ids: tokenizers, chat templates, tables of what was tokenised.

It does not know models.
"""
