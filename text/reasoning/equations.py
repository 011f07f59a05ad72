"""The calculator marks of GSM8K, ``<<48/2=24>>``: found, and checked without running them (arXiv 2110.14168)."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

TOLERANCE = 1e-3
LONGEST = 200  # characters of a left side; longer ones are no sums a pupil writes

_MARK = re.compile(r"<<([^>]*)>>")
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def marks(text: str) -> list[str]:
    """What stands between ``<<`` and ``>>``, in order."""
    return _MARK.findall(text)


def holds(mark: str) -> bool:
    """Whether the two sides of a mark are equal to 1e-3.

    Numbers, brackets and ``+ - * / // %`` are understood; any other text holds nothing, nor does a mark without ``=``.
    """
    left, equals, rest = mark.partition("=")
    try:
        return bool(equals) and abs(_worth(left) - float(rest.partition("=")[0])) < TOLERANCE
    except (ValueError, ArithmeticError):
        return False


def _worth(text: str) -> float:
    """The value of a sum.

    Raises:
        ValueError: it is none.
        ArithmeticError: it has no value.
    """
    if len(text) > LONGEST:
        raise ValueError("too long")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a sum") from error


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
        case ast.UnaryOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError("not a sum")
