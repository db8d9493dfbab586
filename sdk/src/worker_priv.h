// SPDX-License-Identifier: MIT
#ifndef TGGW_WORKER_PRIV_H
#define TGGW_WORKER_PRIV_H
// The inside of a worker object.
//
//   struct tggw ── registers[] ── a line connection to each Register: the gateways it lists
//        │
//        └─ gateways (list) ── link:  events in, commands out      (WORKER_CONNECT)
//                            └ query: questions out, replies in    (GATEWAY_CLIENT_CONNECT), opened when
//                            needed
//
// Gateways are freed and links closed only between turns (tggw__gateways_reap, tggw__gateways_timers), so
// callbacks may hold on to one.
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "packet.h"
#include "../include/tgg_worker.h"

enum {
    TGGW__READ_BYTES = 256 * 1024,
    TGGW__QUERY_READ_BYTES = 64 * 1024,
    TGGW__EARLY_BYTES = 1024 * 1024, // queued within one callback: written without waiting for the turn's end
    TGGW__KEEP_BYTES = 1024 * 1024,  // buffers above this are given back when they are empty
    TGGW__CONNECT_MS = 5000,
    TGGW__ADDRESS_SIZE = 128,
};

enum tggw__state { TGGW__IDLE, TGGW__CONNECTING, TGGW__UP };
enum tggw__kind { TGGW__KIND_REGISTER, TGGW__KIND_LINK, TGGW__KIND_QUERY, TGGW__KIND_WAKE };

// One socket and what is queued on it. epoll's data pointer points at it.
struct tggw__conn {
    enum tggw__kind kind;
    enum tggw__state state;
    int fd; // -1 when idle
    bool wants_write;
    int error;       // not 0: to be closed at the end of the turn
    uint64_t due_ms; // connecting: give up; idle: try again
    struct tggw__bytes in, out;
    void *owner;
};

struct tggw__register {
    struct tggw__conn conn;
    struct tggw *worker;
    char address[TGGW__ADDRESS_SIZE];
    bool local; // on 127.0.0.1: no ping
    uint64_t ping_ms;
    char **listed;
    size_t listed_count;
};

struct tggw__part;

struct tggw__gateway {
    struct tggw__gateway *next;
    struct tggw *worker;
    char address[TGGW__ADDRESS_SIZE];
    bool pinned; // from the configuration
    bool listed; // by a Register, or pinned
    bool announced;
    // Its internal address as client_ids carry it: that which was dialled, until a packet says otherwise.
    uint32_t ip;
    uint16_t port;
    struct tggw__conn link;
    struct tggw__conn query;
    struct tggw__part *asked, **asked_tail; // first in, first answered
};

struct tggw__part {
    struct tggw__part *next;
    struct tggw_result *result;
    uint32_t ip;
    uint16_t port;
    bool done;
    int error;
    uint8_t *data;
    size_t len;
};

struct tggw_result {
    struct tggw_result *next;
    struct tggw *worker;
    size_t count, left; // parts; those not answered yet
    uint64_t due_ms;
    tggw_query_cb *cb; // NULL: somebody waits for it
    void *arg;
    struct tggw__part parts[];
};

struct tggw {
    struct tggw_config config; // strings are owned, the arrays of addresses are not kept
    struct tggw__register *registers;
    size_t register_count;
    struct tggw__gateway *gateways;
    struct tggw__gateway *last_found;
    size_t up_count;
    int epoll_fd;
    struct tggw__conn wake;
    bool started, freeing;
    int stop; // atomic
    uint64_t now_ms;
    uint64_t due_ms;            // when the next timer wants a turn
    uint8_t *read_buf;          // TGGW__READ_BYTES
    uint8_t *query_buf;         // of its own: a callback may query while read_buf is being cut into packets
    struct tggw__bytes scratch; // ext_data being put together
    struct tggw_result *async, *finished; // waiting for replies; waiting for their callback
    struct tggw_stats stats;
};

