// SPDX-License-Identifier: MIT
/* A tool of the build, not installed: docs/TRANSFER-FORMAT.md on stdout, from transfer_records.h. */
#include <stdio.h>
#include <string.h>

#include "transfer/transfer_priv.h"

static const char intro[] =
    "<!-- Generated from src/transfer/transfer_records.h and src/transfer/transfer_doc.c by make docs: "
    "change "
    "it there. -->\n"
    "# Transfer format\n\n"
    "What one process hands to another when it takes over connections (`tgg upgrade`, `tgg ctl evacuate`): a "
    "record for each\n"
    "connection, worker and shard, and the descriptors of the connections with them. The two processes may "
    "be "
    "of different\n"
    "versions, the older one on either side. Reader, writer and this page are made from one list, "
    "`src/transfer/transfer_records.h`.\n\n"
    "## A record\n\n"
    "All numbers of fixed size are little-endian.\n\n"
    "| bytes | what |\n|---|---|\n"
    "| 2 | type |\n"
    "| 2 | version of the record: for people, readers do not look at it |\n"
    "| 2 | flags: 0. A reader refuses any that it does not know |\n"
    "| 2 | 0 |\n"
    "| 4 | length of the fields |\n"
    "| ... | fields, one behind the other |\n\n"
    "A field is one of Protocol Buffers, so that other programs can read it (`protoc --decode_raw`):\n\n"
    "| bytes | a number | bytes |\n|---|---|---|\n"
    "| varint | tag * 8 | tag * 8 + 2 |\n"
    "| varint | the number, unsigned, 64 bits | their length |\n"
    "| ... | | the bytes |\n\n"
    "A varint has 7 bits in each byte, the lowest first; the upper bit says that another byte follows. A "
    "number that is 0 and\n"
    "bytes that are empty are not written; a field that is not there is 0 or empty. The order of fields does "
    "not matter; of one\n"
    "that is there twice the last counts. A field whose tag is not known is skipped. What is refused, and "
    "the "
    "whole transfer with\n"
    "it: a type that is not known, a known tag of the other kind, tag 0, other kinds than 0 and 2, and what "
    "is "
    "cut off.\n\n"
    "Some fields have a form of their own:\n\n"
    "- *list*: elements, a varint with its length before each.\n"
    "- *address*: a byte, 4, 6 or 0 (Unix socket); 4, 16 or no bytes; the port, 2 bytes.\n"
    "- *a record without its head*: the fields of that record.\n\n"
    "## Rules for changes\n\n"
    "- A tag is never used again for something else, nor the number of a type.\n"
    "- A new field gets the next tag. When it is missing, that must mean what was so before there was the "
    "field: an older process\n"
    "  does not write it. An older reader skips it: so whatever is written must stay true without it.\n"
    "- With a new field the version of the record grows by one.\n"
    "- What a reader must not skip is a new record type: an older one refuses it, and the connections stay "
    "where they are.\n"
    "- `tests/transfer/` keeps records of every released version, which every later version must read "
    "(`src/transfer/transfer_golden_test.c` says how they are written).\n\n"
    "## A message\n\n"
    "Records go over a `SOCK_SEQPACKET` socket to each shard that takes over. All shards that hand over "
    "write "
    "to it, so a message\n"
    "says whose it is. It has at most 65,536 bytes and 250 descriptors:\n\n"
    "| bytes | what |\n|---|---|\n"
    "| 4 | \"GTX1\" |\n"
    "| 2 | number of the shard that sends |\n"
    "| 2 | how many descriptors come with the message (`SCM_RIGHTS`) |\n"
    "| ... | pieces, one behind the other |\n\n"
    "| bytes | of a piece |\n|---|---|\n"
    "| 4 | length of its bytes |\n"
    "| 4 | flags: 1 it begins a record, 2 it ends one, 4 (with 1) the next descriptor of the message belongs "
    "to the record |\n"
    "| ... | bytes of the record, its head included |\n\n"
    "Most records are one piece. A larger one (up to 256 MiB) has pieces in several messages, among which "
    "may "
    "be messages of\n"
    "other senders, but no other record of its own. Other programs that take part (register, supervisor) "
    "send "
    "one record a message,\n"
    "without this head.\n\n"
    "## Order\n\n"
    "1. `shard`, to every shard that takes over; then all `worker` and `link`; `end` of phase 1.\n"
    "2. `client` and `homeless`; `end` of phase 2, which says how many records there were: the transfer "
    "fails "
    "if they are not as many.\n\n"
    "## What is not in it\n\n"
    "Before anything is handed over, all shards stop to read, and what is under way goes on to its end. So "
    "there is no record of a\n"
    "question of a worker that waits for answers of other shards, of a fan-out that is half done or of a "
    "message between shards: at\n"
    "rest there is none. What a worker has sent and nobody has looked at are bytes of its link. Nor is "
    "there what the new process\n"
    "finds elsewhere: configuration, lists of the guard, ticket keys.\n\n"
    "Times are ages (`..._ago_ms`) or what is left (`..._left_ms`): clocks of two processes are not "
    "compared. "
    "Where it is the time\n"
    "of day, the name or the meaning says `unix`.\n";

/* As a cell of a table. */
static void put_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|' || *text == '<')
            putchar('\\');
        putchar(*text);
    }
}

static void put_record(const struct transfer_layout *l)
{
    printf("\n### %s\n\nType %u, version %u. ", l->name, l->type, l->version);
    put_text(l->text);
    printf("\n\n| tag | field | | meaning |\n|---|---|---|---|\n");
    for (unsigned tag = 1; tag < l->n; tag++) {
        const struct transfer_field *f = &l->fields[tag];
        if (f->kind == TRANSFER_NO_FIELD)
            continue;
        printf("| %u | `%s` | %s | ", tag, f->name, f->kind == TRANSFER_NUMBER ? "number" : "bytes");
        put_text(f->text);
        printf(" |\n");
    }
}

static void put_flags(void)
{
    static const struct {
        unsigned bit;
        const char *name, *text;
    } flags[] = {
#define FLAG(name, bit, text) {bit, #name, text},
        TRANSFER_CLIENT_FLAGS(FLAG)
#undef FLAG
    };
    printf("\n`flags` of a client:\n\n| bit | flag | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        printf("| %u | %s | ", flags[i].bit, flags[i].name);
        put_text(flags[i].text);
        printf(" |\n");
    }
}

int main(int argc, char **argv)
{
    const struct transfer_layout *l;
    if (argc != 1) {
        fprintf(stderr, "usage: transfer_doc\n");
        return 2;
    }
    fputs(intro, stdout);
    printf("\n## Records\n");
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL; i++) {
        put_record(l);
        if (l->type == TRANSFER_TYPE_client)
            put_flags();
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
