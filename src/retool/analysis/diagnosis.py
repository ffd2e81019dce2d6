"""Do a model's words refer to an error, announce a repair, or reject a result? Words are English."""

from __future__ import annotations

import re

from retool.analysis.failures import error_type, exception_name, last_line
from retool.types import ToolCall


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


_REPAIR = _words(
    r"errors?|exceptions?|traceback|bugs?|buggy|mistakes?|mistaken\w*|typos?|oops|whoops|fix(?:e[sd]|ing)?",
    r"fail(?:s|ed|ing|ure)?|crash\w*|undefined|miss(?:ed|ing)|mis(?:spelled|spelt|typed)|forg[eo]t\w*|incorrect\w*",
    r"wrong\w*|invalid|syntax|indent\w*|correct(?:ed|ing|ion)|convert\w*|debug\w*|should have|try again",
    r"not (?:been |properly )?(?:defined|imported|found)",
    r"(?:does|did|is|was)(?: not|n['’]t) (?:work|exist|run|defined|allowed|supported)",
    r"needs? to (?:be |first )?(?:defin|import|convert|cast|chang|add|handl)\w*",
)
_ANNOUNCED = re.compile(
    r"\b(?:fix(?:e[sd]|ing)?|repair\w*|rewrit\w*|debug\w*|try again"
    r"|correct(?:ed|ing)? (?:it|this|that|(?:the|my) (?:code|script|function|program|error|mistake|bug|typo)))\b"
    r"(?![^.\n]{0,20}\blater\b)",
    re.IGNORECASE,
)
_CHEAPER = _words(
    r"faster|quicker|(?:more )?efficien\w*|optimi[sz]\w*|memoi[sz]\w*|cach(?:e|es|ed|ing)|iterat\w*|loops?|sieve",
    r"closed[- ]form|formula[es]?|dynamic programming|algorithms?|(?:another|different|better) (?:way|approach|method)",
)
_EXCESSIVE = r"recurs\w*|depth|deep\w*|iterat\w*|loops?"
_MEMORY = r"memory|too (?:large|big|much|many)"
_TIME = (
    r"slow\w*|fast\w*|(?:in)?efficien\w*|time|time[sd]?[ -]?out|(?:too|so) (?:long|many)|optimi[sz]\w*|exponential\w*"
)
_NAME = r"import\w*|defin\w*|declar\w*|scope|initiali[sz]\w*|carr(?:y|ies|ied) over|persist\w*"
_SPELLING = r"called|named|names?|spell\w*|(?:lower|upper)[- ]?case|instead"
_BRACKETS = r"brackets?|parenthes[ie]s|braces?|colons?|commas?|quotes?|escap\w*|backslash\w*|keywords?"

_SUBJECTS = {  # by `error_type`: what a text speaks of that explains such an error
    "time_limit": _words(_TIME),
    "TimeoutError": _words(_TIME),
    "memory_limit": _words(_MEMORY),
    "MemoryError": _words(_MEMORY),
    "output_limit": _words(r"output|print(?:s|ed|ing)?|too (?:long|much|many)"),
    "RecursionError": _words(_EXCESSIVE),
    "NameError": _words(_NAME),
    "UnboundLocalError": _words(_NAME),
    "ImportError": _words(_NAME, _SPELLING, r"modules?|librar\w+|packages?"),
    "ModuleNotFoundError": _words(_SPELLING, r"modules?|librar\w+|packages?|install\w*|(?:un)?available"),
    "AttributeError": _words(_SPELLING, r"attributes?|methods?"),
    "SyntaxError": _words(_BRACKETS),
    "IndentationError": _words(_BRACKETS),
    "IndexError": _words(
        r"ind(?:ex|ices)\w*|bounds?|range|length|off[- ]by[- ]one|(?:start|begin|count)\w* (?:at|from) (?:0|zero|1|one)"
    ),
    "KeyError": _words(r"keys?|dict\w*"),
    "TypeError": _words(r"types?|strings?|str|ints?|floats?|lists?|tuples?|cast\w*|arguments?|callable|iterable"),
    "ValueError": _words(r"negative|domain|complex|empty|arguments?"),
    "ZeroDivisionError": _words(r"0|zero|divi\w+|denominators?"),
    "OverflowError": _words(r"overflow\w*|too (?:large|big)|integers?|decimal"),
    "AssertionError": _words(r"assert\w*|assum\w*|hold\w*|conditions?"),
}
_TOO_MUCH = ("time_limit", "memory_limit", "TimeoutError", "MemoryError", "RecursionError")

_QUOTED = re.compile(r"['\"`](\w{2,})['\"`]")
_LONG_WORD = re.compile(r"[a-z]{4,}")
_STEM = 4  # letters in which a word of the message and one of the text must agree
_EMPTY_WORDS = {"from", "have", "indeed", "must", "than", "that", "then", "this", "when", "will", "with"}

_REJECTED = _words(
    r"(?:is|was|are|looks?|seems?)(?: (?:clearly|obviously|definitely|still|far|much|way))* (?:wrong|incorrect|off"
    r"|impossible|not (?:right|correct|possible|what (?:I|we) \w+)|too (?:large|small|big|high|low|many|few))",
    r"isn['’]t (?:right|correct|possible)",
    r"can(?:not|['’]t| not) be (?:right|correct|true|possible|it|negative|(?:the|my) (?:answer|result|sum|count))",
    r"does(?: not|n['’]t) (?:make sense|match|agree|look|seem)",
    r"mistakes?|bugs?|oops|whoops|off[- ]by[- ]one|forgot|missed|misread|overlooked|should have",
    r"need(?:ed)? to (?:in|ex)clude",
)


def refers_to(text: str, call: ToolCall) -> bool:
    """Does `text` speak of the error that `call` ended with?"""
    subject = _SUBJECTS.get(error_type(call) or "")
    if _REPAIR.search(text) or (subject and subject.search(text)):
        return True
    error, lower, name = last_line(call.output), text.lower(), exception_name(call)
    if name and name.lower() in lower.replace(" ", ""):
        return True
    if any(re.search(rf"\b{re.escape(quoted)}\b", text) for quoted in _QUOTED.findall(error)):
        return True
    message = set(_LONG_WORD.findall(error.partition(":")[2].lower())) - _EMPTY_WORDS
    words = set(_LONG_WORD.findall(lower)) - _EMPTY_WORDS
    met = [word for word in message if any(other.startswith(word[:_STEM]) for other in words)]
    return len(met) >= 2


def announces_repair(text: str) -> bool:
    """Is a repair to come, and not later?"""
    return _ANNOUNCED.search(text) is not None


def announces_less_work(text: str, call: ToolCall) -> bool:
    """After code that took too much time, memory or depth: is another way to come that takes less?"""
    return error_type(call) in _TOO_MUCH and _CHEAPER.search(text) is not None


def rejects_result(text: str) -> bool:
    """Do the words after a result that is no error say that it, or the code, is wrong?"""
    return _REJECTED.search(text) is not None
