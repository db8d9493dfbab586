# SPDX-License-Identifier: MIT
"""PHP as the oracle: generated cases, with fixed seeds, through one php process and through php_oracle of the build;
the answers have to be the same byte for byte."""
import os
import pathlib
import random
import shutil
import struct
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("TGG_BUILD", ROOT / "build"))


def helper_path():
    found = sorted(BUILD.glob("src/**/php_oracle"))
    return found[0] if found else BUILD / "php_oracle"


def run(command, text):
    done = subprocess.run(command, input=text, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done.stdout.decode().split("\n")[:-1]


def compare(cases):
    """Each case: an operation and its arguments (bytes)."""
    assert shutil.which("php"), "php-cli is needed"
    text = "".join(" ".join([op, *[a.hex() for a in args]]) + "\n" for op, *args in cases).encode()
    expected = run(["php", "-n", str(ROOT / "tests" / "oracle.php")], text)
    got = run([str(helper_path())], text)
    assert len(expected) == len(got) == len(cases)
    wrong = [i for i in range(len(cases)) if expected[i] != got[i]]
    if wrong:
        show = sorted(wrong, key=lambda i: sum(map(len, cases[i])))[:5]
        pytest.fail(f"{len(wrong)} of {len(cases)} differ:\n" + "\n".join(
            f"case {str(cases[i])[:400]}\n  php {readable(expected[i])}\n  tgg {readable(got[i])}" for i in show),
            pytrace=False)
    return expected


def readable(answer):
    return answer if answer == "!" else str(bytes.fromhex(answer))[:400]


def s(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return b's:%d:"%s";' % (len(raw), raw)


class Values:
    """Random values in serialize()'s own form, with references to what came before."""

    def __init__(self, rng, classes=True, refs=True, cycles=None):
        self.rng = rng
        self.classes = classes
        self.refs = refs
        # May values contain themselves. (No references along with keys that come twice: what a repeated key throws away
        # may then contain itself, and stays alive in PHP, where it counts as a holder of what it refers to.)
        self.cycles = rng.random() < 0.2 if cycles is None else cycles
        self.n = 0         # values numbered so far
        self.objects = []  # numbers of objects
        self.open = []     # numbers of the containers that are being written

    def float(self):
        r = self.rng
        return r.choice([
            lambda: repr(r.uniform(-1000, 1000)), lambda: "%.*g" % (r.randint(1, 17), r.uniform(-1, 1)),
            lambda: repr(struct.unpack("<d", r.randbytes(8))[0]).upper(), lambda: str(r.randint(0, 10**18)),
            lambda: r.choice(["INF", "-INF", "NAN", "0", "-0", "1E25", "1.5e-7", ".5", "5.", "+1", "1e999"]),
        ])().encode()

    def string(self):
        r = self.rng
        return r.choice([
            lambda: r.choice(["", "a", "name", "x/y", "\"quoted\"", "l\u00e4nge", "\u4e2d\u6587", "\U0001f600",
                              "\u2028", "tab\t", "nul\0", "12", "-7", "0x1A", "}", ";", "\x7f", "\\"]).encode(),
            lambda: r.randbytes(r.randint(0, 12)), lambda: ("u%d" % r.randint(0, 99)).encode(),
        ])()

    def key(self):
        r = self.rng
        kind = r.random()
        if kind < 0.4:
            return b"i:%d;" % r.choice([r.randint(0, 4), r.randint(-3, 20), r.randint(-2**63, 2**63 - 1)])
        if kind < 0.5:
            return s(r.choice(["1", "02", "-1", "-0", "9223372036854775807", "9223372036854775808",
                               "-9223372036854775808", "-9223372036854775809", "3 ", "1.5", ""]))
        return s(r.choice(["a", "b", "c", "d", "name", "user", "room"]))

    def reference(self):
        r = self.rng
        open_now = [] if self.cycles else self.open
        usable = [i for i in range(1, self.n + 1) if i not in open_now]
        objects = [i for i in self.objects if i not in open_now]
        if objects and r.random() < 0.5:
            self.n += 1
            return b"r:%d;" % r.choice(objects)
        if usable:
            return b"R:%d;" % r.choice(usable)
        self.n += 1
        return b"N;"

    def keys(self, n, make):
        if not self.refs:
            return [make() for _ in range(n)]
        found = {}
        for _ in range(n):
            key = make()
            found.setdefault(key.split(b":")[-1].strip(b'";'), key)
        return list(found.values())

    def value(self, depth, top=False):
        r = self.rng
        kind = r.random()
        if self.refs and not top and self.n > 1 and kind < 0.15:
            return self.reference()
        self.n += 1
        if top or (depth > 0 and kind < 0.5):
            return self.array(depth)
        if self.classes and depth > 0 and kind < 0.6:
            return self.object(depth)
        return r.choice([lambda: b"N;", lambda: b"b:%d;" % r.randint(0, 1),
                         lambda: b"i:%d;" % r.choice([r.randint(-9, 9), r.randint(-2**63, 2**63 - 1)]),
                         lambda: b"d:" + self.float() + b";", lambda: s(self.string()),
                         lambda: s(self.string())])()

    def array(self, depth):
        n = self.rng.choice([0, 1, 2, 3, 4, 12]) if depth < 4 else self.rng.randint(1, 5)
        keys = self.keys(n, self.key)
        self.open.append(self.n)
        inner = b"".join(key + self.value(depth - 1) for key in keys)
        self.open.pop()
        return b"a:%d:{%s}" % (len(keys), inner)

    def object(self, depth):
        r = self.rng
        name = r.choice([b"stdClass", b"STDCLASS", b"Foo", b"App\\User", b"__PHP_Incomplete_Class", b"N\xc3\xa4"])
        number = self.n
        self.objects.append(number)
        keys = self.keys(r.randint(0, 4), lambda: r.choice([
            s("x"), s("y"), s("\0*\0p"), s(b"\0" + name + b"\0q"), s(""), b"i:5;",
            s("__PHP_Incomplete_Class_Name") if r.random() < 0.1 else s("z")]))
        self.open.append(number)
        inner = b"".join(key + self.value(depth - 1) for key in keys)
        self.open.pop()
        return b'O:%d:"%s":%d:{%s}' % (len(name), name, len(keys), inner)


def mutate(rng, text):
    text = bytearray(text)
    for _ in range(rng.randint(1, 3)):
        text += b"" if text else b"x"
        at = rng.randrange(len(text))
        kind = rng.random()
        if kind < 0.3:
            text[at] = rng.choice(b'0123456789:;{}"aOsidRrNb')
        elif kind < 0.5:
            del text[at]
        elif kind < 0.7:
            text.insert(at, rng.choice(b'0123456789:;{}"+-'))
        elif kind < 0.85:
            del text[at:]
        else:
            text[at] ^= 1 << rng.randrange(8)
    return bytes(text)


FIXED = [
    b"", b"N;", b"b:0;", b"b:1;x", b"b:2;", b"i:+5;", b"i:-0;", b"i:007;", b"i:9223372036854775808;", b"i:;",
    b"i:-9223372036854775809;", b"i:99999999999999999999;", b"d:1e;", b"d:.;", b"d:-.5e+3;", b'S:3:"a\\41b";',
    b'S:1:"\\4";', b's:03:"abc";', b's:+3:"abc";', b's:3:"ab', b"a:00:{}", b"a:+1:{i:0;i:0;}", b"a:-1:{}",
    b"a:1:{d:1.5;i:1;}", b"a:1:{b:1;i:1;}", b"a:1:{N;i:1;}", b"a:2:{i:0;i:1;i:1;R:2;}", b"a:2:{i:0;i:1;i:1;r:2;}",
    b"a:1:{i:0;R:1;}", b"a:1:{i:0;r:1;}", b"R:1;", b"r:1;", b"i:5;i:6;", b"a:1:{i:0;a:1:{i:0;R:1;}}",
    b"a:1:{i:0;a:2:{i:0;R:1;i:1;R:2;}}", b"a:3:{i:0;a:1:{i:0;R:1;}i:1;R:2;i:2;R:1;}",
    b"a:3:{i:0;i:1;i:0;i:2;i:1;R:2;}", b"a:4:{i:0;i:1;i:1;R:2;i:0;i:3;i:2;R:2;}",
    b'a:3:{i:0;O:3:"Foo":0:{}i:1;r:2;i:2;R:3;}', b'O:3:"Foo":1:{s:1:"a";R:1;}', b'O:3:"Foo":1:{s:1:"a";r:1;}',
    b'O:3:"F-o":0:{}', b'O:4:"\\Foo":0:{}', b'O:0:"":0:{}', b'O:22:"__PHP_Incomplete_Class":1:{s:1:"x";i:1;}',
    b'O:3:"Foo":1:{s:27:"__PHP_Incomplete_Class_Name";s:3:"Abc";}', b'o:1:{s:1:"a";i:1;}',
    b'a:2:{i:0;O:3:"Foo":2:{s:27:"__PHP_Incomplete_Class_Name";s:1:"x";s:1:"q";R:3;}i:1;i:1;}',
    b"a:1:{i:0;" * 4095 + b"a:0:{}" + b"}" * 4095, b"a:1:{i:0;" * 4096 + b"a:0:{}" + b"}" * 4096,
    b"a:1:{i:0;" * 4096 + b"N;" + b"}" * 4096, b"a:1:{i:0;" * 4097 + b"N;" + b"}" * 4097,
]


def test_reserialize():
    rng = random.Random(1)
    cases = [("reserialize", text) for text in FIXED]
    for _ in range(3000):
        cases.append(("reserialize", Values(rng).value(rng.randint(1, 5))))
    answers = compare(cases)
    assert sum(a != "!" for a in answers) > len(cases) * 0.8


def test_reserialize_of_broken_text():
    rng = random.Random(2)
    compare([("reserialize", mutate(rng, Values(rng).value(rng.randint(1, 3), top=True))) for _ in range(4000)])


def test_merge():
    rng = random.Random(3)
    cases = []
    for _ in range(4000):
        depth, refs = rng.randint(1, 5), rng.random() < 0.6
        cases.append(("merge", Values(rng, refs=refs).value(depth, top=True),
                      Values(rng, refs=refs).value(depth, top=True)))
    cases += [("merge", b"a:0:{}", b"i:1;"), ("merge", b"N;", b"a:0:{}"), ("merge", b"", b"a:0:{}")]
    answers = compare(cases)
    assert sum(a != "!" for a in answers) > len(cases) * 0.8


def test_merge_of_small_arrays_full_of_references():
    """Few keys and many references, so that the merge meets shared arrays on both sides."""
    rng = random.Random(4)

    class Dense(Values):
        def key(self):
            return s(self.rng.choice("abc"))

        def value(self, depth, top=False):
            if not top and self.n > 1 and self.rng.random() < 0.3:
                return self.reference()
            self.n += 1
            if top or depth > 0:
                return self.array(depth) if self.rng.random() < 0.8 or top else self.object(depth)
            return b"i:%d;" % self.rng.randint(0, 9)

    cases = [("merge", Dense(rng).value(3, top=True), Dense(rng).value(3, top=True)) for _ in range(4000)]
    answers = compare(cases)
    assert sum(a != "!" for a in answers) > len(cases) * 0.5


def test_floats():
    rng = random.Random(5)
    values = [2.0**e for e in range(-1074, 1024)] + [10.0**e for e in range(-323, 309)]
    values += [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(5000)]
    values += [rng.randint(-10**18, 10**18) / 10**rng.randint(0, 20) for _ in range(5000)]
    values += [-0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308]
    compare([("float", struct.pack("<d", v)) for v in values])


def test_array_keys():
    rng = random.Random(6)
    keys = ["", "0", "-0", "00", "1", "-1", "01", "+1", " 1", "1 ", "1.0", "1e3", "-", "9223372036854775807",
            "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "99999999999999999999"]
    keys += [str(rng.randint(-2**70, 2**70) >> rng.randint(0, 69)) for _ in range(1000)]
    compare([("key", k.encode()) for k in keys])


def test_parse_str():
    rng = random.Random(7)
    words = ["a", "b", "c.d", "e f", "+", "%20", "0", "1", "-1", "007", "[", "]", "[]", "[0]", "[a]", "[b][]", "[ x]",
             "[%09]", "[a.b]", "[c", "=", "=1", "=x+y", "=%41%zz%", "&", "&&", ".", "%00", "%5B", "%5D", "__Host-",
             "..Host-", "__Secure-", "_.Secure-", "=\xe4", ";", "[9223372036854775807]", "[-5]", "this", " ", "#", "?"]
    queries = ["", "&", "=", "a", "a=", "a=1&a=2", "a[]=1&a[k]=2", "a[b][c]=3", "a.b=1", "a[b=1", "a[b.c=1&a[b c[d=2",
               "[a]=1&]a=2", "a[-5]=1&a[]=2", "a[9223372036854775807]=1&a[]=2&b=1", "a" + "[b]" * 64 + "=1&c=1",
               "a" + "[b]" * 63 + "=1&c=1", "a=5&a" + "[b]" * 65 + "=1&c=1", "a" + "[]" * 64 + "[=1",
               "a" + "[]" * 65 + "=1&a[]=7", "&".join("v%d=%d" % (i, i) for i in range(1005)),
               "&".join("v[]=%d" % i for i in range(1005)), " __Host-a=1&+__Host-b=1&__Host.c=1&__Host[a=1"]
    for _ in range(6000):
        queries.append("".join(rng.choice(words) for _ in range(rng.randint(1, 14))))
    for _ in range(1000):
        queries.append("".join(rng.choice("ab[]=&.+% 01") for _ in range(rng.randint(1, 30))))
    compare([("parse_str", q.encode("latin-1")) for q in queries])


def test_cookies():
    rng = random.Random(8)
    words = ["a", "b", "PHPSESSID", "=", "; ", ";", " ", "%20", "x=y", "1", "\t", "=v", "\"q\"", "-5", "+", "\v", "\0"]
    cases = [("cookie", "".join(rng.choice(words) for _ in range(rng.randint(0, 12))).encode()) for _ in range(2000)]
    compare(cases)


def test_url_query():
    rng = random.Random(9)
    words = ["/", "//", ":", "?", "#", "@", "a", "b=1", "80", "99999", "0", "[", "]", "::1", "file", "http", ".", "-",
             "&", "\x01", "\x7f", "%3F", "://", " ", "65536", "65535", "+5", "-5", "x.y"]
    targets = ["", "/", "/chat?token=1", "*", "http://h/p?q#f", "/x:99999/?y", "file:///c:/x?y", "a:80", "a:80/?b"]
    targets += ["".join(rng.choice(words) for _ in range(rng.randint(1, 9))) for _ in range(6000)]
    compare([("url_query", t.encode()) for t in targets])


def test_ws_connect():
    rng = random.Random(10)
    names = ["Host", "host", "Cookie", "cookie", "Content-Type", "X-Real-IP", "x_real_ip", "Sec-WebSocket-Key", "123",
             "User-Agent", "X-A-B", "X_A-B", "x-a_b"]
    values = ["", "localhost:8282", "a=1; b=2", "c=%20;d", "text/plain", "10.0.0.1", "x" * 200, "l\u00e4nge"]
    targets = ["/", "/chat?a[]=1&b.c=2", "/?", "/?x=%41&y[z]=1#f", "//?x", "/a:80?b=1", "/\u4e2d?\u4e2d=1"]
    cases = []
    for _ in range(1500):
        pairs = []
        for _ in range(rng.choice([0, 1, 5, 12, 60])):
            pairs += [rng.choice(names), rng.choice(values)]
        cases.append(("ws_connect", *(x.encode() for x in ("GET", rng.choice(targets), "1.1", *pairs))))
    compare(cases)


def test_json():
    rng = random.Random(11)
    cases = [("json", v) for v in (
        b"N;", b"i:5;", b"b:1;", b"b:0;", b"d:1.5;", s("raw \xff"), b"a:0:{}", b'O:8:"stdClass":0:{}',
        b"a:1:{i:0;a:1:{i:0;R:1;}}", b"a:1:{i:0;d:INF;}", b"a:1:{i:1;d:0.1;}", b"x",
        b"a:1:{i:0;" * 511 + b"a:0:{}" + b"}" * 511, b"a:1:{i:0;" * 512 + b"a:0:{}" + b"}" * 512)]
    cases += [("json", Values(rng).value(rng.randint(1, 4), top=True)) for _ in range(3000)]

    class Text(Values):
        def string(self):
            return "".join(self.rng.choice(["a", "/", "\"", "\\", "\n", "\x01", "\u00e4", "\u2028", "\u2029", "\ud7ff",
                                            "\U0010ffff", "<", "&", "'", "\x7f", "\b\f\r\t"])
                           for _ in range(self.rng.randint(0, 9))).encode()

        def float(self):
            return repr(self.rng.uniform(-1, 1) * 10**self.rng.randint(-10, 25)).encode()

    cases += [("json", Text(rng).value(rng.randint(1, 4), top=True)) for _ in range(3000)]
    answers = compare(cases)
    assert sum(a != "!" for a in answers) > len(cases) * 0.4


def json_text(rng, depth=3):
    kind = rng.random()
    if depth > 0 and kind < 0.25:
        return "[" + rng.choice(["", " "]) + ",".join(json_text(rng, depth - 1) for _ in range(rng.randint(0, 4))) + "]"
    if depth > 0 and kind < 0.45:
        return "{" + ",".join("\"%s\" : %s" % (rng.choice(["a", "b", "", "\\u0061", "\\/"]), json_text(rng, depth - 1))
                              for _ in range(rng.randint(0, 3))) + "}"
    return rng.choice(["null", "true", "false", "0", "-0", "1", "-12", "1.5", "1e3", "-2E-2", "12345678901234567890",
                       "\"\"", "\"a\\n\\u00e4\"", "\"\\ud83d\\ude00\"", "\"\u4e2d\"", "\" \\\"\\\\ \""])


def test_json_reader_takes_what_json_decode_takes():
    rng = random.Random(12)
    texts = ["", " ", "[NULL]", "[01]", "[1.]", "[.5]", "[-]", "[1e]", "[\"\\ud800\"]", "[\"\\udc00\"]", "\"\\x\"",
             "[\"\\ud800\\u0041\"]", "[1,]", "{\"a\":1,}", "{1:2}", "[\"\t\"]", "nul", "1 2", "\ufeff1", "[" * 511 + "]" * 511,
             "[" * 512 + "]" * 512, "{\"a\":" * 511 + "1" + "}" * 511, "{\"a\":" * 512 + "1" + "}" * 512]
    raw = [t.encode() for t in texts] + [b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"a\0"', b"1\0"]
    for _ in range(2000):
        raw.append(json_text(rng).encode())
    for _ in range(4000):
        text = bytearray(json_text(rng).encode())
        at = rng.randrange(len(text))
        text[at] = rng.choice(b'[]{}",:\\0e-. \xff\x01nt')
        raw.append(bytes(text))
    compare([("json_valid", t) for t in raw])


def test_names_become_array_keys_as_in_php():
    rng = random.Random(13)
    items = ["\"a\"", "\"5\"", "\"05\"", "5", "-5", "0", "-0", "1.9", "-1.9", "1e3", "1e18", "1e19", "-1e19", "1e30", "true",
             "false", "null", "\"\"", "12345678901234567890", "9223372036854775807", "-9223372036854775808", "1e400",
             "\"\\u4e2d\"", "\"\\/\"", "1.5e300", "0.1", "9223372036854775808", "999999999999999999", "[]", "{}"]
    cases = []
    for _ in range(2000):
        chosen = [rng.choice(items if rng.random() < 0.1 else items[:-2]) for _ in range(rng.randint(0, 8))]
        cases.append(("names", ("[" + ", ".join(chosen) + "]").encode()))
    compare(cases)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q"]))
