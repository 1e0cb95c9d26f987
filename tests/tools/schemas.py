#!/usr/bin/env python3
"""Random JSON schemas, and a checker of texts against them that shares nothing with the project's compiler.

schemas.py make N SEED            N schemas, one a line
schemas.py check SCHEMAS TEXTS    line i of TEXTS (a JSON string holding the text) must satisfy line i of SCHEMAS
"""
import datetime
import ipaddress
import json
import math
import random
import re
import sys
import uuid

WORDS = ["a", "b", "ab", "abc", "name", "nam", "x y", "é", "日本", 'q"q', "back\\slash", "", "0", "null", "tab\t"]
PATTERNS = ["^[a-z]{2,5}$", "^(foo|ba[rz])+$", "^\\d{3}-\\d{4}$", "x", "^[^aeiou\"]{1,4}$", "^\\w+\\s\\w+$", "^a.c",
            "[0-9]$", "^(?:\\+|-)?[1-9][0-9]*$", "^[\\u00e0-\\u00ff]+$", "^\\\\\"$", "^a|b$", "^(a(b(c)?)?)?$"]


class Maker:
    def __init__(self, rnd):
        self.r = rnd
        self.defs = {}

    def value(self, depth=0):
        kind = self.r.randrange(8 if depth < 2 else 6)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.r.randrange(3))]
        if kind == 7:
            return {w: self.value(depth + 1) for w in self.r.sample(WORDS, 2)}
        return [None, self.r.random() < 0.5, self.r.randrange(-1000, 1000), self.r.choice([0.5, -2.25, 1e10, 3.0]),
                self.r.choice(WORDS), self.r.choice(WORDS)][kind]

    def string(self, _depth):
        s = {"type": "string"}
        pick = self.r.randrange(5)
        if pick == 0:
            lo = self.r.randrange(4)
            if self.r.random() < 0.7:
                s["minLength"] = lo
            s["maxLength"] = lo + self.r.randrange(8)
        elif pick == 1:
            s["pattern"] = self.r.choice(PATTERNS)
        elif pick == 2:
            s["format"] = self.r.choice(["date", "time", "date-time", "uuid", "ipv4"])
        return s

    def number(self, _depth):
        s = {"type": self.r.choice(["integer", "integer", "number"])}
        a, b = sorted(self.r.choice([-10 ** 6, -120, -7, -1, 0, 1, 5, 18, 99, 100, 1000, 123456, 10 ** 9]) for _ in "ab")
        if s["type"] == "number" and self.r.random() < 0.5:
            a, b = a + 0.25, b + 0.75
        pick = self.r.randrange(5)
        if pick in (1, 3):
            s["minimum"] = a
        if pick in (2, 3):
            s["maximum"] = b
        if pick == 4:
            s["exclusiveMinimum"], s["exclusiveMaximum"] = a, b + 2
        return s

    def array(self, depth):
        s = {"type": "array"}
        pick = self.r.randrange(4)
        if pick:
            s["items"] = self.schema(depth + 1)
        if pick == 2:
            s["prefixItems"] = [self.schema(depth + 1) for _ in range(self.r.randrange(1, 4))]
            if self.r.random() < 0.4:
                s["items"] = False
        n = len(s.get("prefixItems", [])) if s.get("items") is False else 5
        if self.r.random() < 0.5:
            s["minItems"] = self.r.randrange(min(n, 3) + 1)
        if self.r.random() < 0.5:
            s["maxItems"] = s.get("minItems", 0) + self.r.randrange(4)
        return s

    def object(self, depth):
        s = {"type": "object"}
        names = self.r.sample(WORDS, self.r.randrange(6))
        if names:
            s["properties"] = {w: self.schema(depth + 1) for w in names}
            s["required"] = [w for w in names if self.r.random() < 0.5]
            if self.r.random() < 0.2:
                s["required"].append("further")
        pick = self.r.randrange(4)
        if pick == 0 and "further" not in s.get("required", []):
            s["additionalProperties"] = False
        elif pick == 1:
            s["additionalProperties"] = self.schema(depth + 1)
        elif pick == 2:
            s["additionalProperties"] = True
        if names and self.r.random() < 0.15:
            s["maxProperties"] = len(s["required"]) + self.r.randrange(3)
        if names and self.r.random() < 0.15:
            s["minProperties"] = self.r.randrange(min(len(names), s.get("maxProperties", len(names))) + 1)
        return s

    def combined(self, depth):
        pick = self.r.randrange(5)
        if pick == 0:
            return {"anyOf": [self.schema(depth + 1) for _ in range(self.r.randrange(1, 4))]}
        if pick == 1:
            return {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": self.schema(depth + 1)},
                               "required": ["kind"], "additionalProperties": False} for k in ("p", "q", 3)]}
        if pick == 2:
            return {"allOf": [{"type": "object", "properties": {"m": self.schema(depth + 1)}, "required": ["m"]},
                              {"properties": {"n": self.schema(depth + 1)}, "required": ["n"]}]}
        if pick == 3:
            return {"type": self.r.sample(["string", "null", "boolean", "integer", "array"], 2)}
        name = self.r.choice(["tree", "list"])
        self.defs["tree"] = {"type": "object", "properties": {"l": {"$ref": "#/$defs/tree"}, "v": {"type": "integer"},
                             "r": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}}, "required": ["v"]}
        self.defs["list"] = {"type": "array", "items": {"$ref": "#/$defs/list"}}
        return {"$ref": "#/$defs/" + name}

    def schema(self, depth=0):
        kinds = [self.string, self.number, self.string, self.number]
        kinds += [self.array, self.object, self.object, self.combined] * (3 if depth == 0 else 1) if depth < 3 else []
        pick = self.r.randrange(12)
        if pick == 0 and depth:
            return {"enum": [self.value() for _ in range(self.r.randrange(1, 5))]}
        if pick == 1 and depth:
            return {"const": self.value()}
        if pick == 2 and depth:
            return self.r.choice([True, {}, {"type": "boolean"}, {"type": "null"}])
        return self.r.choice(kinds)(depth)


