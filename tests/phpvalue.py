# SPDX-License-Identifier: MIT
"""PHP's serialize() and unserialize() for plain values, written from the format alone.

PHP        Python
null       None
bool       bool
int        int
float      float
string     bytes (str is taken as UTF-8 when serializing)
array      dict, in order, keys int or bytes (list is taken as 0..n-1 when serializing)
"""


def array_key(key):
    """What PHP makes of an array key: "123" becomes 123, "0123", "-0" and "1.5" stay strings."""
    if isinstance(key, bool):
        return int(key)
    if isinstance(key, int):
        return key
    if key is None:
        return b""
    if isinstance(key, str):
        key = key.encode()
    digits = key[1:] if key[:1] == b"-" else key
    if not digits.isdigit() or (digits[:1] == b"0" and key != b"0"):
        return key
    number = int(key)
    return number if -(2**63) <= number < 2**63 else key


def array(*args, **kwargs):
    """A PHP array from a dict, with its keys as PHP has them."""
    return {array_key(k): v for k, v in dict(*args, **kwargs).items()}


def values(array_):
    return list(array_.values())


def _float(value):
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INF" if value > 0 else "-INF"
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent:
        if "." not in mantissa:
            mantissa += ".0"
        return "%sE%+d" % (mantissa, int(exponent))
    return text[:-2] if text.endswith(".0") else text


def serialize(value):
    if value is None:
        return b"N;"
    if isinstance(value, bool):
        return b"b:%d;" % value
    if isinstance(value, int):
        return b"i:%d;" % value
    if isinstance(value, float):
        return b"d:%s;" % _float(value).encode()
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray)):
        return b's:%d:"%s";' % (len(value), bytes(value))
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        items = b"".join(serialize(array_key(k)) + serialize(v) for k, v in value.items())
        return b"a:%d:{%s}" % (len(value), items)
    raise TypeError("no PHP form for %r" % (value,))


class PhpFormatError(ValueError):
    pass


class _Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise PhpFormatError("cut off at %d: %r" % (self.at, self.data[:200]))
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def expect(self, text):
        got = self.take(len(text))
        if got != text:
            raise PhpFormatError("%r instead of %r at %d" % (got, text, self.at - len(text)))

    def until(self, text):
        end = self.data.find(text, self.at)
        if end < 0:
            raise PhpFormatError("no %r after %d" % (text, self.at))
        part = self.data[self.at : end]
        self.at = end + len(text)
        return part

    def value(self):
        kind = self.take(1)
        if kind == b"N":
            self.expect(b";")
            return None
        self.expect(b":")
        if kind == b"b":
            return {b"0": False, b"1": True}[self.until(b";")]
        if kind == b"i":
            return int(self.until(b";"))
        if kind == b"d":
            return float(self.until(b";"))
        if kind == b"s":
            text = self.take_string()
            self.expect(b";")
            return text
        if kind == b"a":
            return self.take_array()
        raise PhpFormatError("type %r at %d" % (kind, self.at - 2))

    def take_string(self):
        length = int(self.until(b":"))
        self.expect(b'"')
        text = self.take(length)
        self.expect(b'"')
        return text

    def take_array(self):
        count = int(self.until(b":"))
        self.expect(b"{")
        result = {}
        for _ in range(count):
            key = self.value()
            if not isinstance(key, (int, bytes)) or isinstance(key, bool):
                raise PhpFormatError("array key %r" % (key,))
            if key != array_key(key):
                raise PhpFormatError("array key %r would be an integer in PHP" % (key,))
            if key in result:
                raise PhpFormatError("array key %r twice" % (key,))
            result[key] = self.value()
        self.expect(b"}")
        return result


def unserialize(data):
    """The value; anything after it, or a form that PHP would not write, is an error."""
    reader = _Reader(bytes(data))
    value = reader.value()
    if reader.at != len(reader.data):
        raise PhpFormatError("bytes after the value: %r" % reader.data[reader.at : reader.at + 100])
    return value
