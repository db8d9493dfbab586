// SPDX-License-Identifier: MIT
/* Everybody receives the broadcasts that the sender of another process (fan-out) has sent; nothing is sent
 * here. A line of result each time another --run-operations deliveries are complete: whoever coordinates
 * several such processes so knows when a broadcast has reached all of their connections. All connections must
 * be there before the first broadcast comes. */
#include "load.h"

#include "common.h"

#include <stdio.h>

static uint32_t first_seq; /* of the first broadcast that came */
static uint64_t first_ns;  /* first delivery since the last line */

static void listen_print(struct load *l)
{
    printf("{\"event\":\"result\",\"mode\":\"listen\",\"connections\":%u,\"operations\":%lu,\"first_ns\":%lu,"
           "\"last_ns\":%lu}\n",
           l->opt.connections, l->opt.run_operations, first_ns, l->engine.now);
    fflush(stdout);
    first_ns = 0;
}

static void listen_message(struct load *l, struct conn *c, const uint8_t *data, uint32_t len)
{
    uint32_t index;
    if (l->phase == PHASE_CONNECT)
        die("a broadcast came before all connections were there");
    if (l->operations == 0)
        (void)message_numbers(l, data, len, &index, &first_seq);
    message_check(l, data, len, BROADCAST_INDEX, first_seq + c->received);
    if (first_ns == 0)
        first_ns = l->engine.now;
    c->received++;
    l->operations++;
    if (l->opt.run_operations > 0 && l->operations % l->opt.run_operations == 0)
        listen_print(l);
}

const struct load_mode load_listen = {.name = "listen", .message = listen_message};
