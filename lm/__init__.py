"""Language-model machinery, in rooms: from files and tokens over forests and backbones to generation and judging.

It does not know any method.
"""
