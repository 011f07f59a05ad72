"""Files of models and what is made from them: found, kept in the cache, written whole, checked when read.

It does not know what tokens mean, nor what is in a checkpoint.
"""
