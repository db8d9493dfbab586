// SPDX-License-Identifier: MIT
#include "proto/ws/mask.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t key[4] = {0x81, 0x42, 0x24, 0xF8};

static void mask_slowly(uint8_t *data, size_t len, unsigned phase)
{
    for (size_t i = 0; i < len; i++)
        data[i] ^= key[(i + phase) % 4];
}

static void fill(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
}

/* Every length around the sizes of the vectors, each phase, each alignment of a vector's words. */
static void equals_byte_by_byte(void **state)
{
    for (size_t len = 0; len < 1100; len++)
        for (unsigned phase = 0; phase < 4; phase++) {
            size_t shift = len % 17;
            uint8_t *got = malloc(len + shift + 1), *want = malloc(len + shift + 1);
            fill(got, len + shift + 1);
            fill(want, len + shift + 1);
            ws_mask(got + shift, len, key, phase);
            mask_slowly(want + shift, len, phase);
            assert_memory_equal(got, want, len + shift + 1);
            free(got);
            free(want);
        }
}

static void pieces_continue_by_phase(void **state)
{
    uint8_t got[301], want[301];
    for (size_t split = 0; split <= sizeof got; split++) {
        fill(got, sizeof got);
        fill(want, sizeof want);
        ws_mask(got, split, key, 0);
        ws_mask(got + split, sizeof got - split, key, (unsigned)split);
        mask_slowly(want, sizeof want, 0);
        assert_memory_equal(got, want, sizeof got);
    }
}

static void masking_twice_is_nothing(void **state)
{
    uint8_t data[777], was[777];
    fill(data, sizeof data);
    fill(was, sizeof was);
    ws_mask(data, sizeof data, key, 3);
    ws_mask(data, sizeof data, key, 3);
    assert_memory_equal(data, was, sizeof data);
}

/* A byte above 0x7F in the result shows, wherever it is, and nothing else does. */
static void what_is_not_ascii_is_seen(void **state)
{
    uint32_t k;
    memcpy(&k, key, sizeof k);
    static const size_t lengths[] = {1, 2, 3, 4, 7, 8, 15, 16, 31, 64, 127, 255, 256, 300, 511, 512, 700};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (size_t at = 0; at <= lengths[l]; at++) {
            uint8_t data[700];
            memset(data, 'a', sizeof data);
            if (at < lengths[l])
                data[at] = 0x80;
            mask_slowly(data, lengths[l], 0);
            uint64_t seen = ws_mask_seen(data, lengths[l], k);
            assert_int_equal((seen & WS_NOT_ASCII) != 0, at < lengths[l]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_byte_by_byte),
        cmocka_unit_test(pieces_continue_by_phase),
        cmocka_unit_test(masking_twice_is_nothing),
        cmocka_unit_test(what_is_not_ascii_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
