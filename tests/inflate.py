# SPDX-License-Identifier: MIT
"""DEFLATE (RFC 1951) decoded step by step, for what zlib does not say: how far back a stream refers, and of which blocks
it is made. Slow; for the streams of one connection, with the history that its messages share.

    stream = Inflater()
    stream.feed(payload + b"\\x00\\x00\\xff\\xff") == message
    assert stream.farthest <= 1 << window_bits
"""

_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_LENGTHS = [(3 + i, 0) for i in range(8)]
_DISTANCES = [(1 + i, 0) for i in range(4)]
for _bits in range(1, 6):
    _LENGTHS += [((4 + i << _bits) + 3, _bits) for i in range(4)]
_LENGTHS[28:] = [(258, 0)]
for _bits in range(1, 14):
    _DISTANCES += [((2 + i << _bits) + 1, _bits) for i in range(2)]

STORED, FIXED, DYNAMIC = 0, 1, 2


class NotDeflate(ValueError):
    pass


def _codes(lengths):
    """{(length, code): symbol} of a canonical Huffman code (section 3.2.2)."""
    table, code = {}, 0
    for size in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == size:
                table[size, code] = symbol
                code += 1
        code <<= 1
    return table


_FIXED_CODES = (_codes([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), _codes([5] * 30))


class Inflater:
    """farthest: of all references back since the last reset_farthest. blocks: their kinds, in order."""

    def __init__(self):
        self.history = bytearray()
        self.farthest = 0
        self.blocks = []

    def forget(self):
        """No context take-over: the next message refers to nothing before it."""
        self.history.clear()

    def _bits(self, count):
        value = 0
        for i in range(count):
            if self.at >= 8 * len(self.data):
                raise NotDeflate("it ends within a block")
            value |= (self.data[self.at >> 3] >> (self.at & 7) & 1) << i
            self.at += 1
        return value

    def _symbol(self, table):
        code = 0
        for size in range(1, 16):
            code = code << 1 | self._bits(1)
            if (size, code) in table:
                return table[size, code]
        raise NotDeflate("no such code")

    def _stored(self):
        self.at = self.at + 7 & ~7
        size = self._bits(16)
        if self._bits(16) != size ^ 0xFFFF:
            raise NotDeflate("the length of a stored block and its complement differ")
        begin = self.at >> 3
        if begin + size > len(self.data):
            raise NotDeflate("it ends within a stored block")
        self.history += self.data[begin : begin + size]
        self.at += 8 * size

    def _dynamic_codes(self):
        n_literals, n_distances, n_lengths = self._bits(5) + 257, self._bits(5) + 1, self._bits(4) + 4
        lengths = [0] * 19
        for i in range(n_lengths):
            lengths[_ORDER[i]] = self._bits(3)
        table, lengths = _codes(lengths), []
        while len(lengths) < n_literals + n_distances:
            symbol = self._symbol(table)
            if symbol < 16:
                lengths.append(symbol)
            elif symbol == 16:
                lengths += lengths[-1:] * (3 + self._bits(2))
            else:
                lengths += [0] * (3 + self._bits(3) if symbol == 17 else 11 + self._bits(7))
        return _codes(lengths[:n_literals]), _codes(lengths[n_literals:])

    def _compressed(self, literals, distances):
        while True:
            symbol = self._symbol(literals)
            if symbol == 256:
                return
            if symbol < 256:
                self.history.append(symbol)
                continue
            base, extra = _LENGTHS[symbol - 257]
            length = base + self._bits(extra)
            base, extra = _DISTANCES[self._symbol(distances)]
            distance = base + self._bits(extra)
            if distance > len(self.history):
                raise NotDeflate("a reference to before the beginning")
            self.farthest = max(self.farthest, distance)
            for _ in range(length):
                self.history.append(self.history[-distance])

    def feed(self, data):
        """What whole blocks say; the data ends where a block ends."""
        self.data, self.at = data, 0
        before = len(self.history)
        while self.at < 8 * len(data):
            self._bits(1)
            kind = self._bits(2)
            self.blocks.append(kind)
            if kind == STORED:
                self._stored()
            elif kind == FIXED:
                self._compressed(*_FIXED_CODES)
            elif kind == DYNAMIC:
                self._compressed(*self._dynamic_codes())
            else:
                raise NotDeflate("no such kind of block")
        return bytes(self.history[before:])
