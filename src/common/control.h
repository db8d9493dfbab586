// SPDX-License-Identifier: MIT
/* Questions and orders of the admin process to the shards and the supervisor, over a socket pair each that
 * keeps the bounds of messages (SOCK_SEQPACKET) and outlives both sides: who comes after a dead one goes on
 * reading. Both sides are processes of one program. Neither blocks.
 *
 * A request is a fixed head and texts. An answer is one or more messages: a head and JSON text
 * (json_writer.h). What the JSON says is docs/ADMIN-API.md; of the list operations it is rows, objects with
 * commas between them, so that whoever asks several shards puts them into one array without reading them.
 *
 * A shard answers within its turn or in slices; it keeps no state between two pages. A request that finds
 * CONTROL_PENDING_MAX others under way is answered -EBUSY; one that comes before the first CONTROL_HELLO was
 * for a predecessor, and is answered -ECONNRESET. A new admin process begins with CONTROL_HELLO, which ends
 * what its predecessor had under way (traces). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/net_addr.h"

#define CONTROL_MESSAGE_MAX 65536
#define CONTROL_NAME_MAX    256 /* bytes of a uid, group or key that an answer shows; longer ones are cut */
#define CONTROL_ROWS_MAX    200 /* of one answer */
#define CONTROL_PENDING_MAX 32
#define CONTROL_PACED_MAX   16 /* orders that go on for a time */

enum control_op {
    CONTROL_HELLO, /* of shards: forget what is under way */
    /* Of shards, lists (flags CONTROL_ROWS): */
    CONTROL_CLIENTS,   /* that match, a page */
    CONTROL_UIDS,      /* with their number of clients; text name: only that one; prefix */
    CONTROL_GROUPS,    /* likewise */
    CONTROL_TOP,       /* `limit` clients with the most of `by`, over `seconds`; GROUPS, UIDS: the largest */
    CONTROL_WORKERS,   /* whose links this shard has */
    CONTROL_LISTENERS, /* of this shard, with their clients */
    CONTROL_TABLES,    /* sizes of tables and pools */
    /* Of shards, one object: */
    CONTROL_CLIENT, /* in full, `client`; -ENOENT */
    CONTROL_CHECK,  /* compares the tables with each other; when it is done */
    /* Of shards, orders; the answer is one object: */
    CONTROL_CLOSE,   /* clients that match, with code and reason; {"closed":N,"closing":0} when it is done, or
                      * with `seconds`, over that time, {"closed":0,"closing":N} when it begins */
    CONTROL_DRAIN,   /* all clients of this shard likewise, and no new ones; answered at once */
    CONTROL_UNDRAIN, /* takes new ones again; those not closed yet stay */
    CONTROL_WORKER, /* text worker: drain (flag CONTROL_ON) or not; clients are bound to others over `seconds`
                     */
    CONTROL_REBALANCE, /* bindings to workers are made even, over `seconds` */
    CONTROL_TRACE,     /* follow `client`, uid or address for `seconds`; answers come as things happen */
    CONTROL_TRACE_END, /* of the trace with the id in `cursor` */
    CONTROL_INJECT,    /* an error, test builds only; text name */
    /* Of the supervisor: */
    CONTROL_RELOAD,    /* {"changed":[...],"problems":[...]} */
    CONTROL_BAN,       /* address for `seconds` */
    CONTROL_UNBAN,     /* address */
    CONTROL_LOG_LEVEL, /* text name: of all processes, until the next reload or start */
    CONTROL_EVACUATE,  /* shard `cursor`: all connections off it (flag CONTROL_ON), or back what its ids are;
                        * {"shard":N,"clients":N,"links":N,"pause_ms":N} when it is done */
    CONTROL_OP_N
};

enum control_by {
    CONTROL_BY_MESSAGES_IN,
    CONTROL_BY_BYTES_IN,
    CONTROL_BY_MESSAGES_OUT,
    CONTROL_BY_BYTES_OUT,
    CONTROL_BY_QUEUE, /* bytes that wait now: the slowest readers */
    CONTROL_BY_GROUPS,
    CONTROL_BY_UIDS,
    CONTROL_BY_N
};

/* Texts of a request, any bytes. Filters that are set must all match. */
enum control_text {
    CONTROL_TEXT_UID,
    CONTROL_TEXT_GROUP,
    CONTROL_TEXT_WORKER,   /* its key as shown: "ip:key" */
    CONTROL_TEXT_LISTENER, /* [listen NAME] */
    CONTROL_TEXT_NAME,     /* of what is asked for: uid or group; level, error */
    CONTROL_TEXT_PREFIX,
    CONTROL_TEXT_REASON, /* of a close frame */
    CONTROL_TEXT_N
};

struct control_head {
    uint32_t id; /* the asker's */
    uint16_t op;
    uint8_t by;      /* enum control_by */
    uint8_t flags;   /* CONTROL_ON */
    uint64_t cursor; /* of a page: 0 or what the answer before said */
    uint32_t limit;  /* rows; 0 or too many: CONTROL_ROWS_MAX */
    uint32_t client; /* connection_id; 0: any */
    uint32_t seconds;
    uint16_t code;           /* close code; 0: 1000 */
    uint8_t jitter;          /* percent of the time between two of a paced order that is left to chance */
    uint8_t address_bits;    /* of the prefix */
    struct net_addr address; /* family 0: any */
    uint32_t age_min_s, age_max_s, idle_min_s; /* 0: any; since it came; since its last byte */
    uint64_t queue_min;                        /* bytes */
    uint16_t texts;                            /* bit i: text i is set */
    uint16_t text_len[CONTROL_TEXT_N];
};
#define CONTROL_ON 1u

struct control_request {
    struct control_head head;
    struct slice text[CONTROL_TEXT_N]; /* data NULL: not set */
};

/* The head of an answer; its JSON follows. */
struct control_reply {
    uint32_t id;
    int32_t status;  /* 0 or -errno, then the JSON is {"error":"..."} or nothing */
    uint64_t cursor; /* of the next page; 0: there is none */
    uint32_t flags;
    uint32_t reserved;
};
#define CONTROL_MORE 1u /* more messages with this id follow */

#define CONTROL_JSON_MAX (CONTROL_MESSAGE_MAX - sizeof(struct control_reply))

/* Both ends alike; non-blocking, closed on exec, with room for several of the largest messages. 0 or -errno.
 */
int control_open(int ret[2]);
/* text_len and texts of the head are filled in from text. 0; -EAGAIN: the other side does not read;
 * -EMSGSIZE; -EPIPE: it is gone for good; other -errno. */
int control_send(int fd, struct control_request *req);
int control_reply(int fd, const struct control_reply *reply, const void *json, size_t len);
/* buf[CONTROL_MESSAGE_MAX] holds the texts; those of ret point into it. 0; -EAGAIN: none is there; -EPIPE;
 * -EBADMSG: it makes no sense, and is gone. */
int control_receive(int fd, uint8_t *buf, struct control_request *ret);
int control_receive_reply(int fd, uint8_t *buf, struct control_reply *ret, struct slice *ret_json);

/* "messages_in" for CONTROL_BY_MESSAGES_IN. */
const char *control_by_name(enum control_by by);
