// SPDX-License-Identifier: MIT
/* Which build of the program this is, and where it stands in memory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Where it is loaded: an address in it less this is what addr2line wants. */
uint64_t build_base(void);
/* The note .note.gnu.build-id of the program as hexadecimal digits; "none" when it has got none. Returns buf.
 */
#define BUILD_ID_STRLEN 65
char *build_id(char buf[BUILD_ID_STRLEN]);

/* An address of this process, for people and for addr2line: "tgg+0x269c4 tls_read+0x14", "libc.so.6+0x3bf90
 * raise+0x10", "0x5581" for what is nowhere. Functions have names when they are exported. Returns buf. */
char *build_explain(uint64_t address, char *buf, size_t cap);
