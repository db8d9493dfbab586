// SPDX-License-Identifier: MIT
/* Connections on their way to another process: records (what is known of each), and the socket that carries
 * them with their descriptors.
 *
 *   old shard ── record + descriptor ── sender ── SOCK_SEQPACKET ── receiver ── record ── new shard
 *
 * A record is a head and fields; its bytes mean the same in every version of this program and on every
 * machine:
 *
 *   head    u16 type, u16 version, u16 flags, u16 0, u32 length of the fields     little-endian
 *   field   varint tag << 3 | 0, varint value                                     a number
 *           varint tag << 3 | 2, varint length, bytes                             bytes
 *
 * (the fields are what Protocol Buffers has, so that other programs can read them). The records and their
 * fields are in transfer_records.h, from which structs, reader, writer and docs/TRANSFER-FORMAT.md are made.
 * A reader skips fields that it does not know, and takes 0 for what is missing. Bytes come from another
 * process of this machine that runs as the same user; they are read as a peer's all the same: nothing in them
 * can make the reader fail otherwise than by an error. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/net_addr.h"
#include "transfer/transfer_records.h"

enum transfer_type {
#define TRANSFER_TYPE(name, type, version, fields, text) TRANSFER_TYPE_##name = type,
    TRANSFER_RECORDS(TRANSFER_TYPE)
#undef TRANSFER_TYPE
};

/* struct transfer_client and so on: each field a uint64_t or a struct slice (of a record that was read: into
 * it). */
#define TRANSFER_MEMBER_U(tag, field, text) uint64_t field;
#define TRANSFER_MEMBER_B(tag, field, text) struct slice field;
#define TRANSFER_STRUCT(name, type, version, fields, text)                                                   \
    struct transfer_##name {                                                                                 \
        fields(TRANSFER_MEMBER_U, TRANSFER_MEMBER_B)                                                         \
    };
TRANSFER_RECORDS(TRANSFER_STRUCT)
#undef TRANSFER_STRUCT
#undef TRANSFER_MEMBER_U
#undef TRANSFER_MEMBER_B

/* The whole record, or only its fields (for a record within a field), behind what is in out. False
 * (out->failed): no memory. transfer_put_shard(out, &shard), transfer_put_shard_fields ... Of fields: 0, or
 * -EBADMSG: not such fields. *ret is all zero but for what is there. transfer_get_shard(fields, &shard) ...
 */
#define TRANSFER_CODEC(name, type, version, fields, text)                                                    \
    bool transfer_put_##name(struct bytes *out, const struct transfer_##name *r);                            \
    bool transfer_put_##name##_fields(struct bytes *out, const struct transfer_##name *r);                   \
    int transfer_get_##name(struct slice fields, struct transfer_##name *ret);
TRANSFER_RECORDS(TRANSFER_CODEC)
#undef TRANSFER_CODEC

/* A record as it came. */
struct transfer_record {
    enum transfer_type type; /* of those above: others are refused before */
    struct slice fields;
    int handle; /* the descriptor that came with it, the taker's to close; -1: none */
};

// clang-format off
/* transfer_client.flags: X(name, bit, "what it says") */
#define TRANSFER_CLIENT_FLAGS(X) \
    X(ANNOUNCED, 0, "in the directory; a worker has heard of it or is going to, and hears of its end") \
    X(GOT_BYTE, 1, "it has sent something") \
    X(DEAF, 2, "what it sends is not looked at any more") \
    X(CLOSE_SENT, 3, "WebSocket: our close frame is among what was or is to be sent") \
    X(CLOSE_RECEIVED, 4, "WebSocket: its close frame has come") \
    X(FIN_SENT, 5, "our direction of the connection is shut") \
    X(COUNTED, 6, "by the guard, for its address") \
    X(ADDRESS_OPEN, 7, "its address is that of a trusted proxy; the request will tell the client's") \
    X(REFUSAL, 8, "it is not let in, and told why") \
    X(HEARD_OF, 9, "its ON_CONNECT is with a worker, or waits for one") \
    X(HAS_JOINED, 10, "a group, once") \
    X(PARKED_CONNECT, 11, "its ON_CONNECT is among what is parked") \
    X(TLS, 12, "its listener has TLS") \
    X(READ_PAUSED, 13, "its worker does not read") \
    X(BROKEN, 14, "a write has failed: it is about to end")
