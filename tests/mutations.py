"""Small changes of a source that make another program of it: what tests/mutants.py judges the tests by.

A scanner knows code from comments and strings and nothing of syntax: a change that no compiler takes is no mutant. C,
Python and Cython are read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Token(NamedTuple):
    """A piece of code and where it stands; ``depth``: brackets that are open there, in C without those of blocks."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


class Mutant(NamedTuple):
    """A file of which the characters from start to end are something else.

    ``name`` is what is kept about it: file, line as it was, line as it is; no number that other changes move.
    """

    file: str
    start: int
    end: int
    new: str
    name: str

    def applied(self, text: str) -> str:
        """The file with the change."""
        return text[: self.start] + self.new + text[self.end :]


_PYTHON = re.compile(
    r"(?P<string>[rbf]{0,2}(?:\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))"
    r"|(?P<comment>#[^\n]*)"
    r"|(?P<cast><(?:const )?[a-zA-Z_]\w*(?: long)? ?\**>(?=[\w&(-]))"
    r"|(?P<number>\d[\w.]*(?:(?<=\de)[+-]\d+)?|\.\d+)|(?P<name>[a-zA-Z_]\w*)"
    r"|(?P<operator>->|:=|\*\*=|//=|<<=|>>=|\*\*|//|<<|>>|[-+*/%&|^<>=!]=|[^\s\w])",
    re.DOTALL,
)
_C = re.compile(
    r"(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<comment>//[^\n]*|/\*.*?\*/|(?m:^)[ \t]*\#(?:\\\n|[^\n])*)"
    r"|(?P<number>\d[\w.]*(?:(?<=\de)[+-]\d+)?|\.\d+)|(?P<name>[a-zA-Z_]\w*)"
    r"|(?P<operator>->|\+\+|--|<<=|>>=|<<|>>|&&|\|\||[-+*/%&|^<>=!]=|[^\s\w])",
    re.DOTALL,
)

_SWAPPED = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "+=": "-=", "-=": "+=", "*=": "/=",
    "/=": "*=",
    "++": "--", "--": "++", "|=": "=", "&=": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "&&": "||", "||": "&&", "&": "|", "|": "&", "<<": ">>", ">>": "<<",
    "and": "or", "or": "and", "True": "False", "False": "True", "min": "max", "max": "min", "0": "1", "1": "0",
}  # fmt: skip
_EITHER_WAY = {"+", "-", "*", "&"}  # with one operand or two
_WORDS_BEFORE_A_VALUE = {"return", "and", "or", "not", "in", "is", "if", "else", "elif", "while", "yield", "case"}
_NO_CALLS = _WORDS_BEFORE_A_VALUE | {"for", "switch", "sizeof", "def", "class", "cdef", "with", "del", "lambda"}
_TYPES = re.compile(
    r"const|void|char|int|unsigned|float|double|real|integer|\w+_t|lrf_\w+|restrict|struct|list|dict|object|bint|PyObject"
)
_NO_STATEMENTS = re.compile(
    r"(?:return|def|class|if|elif|else|for|while|with|try|except|finally|import|from|cimport|cdef|cpdef|ctypedef|global"
    r"|pass|assert|yield|switch|case|default|do|goto|typedef|static|enum|struct|union|const|@)"
)


def mutants(file: str, text: str) -> list[Mutant]:
    """All of a file, in the order of its lines; of those with one name the first."""
    in_c = file.endswith((".c", ".h"))
    tokens: list[Token] = []
    depth, opening, closing = 0, "([" if in_c else "([{", ")]" if in_c else ")]}"
    for match in (_C if in_c else _PYTHON).finditer(text):
        if match.lastgroup not in ("comment", "cast"):
            depth -= match[0] in closing
            tokens.append(Token(match.lastgroup or "", match[0], match.start(), match.end(), depth))
            depth += match[0] in opening
    operators = [_values, _calls, _conditions, _c_statements if in_c else _statements]
    found = {}
    for start, end, new in sorted(change for operator in operators for change in operator(tokens, text, in_c)):
        changed = text[:start] + new + text[end:]
        name = f"{file}: {_lines(text, start, end)}  ->  {_lines(changed, start, start + len(new))}"
        found.setdefault(name, Mutant(file, start, end, new, name))
    return list(found.values())


Changes = Iterator[tuple[int, int, str]]


