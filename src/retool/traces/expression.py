"""Expressions: tokens of notation become syntax trees of Python, by the precedence that readers give them.

sum       = [- | +] product ((+ | -) product)*            remainder = sum (mod sum)*
product   = power ((* | / | // | % | nothing) power)*
power     = postfix [^ exponent]                      postfix   = atom (! | %)*
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from retool.traces.exact import letters
from retool.traces.notation import Sort, Token

LONGEST = 100  # tokens, and digits of a number: nobody writes more by hand, and a parser's stack has an end

_OPERATORS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "//": ast.FloorDiv}


class Unreadable(ValueError):
    """The tokens are no expression; the message says where that shows."""


def parse_expression(tokens: Sequence[Token]) -> ast.expr:
    """The tree of an expression with numbers, letters (`ast.Name`), arithmetic and calls of functions of `math`.

    Raises Unreadable unless all of `tokens` are one expression.
    """
    if len(tokens) > LONGEST:
        raise Unreadable(f"it has {len(tokens)} tokens, more than {LONGEST}")
    parser = _Parser(tokens)
    tree = parser.remainder()
    if parser.next is not None:
        raise Unreadable(f"{parser.next.text!r} does not go on with an expression")
    return tree


class _Parser:
    def __init__(self, tokens: Sequence[Token]):
        self._tokens, self._at = list(tokens), 0

    @property
    def next(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _sees(self, *texts: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at].sort is Sort.MARK and self._tokens[at].text in texts

    def _begins_operand(self, ahead: int = 0) -> bool:
        at = self._at + ahead
        if at >= len(self._tokens):
            return False
        token = self._tokens[at]
        return token.sort in (Sort.NUMBER, Sort.LETTER, Sort.FUNCTION) or token.text in ("(", "{")

    def _take(self) -> Token:
        token = self.next
        if token is None:
            raise Unreadable("it ends in the middle")
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        token = self._take()
        if token.text != text:
            raise Unreadable(f"{token.text!r} stands where {text!r} should")

    def remainder(self) -> ast.expr:
        tree = self.sum()
        while self._sees("mod"):
            self._take()
            tree = ast.BinOp(tree, ast.Mod(), self.sum())
        return tree

    def sum(self) -> ast.expr:
        negative = self._sees("-")
        if self._sees("-", "+"):
            self._take()
        tree = self.product()
        if negative:
            tree = ast.UnaryOp(ast.USub(), tree)
        while self._sees("+", "-"):
            operator = _OPERATORS[self._take().text]
            tree = ast.BinOp(tree, operator(), self.product())
        return tree

    def product(self) -> ast.expr:
        tree, divided = self.power(), False
        while True:
            if self._sees("*", "/", "//"):
                operator = self._take().text
                tree, divided = ast.BinOp(tree, _OPERATORS[operator](), self._signed_power()), operator == "/"
            elif self._sees("%"):  # what is no percentage
                self._take()
                tree, divided = ast.BinOp(tree, ast.Mod(), self.power()), False
            elif (
                self.next is not None and self.next.sort is Sort.LETTER and self.next.text in "xX" and self._is_times()
            ):
                self._take()
                tree, divided = ast.BinOp(tree, ast.Mult(), self.power()), False
            elif self._goes_on_without_a_sign():
                right = self.power()
                if divided and letters(right):
                    raise Unreadable("1/2x may be half of x or the inverse of 2x")
                tree = ast.BinOp(tree, ast.Mult(), right)
            else:
                return tree

    def _is_times(self) -> bool:
        """Is the letter x that comes next a sign between two numbers?"""
        at = self._at
        after = self._tokens[at + 1] if at + 1 < len(self._tokens) else None
        before = self._tokens[at - 1]
        return (
            after is not None
            and (after.sort is Sort.NUMBER or after.text == "(")
            and (before.sort is Sort.NUMBER or before.text in (")", "%", "}"))
            and before.end < self._tokens[at].start  # 2 x (3 + 4), but not 2x(3 + 4)
        )

    def _goes_on_without_a_sign(self) -> bool:
        """2(3 + 4), (1 + 2)3, 2x, 2\\sqrt{9}; but neither `1 1/2` nor `3\\frac{1}{2}`, which are sums."""
        if not self._begins_operand() or self._at == 0:
            return False
        before, token = self._tokens[self._at - 1], self._tokens[self._at]
        if token.sort is Sort.NUMBER:
            return before.text in (")", "}")
        return not (before.sort is Sort.NUMBER and token.text == "frac")

    def _signed_power(self) -> ast.expr:
        if not self._sees("-"):
            return self.power()
        self._take()
        return ast.UnaryOp(ast.USub(), self.power())

    def power(self) -> ast.expr:
        base = self._postfix()
        if not self._sees("^"):
            return base
        self._take()
        return ast.BinOp(base, ast.Pow(), self._signed_power())

    def _postfix(self) -> ast.expr:
        tree = self._atom()
        while True:
            if self._sees("!"):
                self._take()
                tree = _call("factorial", tree)
            elif self._sees("%") and not self._begins_operand(ahead=1):
                self._take()
                tree = ast.BinOp(tree, ast.Div(), ast.Constant(100))
            else:
                return tree

    def _atom(self) -> ast.expr:
        token = self._take()
        if token.sort is Sort.NUMBER:
            return _number(token.text)
        if token.sort is Sort.LETTER:
            return ast.Name(token.text)
        if token.sort is Sort.FUNCTION:
            return self._function(token)
        if token.text in ("(", "{"):
            tree = self.remainder()
            self._expect(")" if token.text == "(" else "}")
            return tree
        raise Unreadable(f"{token.text!r} stands where a number should")

    def _function(self, token: Token) -> ast.expr:
        if token.text == "frac":
            return ast.BinOp(self._group(), ast.Div(), self._group())
        if token.text == "binom":
            return _call("comb", self._group(), self._group())
        if token.text == "sqrt":
            if self._sees("["):
                raise Unreadable("a root of another kind than the square's")
            return _call("sqrt", self._group())
        if token.text[:3] in ("gcd", "lcm"):
            return _call(token.text[:3], *map(_number, re.findall(r"[\d.]+", token.text.replace(",", " "))))
        raise Unreadable(f"{token.text!r} inside an expression")

    def _group(self) -> ast.expr:
        """An argument as LaTeX reads it: `{…}`, or one digit; or `(…)`."""
        token = self._take()
        if token.sort is Sort.NUMBER and token.text.isdigit():
            if len(token.text) > 1:  # \\frac12
                rest = Token(Sort.NUMBER, token.text[1:], token.start + 1, token.end)
                self._at -= 1
                self._tokens[self._at] = rest
            return ast.Constant(int(token.text[0]))
        if token.text not in ("{", "("):
            raise Unreadable(f"{token.text!r} stands where an argument should")
        tree = self.remainder()
        self._expect("}" if token.text == "{" else ")")
        return tree


def _number(text: str) -> ast.expr:
    plain = re.sub(r"[^\d.]", "", text)
    if len(plain) > LONGEST:
        raise Unreadable(f"a number of {len(plain)} digits")
    return ast.Constant(float(plain) if "." in plain else int(plain))


def _call(function: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(ast.Name("math"), function), list(arguments), [])