def make(n, seed):
    rnd = random.Random(seed)
    for _ in range(n):
        m = Maker(rnd)
        s = m.schema()
        if m.defs:
            s["$defs"] = m.defs
        print(json.dumps(s))


TYPES = {"null": lambda v: v is None, "boolean": lambda v: isinstance(v, bool),
         "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == int(v),
         "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
         "string": lambda v: isinstance(v, str), "array": lambda v: isinstance(v, list),
         "object": lambda v: isinstance(v, dict)}


def same(a, b):
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def format_ok(name, v):
    try:
        if name == "date":
            datetime.date.fromisoformat(v)
            return re.fullmatch(r"\d{4}-\d\d-\d\d", v) is not None
        if name == "time":
            datetime.time.fromisoformat(v)
            return re.search(r"(Z|[+-]\d\d:\d\d)$", v) is not None
        if name == "date-time":
            datetime.datetime.fromisoformat(v)
            return "T" in v and re.search(r"(Z|[+-]\d\d:\d\d)$", v) is not None
        if name == "uuid":
            return str(uuid.UUID(v)) == v.lower()
        if name == "ipv4":
            return str(ipaddress.IPv4Address(v)) == v
    except ValueError:
        return False
    return False


def strings_ok(s, v):
    return (s.get("minLength", 0) <= len(v) <= s.get("maxLength", 10 ** 9)
            and ("pattern" not in s or re.search(s["pattern"], v, re.ASCII if "\\w" in s["pattern"] else 0) is not None)
            and ("format" not in s or format_ok(s["format"], v)))


def valid(s, v, root):
    if isinstance(s, bool):
        return s
    if "$ref" in s and not valid(root["$defs"][s["$ref"].split("/")[-1]], v, root):
        return False
    types = s.get("type", list(TYPES))
    if not any(TYPES[t](v) for t in ([types] if isinstance(types, str) else types)):
        return False
    if "enum" in s and not any(same(v, x) for x in s["enum"]):
        return False
    if "const" in s and not same(v, s["const"]):
        return False
    if "anyOf" in s and not any(valid(x, v, root) for x in s["anyOf"]):
        return False
    if "oneOf" in s and sum(valid(x, v, root) for x in s["oneOf"]) != 1:
        return False
    if "allOf" in s and not all(valid(x, v, root) for x in s["allOf"]):
        return False
    if isinstance(v, str):
        return strings_ok(s, v)
    if isinstance(v, (int, float)) and not isinstance(v, bool):
        return (s.get("minimum", v) <= v <= s.get("maximum", v) and not v <= s.get("exclusiveMinimum", -math.inf)
                and not v >= s.get("exclusiveMaximum", math.inf))
    if isinstance(v, list):
        pre = s.get("prefixItems", [])
        return (s.get("minItems", 0) <= len(v) <= s.get("maxItems", 10 ** 9)
                and all(valid(x, y, root) for x, y in zip(pre, v))
                and all(valid(s.get("items", True), y, root) for y in v[len(pre):]))
    if isinstance(v, dict):
        props = s.get("properties", {})
        return (all(k in v for k in s.get("required", []))
                and s.get("minProperties", 0) <= len(v) <= s.get("maxProperties", 10 ** 9)
                and all(valid(props[k] if k in props else s.get("additionalProperties", True), y, root)
                        for k, y in v.items()))
    return True


def strict(pairs):
    if len({k for k, _ in pairs}) != len(pairs):
        strict.n_twice += 1
    return dict(pairs)


def refuse_constant(name):
    raise ValueError(name)


def check(schemas, texts):
    strict.n_twice = n_bad = n = 0
    with open(schemas, encoding="utf-8") as a, open(texts, "rb") as b:
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            schema, text = json.loads(x), json.loads(y.decode("utf-8", "strict"))
            n += 1
            try:
                v = json.loads(text, object_pairs_hook=strict, parse_constant=refuse_constant)
                text.encode("utf-8")
            except ValueError as error:
                print(f"{i}: no JSON: {error}: {text!r}: {x}", end="")
                n_bad += 1
                continue
            if not valid(schema, v, schema):
                print(f"{i}: not valid: {text!r}: {x}", end="")
                n_bad += 1
    print(f"{n} texts, {n_bad} bad, {strict.n_twice} objects with a key twice")
    return n_bad != 0 or n == 0


def main():
    sys.setrecursionlimit(10000)
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), int(sys.argv[3]))
        return 0
    return check(sys.argv[2], sys.argv[3])


sys.exit(main())
