// SPDX-License-Identifier: MIT
#include "upstream/upstream.h"

#include <stdlib.h>

#include "base/buf.h"
#include "upstream/upstream_priv.h"

void upstream_message_fini(struct upstream_message *m)
{
    for (unsigned i = 0; i < UPSTREAM_MESSAGE_FORMS; i++)
        buf_unref(m->forms[i]);
    for (unsigned i = 0; m->rare != NULL && i < UPSTREAM_RARE_FORMS; i++)
        buf_unref(m->rare->forms[i]);
    free(m->rare);
}

void upstream_start(struct upstream *u)
{
    u->ops->start(u);
}

void upstream_client_connected(struct upstream *u, struct upstream_client *c)
{
    u->ops->client_connected(u, c);
}

void upstream_client_handshaken(struct upstream *u, struct upstream_client *c, const struct http_request *req)
{
    u->ops->client_handshaken(u, c, req);
}

void upstream_client_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len)
{
    u->ops->client_message(u, c, data, len);
}

bool upstream_client_blocked(struct upstream *u, struct upstream_client *c)
{
    return u->ops->client_blocked(u, c);
}

void upstream_client_closed(struct upstream *u, struct upstream_client *c)
{
    u->ops->client_closed(u, c);
}

struct net_listener *upstream_listener(struct upstream *u)
{
    return u->ops->listener(u);
}

bool upstream_has_worker(const struct upstream *u)
{
    return u->ops->has_worker(u);
}

bool upstream_is_flushed(const struct upstream *u)
{
    return u->ops->is_flushed(u);
}

void upstream_finish(struct upstream *u)
{
    u->ops->finish(u);
}

bool upstream_is_finished(const struct upstream *u)
{
    return u->ops->is_finished(u);
}

void upstream_free(struct upstream *u)
{
    if (u != NULL)
        u->ops->free(u);
}