def _values(tokens: list[Token], text: str, in_c: bool) -> Changes:
    """Other operators, constants and words."""
    for before, token in pairwise([Token("operator", ";", 0, 0, 0), *tokens]):
        kind, word, start, end, _ = token
        after_value = before.kind in ("number", "string") or before.text in (")", "]")
        after_value |= before.kind == "name" and before.text not in _WORDS_BEFORE_A_VALUE
        if word in _EITHER_WAY and not after_value:
            if word == "-":
                yield start, end, ""
        elif word in ("*", "&") and _TYPES.fullmatch(before.text):
            pass
        elif not in_c and (word == "|" or before.text == "except"):
            pass  # of types, mostly
        elif word in _SWAPPED:
            yield start, end, _SWAPPED[word]
        elif kind == "number" and (number := re.fullmatch(r"(0x[0-9a-fA-F]+|[\d.]+(?:e[+-]?\d+)?)([uUlLf]*)", word)):
            if number[1].startswith("0x"):
                yield start, end, f"{int(number[1], 16) + 1:#x}{number[2]}"
            elif number[1].isdecimal():
                yield start, end, f"{int(number[1]) + 1}{number[2]}"
            else:
                yield start, end, f"{float(number[1]) * 2 or 1.0}{number[2]}"
        elif word == "!" or (word == "not" and before.text != "is"):
            yield start, end, ""
        elif word == "is":
            negated = re.compile(r"\s+not\b").match(text, end)
            yield start, negated.end() if negated else end, "is" if negated else "is not"


def _calls(tokens: list[Token], text: str, in_c: bool) -> Changes:
    """f(x) becomes (x), x.copy() becomes x."""
    for i, token in enumerate(tokens):
        if token.kind != "name" or i + 1 == len(tokens) or tokens[i + 1].text != "(" or token.text in _NO_CALLS:
            continue
        before = tokens[i - 1].text if i else ";"
        close = _closing(tokens, i + 1)
        if before == "." and close == i + 2:
            if token.text == "copy":
                yield tokens[i - 1].start, tokens[close].end, ""
            continue
        start = token.start
        if before == "." and tokens[i - 2].text in ("np", "math", "numpy"):
            start, before = tokens[i - 2].start, tokens[i - 3].text
        named = re.fullmatch(r"\w+", before) and before not in _WORDS_BEFORE_A_VALUE
        if before in (".", "@") or named or close == i + 2 or (in_c and before == "*"):
            continue
        inside = tokens[i + 2 : close]
        if not any(other.text in (",", "for", "=") and other.depth == inside[0].depth for other in inside):
            yield start, token.end, ""


def _conditions(tokens: list[Token], text: str, in_c: bool) -> Changes:
    """What is asked is always so, or never."""
    for i, token in enumerate(tokens):
        if in_c and token.text == "?":
            yield token.start, token.end, "|| 1 ?"
            yield token.start, token.end, "&& 0 ?"
        elif in_c and token.text == "if":
            inside = tokens[i + 1].end, tokens[_closing(tokens, i + 1)].start
            yield (*inside, "1")
            yield (*inside, "0")
        elif not in_c and token.text in ("if", "elif"):
            if _begins(token, text):
                colon = next(other for other in tokens[i:] if other.text == ":" and other.depth == token.depth)
                yield token.end, colon.start, " True"
                yield token.end, colon.start, " False"
            else:
                yield token.end, token.end, " True or"
                yield token.end, token.end, " False and"


def _c_statements(tokens: list[Token], text: str, in_c: bool) -> Changes:
    """Statements of one line that declare nothing are left out."""
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ""
        if token.kind != "name" or not (before in (";", "{", "}", ")", "else", ":") and _begins(token, text)):
            continue
        line = text[token.start : text.index("\n", token.start)]
        declares = _TYPES.match(token.text) and not re.match(r"\w+(\(|->|\.|\[)", line)
        declares = declares or re.match(r"\w+ [*\w]", line) or _NO_STATEMENTS.match(line)
        if line.endswith(";") and "{" not in line and not declares:
            yield token.start, token.start + len(line), ";"


def _statements(tokens: list[Token], text: str, in_c: bool) -> Changes:
    """Assignments, calls and raises in functions are left out."""
    for i, token in enumerate(tokens):
        if not _begins(token, text) or _NO_STATEMENTS.match(token.text) or token.kind == "string":
            continue
        following = (k for k in range(i + 1, len(tokens)) if tokens[k].depth == 0 and _begins(tokens[k], text))
        last = tokens[next(following, len(tokens)) - 1]
        statement = text[token.start : last.end]
        indented = text[text.rfind("\n", 0, token.start) + 1 : token.start]
        declares = re.match(r"\w+: ", statement) or (
            re.match(r"\w+ \w+", statement) and token.text not in ("raise", "del")
        )
        if indented and not declares and statement != "...":
            yield token.start, last.end, "pass"


def _begins(token: Token, text: str) -> bool:
    """Whether a line begins there, outside all brackets."""
    before = text.rfind("\n", 0, token.start)
    return token.depth == 0 and not text[before + 1 : token.start].strip() and text[before - 1 : before] != "\\"


def _closing(tokens: list[Token], opening: int) -> int:
    """Where the bracket that opens there is closed."""
    return next(k for k in range(opening + 1, len(tokens)) if tokens[k].depth == tokens[opening].depth)


def _lines(text: str, start: int, end: int) -> str:
    """The lines that hold these characters, on one line."""
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    return " ".join(text[first : last if last >= 0 else None].split())