// worker.c
void tggw__log(struct tggw *w, enum tggw_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t tggw__clock_ms(void);

// conn.c: sockets
// host:port, [ipv6]:port. -EINVAL when it is not of that form.
int tggw__address_check(const char *address);
void tggw__conn_init(struct tggw__conn *c, enum tggw__kind kind, void *owner);
// Starts a non-blocking connect. ret_peer (may be NULL) is the IPv4 address dialled, or zeros.
int tggw__conn_open(struct tggw *w, struct tggw__conn *c, const char *address, struct sockaddr_in *ret_peer);
// The connect has an outcome: 0 up, -EINPROGRESS not yet, else why not.
int tggw__conn_finish(struct tggw__conn *c);
// Reads once into buf: bytes, 0 when there is nothing now, negative errno (-ECONNRESET: end of stream).
ssize_t tggw__conn_read(struct tggw__conn *c, uint8_t *buf, size_t size);
// Writes what is queued as far as it goes; an error is kept in c->error. Returns the bytes written.
size_t tggw__conn_flush(struct tggw *w, struct tggw__conn *c);
void tggw__conn_close(struct tggw *w, struct tggw__conn *c, uint64_t retry_ms);
void tggw__conn_fini(struct tggw *w, struct tggw__conn *c);

// register.c
int tggw__register_init(struct tggw *w, struct tggw__register *r, const char *address);
void tggw__register_fini(struct tggw__register *r);
void tggw__register_event(struct tggw__register *r);
void tggw__register_timers(struct tggw__register *r, uint64_t *due_ms);
// One line of a Register. 1: a list of addresses (owned by the caller, freed by tggw__list_free), 0: a line
// of no interest, -EBADMSG.
int tggw__register_line(const char *line, size_t len, char ***ret_list, size_t *ret_count);
void tggw__list_free(char **list, size_t count);

// gateway.c
int tggw__gateway_add(struct tggw *w, const char *address, bool pinned);
// Lists what the Registers (and the configuration) name now; new ones are connected at once.
void tggw__gateways_update(struct tggw *w);
void tggw__gateway_event(struct tggw__gateway *g);
void tggw__gateways_timers(struct tggw *w, uint64_t *due_ms);
void tggw__gateways_flush(struct tggw *w);
void tggw__gateways_reap(struct tggw *w);
void tggw__gateways_fini(struct tggw *w);
struct tggw__gateway *tggw__gateway_find(struct tggw *w, uint32_t ip, uint16_t port);
// Cuts packets from bytes that came over the link. For tests also reached without a socket.
int tggw__gateway_feed(struct tggw__gateway *g, const uint8_t *data, size_t len);

// send.c
int tggw__send(struct tggw__gateway *g, const struct tggw__packet *p);
int tggw__send_all(struct tggw *w, const struct tggw__packet *p);
// {"id":id,...} of those client_ids that belong to the gateway; their number.
size_t tggw__json_own_ids(struct tggw__bytes *b, const struct tggw__gateway *g, const char *const *ids,
                          size_t count, int *err);
bool tggw__is_empty(const char *text); // as PHP's empty()

// query.c
void tggw__query_event(struct tggw__gateway *g);
// Fails what waits for this gateway's replies and closes the connection.
void tggw__query_fail(struct tggw__gateway *g, int error);
void tggw__query_timers(struct tggw *w, uint64_t *due_ms);
void tggw__query_callbacks(struct tggw *w);
// As tggw_query() to all, with ext_data made for each gateway: 0, -ENOENT (this one need not be asked) or an
// error.
typedef int tggw__ext_fn(void *arg, const struct tggw__gateway *g, struct tggw__bytes *ext);
int tggw__query_each(struct tggw *w, int cmd, tggw__ext_fn *make, void *arg, struct tggw_result **ret_result);
void tggw__query_cancel_all(struct tggw *w); // nothing can be asked any more
static inline void tggw__sooner(uint64_t *due_ms, uint64_t at_ms)
{
    if (at_ms < *due_ms)
        *due_ms = at_ms;
}

#endif