// clang-format on
enum transfer_client_flag {
#define TRANSFER_FLAG(name, bit, text) TRANSFER_##name = 1 << bit,
    TRANSFER_CLIENT_FLAGS(TRANSFER_FLAG)
#undef TRANSFER_FLAG
};

/* ---- parts of fields */

/* A list within a field: elements with their lengths before them. */
bool transfer_list_add(struct bytes *out, const void *data, size_t len);
/* In parts, for an element that is put together. */
bool transfer_list_add_parts(struct bytes *out, const struct slice *parts, unsigned n);
/* The next element, taken off *list. 1; 0: that was all; -EBADMSG. */
int transfer_list_next(struct slice *list, struct slice *ret);
/* Address and port. */
bool transfer_put_address(struct bytes *out, const struct net_addr *addr);
int transfer_get_address(struct slice field, struct net_addr *ret); /* 0 or -EBADMSG */

/* ---- whom a connection goes to */

/* Shards as they are to be. */
struct transfer_plan {
    unsigned n_shards;
    uint64_t edges, links; /* roles: a bit each, never 0 */
    const uint8_t
        *home;   /* of ids: the shard of id i is home[(i >> 26) * 64 + (i & 63)] (common/node_shared.h) */
    unsigned me; /* who hands over */
    unsigned first_link; /* links of the shards before this one, so that all together are spread evenly */
    uint64_t takers; /* within one node: these shards take, the others give what is not at home with them, and
                        those that are not among `links` their links; 0: all goes */
    bool same; /* number of shards and roles are what they were: links go to the shard of their number */
};

/* Takes records away. put: with head; handle: of net_conn_handle, -1: none; it stays the caller's, who keeps
 * it open until transfer_sender_flush has said that all is sent. 0; else -errno, and the transfer is given
 * up. to: the new shard. */
struct transfer_sink {
    int (*put)(struct transfer_sink *s, unsigned to, struct slice record, int handle);
};
/* Puts it to every shard of the plan. */
int transfer_put_all(struct transfer_sink *s, const struct transfer_plan *plan, struct slice record);

/* ---- over sockets: both sides SOCK_SEQPACKET; several senders may have one receiver */

/* [0] to receive, [1] to send; closed on exec, with room for several messages; the receiving end does not
 * block. 0 or -errno. */
int transfer_open(int ret[2]);

#define TRANSFER_MESSAGE_MAX 65536
#define TRANSFER_FDS_MAX     250 /* descriptors of one message (the kernel's limit is 253) */
#define TRANSFER_RECORD_MAX  ((size_t)256 << 20)

/* The ends to n receivers. Collects records to a message for each, and blocks while a receiver does not take
 * them, until the deadline: then, and when a receiver is gone, every put is an error (-ETIMEDOUT, -EPIPE). */
struct transfer_sender;
struct transfer_sender *transfer_sender_new(unsigned me, const int *fds, unsigned n, uint64_t deadline_ns);
struct transfer_sink *transfer_sender_sink(struct transfer_sender *s);
int transfer_sender_flush(struct transfer_sender *s);                           /* what is collected goes */
uint64_t transfer_sender_records(const struct transfer_sender *s, unsigned to); /* put so far */
void transfer_sender_free(struct transfer_sender *s);                           /* descriptors stay open */

/* Puts messages of up to 64 senders together to records again. */
struct transfer_receiver;
struct transfer_receiver *transfer_receiver_new(int fd);
/* The next record of any sender: 1, *ret_from its number; it is valid until the next call. 0: none is there
 * now. -EBADMSG: something that makes no sense came; -EMSGSIZE: a record over TRANSFER_RECORD_MAX; -EPIPE:
 * all senders are gone; -EMFILE: this process may not have so many descriptors; other -errno. After an error
 * only _free. */
int transfer_receiver_next(struct transfer_receiver *r, unsigned *ret_from, struct transfer_record *ret);
void transfer_receiver_free(
    struct transfer_receiver *r); /* fd stays open; descriptors that were not taken are closed */

/* One record out of a run of them (files, tests, simulation): taken off *run. 1; 0: empty; -EBADMSG. handle
 * is -1. */
int transfer_next(struct slice *run, struct transfer_record *ret);
