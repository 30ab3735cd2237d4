"""Bad input, and what it must be taken for: the corpus of the contract's paragraph on input, with oracles of its own.

The oracles are written from the contract, with the standard library's json, and share nothing with the bus. They say
whether an input fits (True), must be refused (False), or that the contract leaves it open (None).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Value = Any  # text, bytes that may be no UTF-8, or, for the libraries alone, any object
Oracle = Callable[[str], bool | None]

DEPTH = 64
MOST = 1 << 20  # bytes of a payload
CENTURY = 100 * 366 * 86400


def text_of(value: Value) -> str | None:
    """The value as text; None where it is none: no UTF-8, or no text at all."""
    try:
        found = value.decode() if isinstance(value, bytes) else value
        found.encode()
    except (UnicodeError, AttributeError):
        return None
    return found if isinstance(found, str) else None


# --- oracles


def is_text(text: str) -> bool | None:
    return "\0" not in text


def is_word(text: str) -> bool | None:
    return bool(text) and is_text(text)


def is_id(text: str) -> bool | None:
    return bool(re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}", text))


def is_key(text: str) -> bool | None:
    return bool(re.fullmatch(r"[A-Za-z0-9_:/][A-Za-z0-9._:@/-]{0,127}", text))


def is_document(text: str) -> bool | None:
    """Whether JSON is as the contract wants it, up to its size."""
    if len(text.encode()) > MOST or "\0" in text:
        return False
    try:
        found = json.loads(text, parse_constant=_no, object_pairs_hook=_pairs, parse_float=_real, parse_int=_whole)
        return _sound(found)
    except (ValueError, RecursionError):
        return False


def is_payload(text: str) -> bool | None:
    return bool(is_document(text)) and text.lstrip(" \t\r\n").startswith("{")


def is_array(text: str) -> bool | None:
    return bool(is_document(text)) and text.lstrip(" \t\r\n").startswith("[")


def is_duration(text: str) -> bool | None:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ms|s|m|h|d|)", text, re.ASCII)
    if not match:
        return None if re.search("[0-9]", text) else False
    seconds = float(match[1]) * {"ms": 0.001, "m": 60, "h": 3600, "d": 86400}.get(match[2], 1)
    return seconds <= CENTURY and (seconds > 0 or None)


def is_priority(text: str) -> bool | None:
    return True if re.fullmatch(r"[1-9]|10", text) else None if re.search(r"\d", text) else False


def is_one_of(*words: str) -> Oracle:
    return lambda text: text in words


def unknown(text: str) -> bool | None:
    return None


def _no(constant: str) -> None:
    raise ValueError(constant)


def _whole(digits: str) -> int:
    if len(digits) > 30 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("beyond 64 bits")
    return int(digits)


def _real(digits: str) -> float:
    found = float(digits)
    if abs(found) == float("inf"):
        raise ValueError("infinite")
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _sound(document: Any) -> bool:
    """Whether it is not too deep, and its texts have neither NUL nor lone surrogates."""
    level, depth = [document], 0
    while level:
        texts = [part for part in level if isinstance(part, str)]
        texts += [key for part in level if isinstance(part, dict) for key in part]
        if any("\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text) for text in texts):
            return False
        nested = [part for part in level if isinstance(part, dict | list)]
        depth += bool(nested)
        if depth > DEPTH:
            return False
        level = [inner for part in nested for inner in (part.values() if isinstance(part, dict) else part)]
    return True


# --- the corpus

WORDS: tuple[Value, ...] = (
    "", " ", "\n", "a\nb", "a\r\nb\r", "\t", "'", '"', "''; drop table agent_state; --", "$(id)", "`id`", "${HOME}",
    "%s%n",
    "\\", "\\0", "\\u0000", "a\0b", "\0", "é", "日本", "\U0001f600", "a\u202eb", "\u200b", "\ufeff", "\x1b[31m", "\x7f",
    "\x85",
    "\u2028", "\ud800", "a\udfff", b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", "x" * 5000,
    "-", "--", "-x", "--help", "--json", "--bus=/dev/null", "@", "@file", "*", "/", "..", "../../etc/passwd", "~",
    "|", ";", "&",
    "null", "true", "0", "-1", "NaN", "inf", "1e999", "٣", "[]", "{}", "=cmd", "a,b", "a|b", "x'00'", ":agent", "?1",
    "<0>", "<0><1>\r",
)  # fmt: skip
IDS: tuple[Value, ...] = (
    "a", "A.b_c:d@e-f", "x" * 128, "x" * 129, "_", ":", ":a", "_x", "1", ".a", "-a", "@a", "a/b", "a b", "a\n", "\na",
    "é", "ａ", "a\0",
    "con", "nul", "a.turn", "constructor", "boss", "one", "BOSS", "boss ", "@milestone-executor", "@nobody", "@@",
    "@*", *WORDS,
)  # fmt: skip
NUMBERS: tuple[Value, ...] = (
    "1", "10", "11", "0", "-0", "-1", "+5", " 5", "5 ", "5\n", "05", "5.0", "5e0", "0x5", "5_0", "1_0", "٥", "５",
    "2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 400, "1e400", "nan", "inf", "-inf",
    "1/2", "50", "100", "101",
    *WORDS,
)  # fmt: skip
DURATIONS: tuple[Value, ...] = (
    "1s", "5m", "2h", "7d", "500ms", "1.5h", ".5s", "1.", "0s", "0", "00", "1e3", "1S", "1 s", " 1s", "1s ", "1s\n",
    "1w", "1y", "36600d",
    "36601d", "99999999999999999999", "9" * 400, "1.1.1s", "s", ".", ".s", "-1s", "+1s", "1h30m", "٣s", "1ms1",
    *NUMBERS,
)  # fmt: skip
RECEIPTS: tuple[Value, ...] = (
    "1.1", "1.2", "2.1", "2.0", "9.1", "0.0", "1", "1.", ".1", "1.1.1", "01.1", "1.01", "1.1 ", " 1.1", "1.1\n",
    "-1.1", "1.-1", "1e0.1",
    "1.1,2.1", '["1.1"]', "9" * 18 + ".1", "9" * 19 + ".1", "1." + "9" * 18, "1." + "9" * 30, "٣.1", "1.1' or 1",
    *WORDS,
)  # fmt: skip


def nested(depth: int, opening: str = '{"a":', closing: str = "}", inside: str = "1") -> str:
    return opening * depth + inside + closing * depth


JSON: tuple[Value, ...] = (
    "{}", " { } ", "{}\n", "\t{}", '{"a": 1}', '{"a":1.0,"b":-0,"c":-0.0,"d":1e5,"e":1E-5,"f":0.1}', '{"":""}',
    '{"a":null}', '{"a":[{}]}',
    '{"é":"日本\U0001f600"}', '{"a":"\\u00e9\\ud83d\\ude00\\/\\b\\f"}', '{"a":"\x7f\u2028\ufeff"}', '{"a":"\\\\u0000"}',
    '{"a":"\\\\\\\\u0000"}',
    '{"a":"u0000"}', '{"phase":"x"}', '{"a":9223372036854775807,"b":-9223372036854775808}', '{"a":1e308}',
    '{"a":5e-324}', '{"a":1e-999}',
    '{"a":0.30000000000000004}', '{"a":123456789012345678.0}', '{"a":"' + "x" * 2000 + '"}', '{"a":"\\ud83d\\ude00"}',
    '{"__proto__":{}}',
    nested(64), nested(63, inside="[]"), '{"a":' + nested(63, "[", "]") + "}", "[" * 64 + "]" * 64,
    '{"a":"' + "[" * 200 + '"}',
    # and these are none, or none that the bus takes
    "", " ", "{", "}", "[", "]", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{,}", "{a:1}", "{'a':1}", '{"a":1}{}',
    '{"a":1} x', "[]", "[1]", "1", '"a"',
    "null", "true", "nul", "NaN", '{"a":NaN}', '{"a":nan}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":inf}',
    '{"a":1e999}', '{"a":-1e999}',
    '{"a":9223372036854775808}', '{"a":-9223372036854775809}', '{"a":' + "9" * 400 + "}", '{"a":' + "9" * 5000 + "}",
    '{"a":01}', '{"a":+1}',
    '{"a":.5}', '{"a":5.}', '{"a":1e}', '{"a":0x1}', '{"a":--1}', '{"a":1_0}', '{"a":"\t"}', '{"a":"\n"}',
    '{"a":"\\x"}', '{"a":"\\u12"}',
    '{"a":"\\u00zz"}', '{"a":"\\', '{"a":"\\u0000"}', '{"\\u0000":1}', '{"a":"x\\u0000y"}', '{"a":"\\\\\\u0000"}',
    '{"a":"\\ud800"}',
    '{"a":"\\udc00\\ud800"}', '{"\\ud800":1}', '{"a":"\\uD800x"}', '{"a":"\\ud83d\\u0041"}', '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '{"x":{"a":1,"a":1}}', '{"x":[{"b":1,"b":1}]}', '{"\U0001f600":1,"\\ud83d\\ude00":2}', nested(65), nested(64,
    inside="[]"), nested(2000),
    "[" * 65 + "]" * 65, "[" * 100_000, '{"a":' * 100_000, '{"a":' + nested(64, "[", "]") + "}",
    '{"a":"' + "x" * MOST + '"}', '{"a":/**/1}', "{}//",
    "\ufeff{}", "\x00{}", "{}\0", '{"a":"\0"}', "\ud800", '{"a":"\udfff"}', b'{"a":"\xff"}', b'{"a":"\xc3"}',
    b'{"a":"\xed\xa0\x80"}', b"\xff\xfe{\0}\0",
    b'{"a":"\xc0\x80"}', "\u00a0{}", "\x0b{}", "\u2028{}", '{"a":TRUE}', "{}{}", "{}\n{}", "5{}", "x'7b7d'",
)  # fmt: skip
SCHEMAS: tuple[Value, ...] = (
    "{}", '{"type":"object"}', '{"properties":{"a":{"type":"integer"}}}',
    '{"properties":{"a\'b":{"const":"\'; drop table x; --"}}}',
    '{"properties":{"a":{"enum":["\\u0000"]}}}', '{"type":"array"}', '{"type":["object"]}', '{"type":7}',
    '{"type":[]}', '{"type":"gadget"}',
    '{"pattern":"x"}', '{"$ref":"#"}', '{"properties":[]}', '{"properties":{"a":7}}', '{"properties":{"a":true}}',
    '{"required":"a"}',
    '{"required":[1]}', '{"required":[{}]}', '{"enum":[]}', '{"enum":{}}', '{"enum":[1e999]}', '{"const":{"a":1}}',
    '{"minimum":"1"}',
    '{"minimum":1e999}', '{"minLength":-1}', '{"minLength":1.5}', '{"minLength":true}', '{"maxItems":null}',
    '{"items":[]}', '{"items":7}',
    '{"additionalProperties":true}', '{"additionalProperties":{}}', '{"type":"object","type":"array"}',
    '{"properties":{"":{"type":"null"}}}',
    nested(40, '{"properties":{"a":', "}}", "{}"), nested(12, '{"items":', "}", "{}"),
    '{"enum":["' + "x" * 100_000 + '"]}',
    '{"minimum":9223372036854775808}', '{"const":9223372036854775808}', '{"properties":{"\\ud800":{}}}', "true",
    *JSON[28:],
)  # fmt: skip
LINES: tuple[Value, ...] = (*(
    json.dumps({"op": op, **keys})
    for op, keys in [
        ("messages.send", {"from": "boss", "to": "one", "type": "note", "payload": {}}),
        ("messages.send", {"from": 5, "to": "one", "type": "note", "payload": {}}),
        ("messages.send", {"from": "boss", "to": ["one"], "type": "note", "payload": {}}),
        ("messages.send", {"from": "boss", "to": "one", "type": {}, "payload": 7}),
        ("messages.send", {"from": "boss", "to": "one", "type": "note", "payload": {}, "priority": "9"}),
        ("messages.send", {"from": "boss", "to": "one", "type": "note", "payload": {}, "key": 5, "reply-to": "x"}),
        ("messages.send", {"from": "boss", "to": "one", "type": "note", "payload": {}, "traceparent": []}),
        ("messages.send", {"from": "boss", "to": "*", "type": "note", "payload": {}, "delay": None}),
        ("messages.ack", {"receipt": "1.1"}), ("messages.ack", {"receipt": 1.1}), ("messages.ack", {"receipt": None}),
        ("messages.ack", {"receipt": {"1.1": 1}}), ("messages.ack", {"receipt": "1.1", "once": "yes"}),
        ("messages.ack", {}),
        ("messages.release", {"receipt": "1.1", "reason": 7}), ("messages.redrive", {"ids": 3}), ("messages.redrive",
        {"ids": {"3": 1}}),
        ("messages.cancel", {"id": [2]}), ("messages.cancel", {"id": 2.0}), ("messages.cancel", {"id": True}),
        ("state.save", {"agent": "one", "key": "k", "value": 7}), ("state.save", {"agent": "one", "key": "k",
        "value": {"a": 1}}),
        ("state.save", {"agent": "one", "key": "k", "value": "v", "ttl": [], "if-version": "1"}), ("state.delete",
        {"agent": 1, "key": 2}),
        ("state.save", {"agent": "one", "key": "k", "value": "a\0b"}), ("state.save", {"agent": "one", "key": "k",
        "value": "\ud800"}),
        ("checkpoints.create", {"agent": "one", "snapshot": [1], "file": 5}), ("checkpoints.create", {"agent": "one",
        "files": [None]}),
        ("checkpoints.create", {"agent": "one", "file": "/nowhere"}), ("checkpoints.create", {"agent": "one",
        "file": "a\0b"}),
        ("agents.register", {"agent": "x", "type": "validation", "session": 5}), ("agents.register", {"agent": "x",
        "capability": 5}),
        ("agents.register", {"agent": "x", "type": "validation", "session": "s", "pid": "1"}),
        ("agents.register", {"agent": "x", "type": "validation", "session": "s", "pid": 1 << 40}),
        ("agents.heartbeat", {"agent": "one", "task": {"a": 1}, "status": 7}), ("agents.retire", {"agent": "one",
        "status": []}),
        ("agents.retire", {"agent": "one", "status": "asleep"}),  # refused after what it had leased was given back
        ("sessions.progress", {"session": "s", "progress": "50"}), ("sessions.progress", {"session": "s",
        "progress": 1e999}),
        ("sessions.complete", {"session": {}}), ("no.such", {}), ("", {}), (5, {}), (None, {}), ("__init__",
        {"self": 1}),
        ("messages.send", {"sender": "boss", "from": "boss", "to": "one", "type": "note", "payload": "{}"}),
        ("state.save", {"agent": "one", "key": "k", "value": "v", "no such": 1}), ("state.save", {"agent": "one",
        "key": "k", "": "v"}),
    ]
), '{"op":"state.save","op":"x"}', "[]", "5", '"x"', "null", *JSON[28:])  # fmt: skip
STATES: tuple[Value, ...] = (*(
    json.dumps(found)
    for found in [
        {}, {"active_agents": []}, {"active_agents": {"\u202e\x1b[31m": {}}}, {"active_agents": {"x": {}}},
        {"active_agents": {"5": 7}},
        {"active_agents": {"5": None}},
        {"completed_agents": {}}, {"completed_agents": [5]}, {"completed_agents": [{}]}, {"completed_agents": None},
        *({"completed_agents": [{"pid": 5, "agent_type": "t", "task_id": "x", "command": "c",
        "started_at": "2026-01-01T00:00:00Z", **more}]}
          for more in ({}, {"pid": "5"}, {"pid": -1}, {"pid": 1 << 70}, {"agent_type": None}, {"task_id": ["x"]},
          {"task_id": "a\0b"},
                       {"started_at": 5}, {"started_at": ""}, {"started_at": "9999-99-99"},
                       {"started_at": "2026-01-01T00:00:00+99:99"},
                       {"completed_at": "1"}, {"status": "asleep"}, {"status": 7}, {"command": {"a": 1}},
                       {"priority_number": []},
                       {"priority_number": "x" * 500}, {"other": {"deep": [1] * 50}}, {"worktree_path": 5},
                       {"task_type": False})),
    ]
), *JSON[28:])  # fmt: skip
OBJECTS: tuple[Value, ...] = (
    None,
    True,
    5,
    -1,
    2**70,
    1.5,
    float("nan"),
    float("inf"),
    b"x",
    b"\xff",
    (),
    [],
    [1],
    {},
    {"a": 1},
    {1, 2},
    object(),
)

CORPUS: dict[str, tuple[Value, ...]] = {
    "word": WORDS, "id": IDS, "number": NUMBERS, "duration": DURATIONS, "receipt": RECEIPTS, "json": JSON,
    "schema": SCHEMAS,
    "line": LINES, "state file": STATES,
}  # fmt: skip


# --- beyond the corpus

_strange = st.sampled_from(
    "\0\n\r\t '\"\\|;*@/.-:[]{}<>,0123456789eE+aé\u202e\ufeff\ud800\udc00\U0001f600\x1b\x7f\x85u"
)
_texts = st.text(_strange | st.characters(), max_size=40)
_scalars = st.sampled_from(
    ("null", "true", "1", "-0", "1.5", "9223372036854775807", "9223372036854775808", "1e308", "1e309", '""',
    '"\\u0000"', '"\\ud800"', "NaN")
) | _texts.map(json.dumps)  # fmt: skip
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]") | st.lists(
        st.tuples(st.sampled_from(("a", "b", "\\u0061", "é",
        "")) | st.text(max_size=3).map(lambda key: json.dumps(key)[1:-1]), inner),
        max_size=4,
    ).map(lambda pairs: "{" + ", ".join(f'"{key}" :{value}' for key, value in pairs) + "}"),
    max_leaves=12,
)  # fmt: skip
_edits = st.lists(
    st.tuples(st.sampled_from(("cut", "insert", "replace", "repeat")), st.integers(0, 10_000), _texts),
    min_size=1,
    max_size=3,
)


def _edited(value: str, edits: list[tuple[str, int, str]]) -> str:
    for kind, number, text in edits:
        at = number % (len(value) + 1)
        if kind == "repeat":
            value = value[:at] + value[at : at + 20] * 2 + value[at + 20 :]
        else:
            value = value[:at] + ("" if kind == "cut" else text) + value[at + (0 if kind == "insert" else 3) :]
    return value


def inputs(like: str) -> st.SearchStrategy[Value]:
    """Inputs of a kind: what is known to be bad, changed a little; and anything else."""
    known = [value for value in CORPUS[like] if isinstance(value, str) and len(value) < 3000]
    made = st.builds(_edited, st.sampled_from(known), _edits) | _texts | st.binary(max_size=20)
    return (
        _json.map(lambda text: f'{{"x":{text}}}') | _json | made
        if like in ("json", "line", "schema", "state file")
        else made
    )
