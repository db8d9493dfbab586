// SPDX-License-Identifier: MIT
/* Handing an event to a worker, wherever its link is, so that it outlives us: into the queue of its link
 * here, or into the ring to the shard that has it. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static bool hold(struct worker *w, const struct slice *parts, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += parts[i].len;
    uint8_t *at = link_queue_reserve(&w->held, LINK_CHUNK_EVENTS, len);
    if (at == NULL)
        return false;
    uint8_t *packet = at;
    for (unsigned i = 0; i < n; at += parts[i++].len)
        if (parts[i].len > 0)
            memcpy(at, parts[i].data, parts[i].len);
    packet[PACKET_FLAG_AT] |= PACKET_LAST | PACKET_COUNTED;
    link_queue_commit(&w->held);
    worker_look_at_full(w);
    return true;
}

static bool put_parts(struct worker *w, const struct slice *parts, unsigned n)
{
    if (w->unsettled)
        return hold(w, parts, n);
    ASSERT(!w->is_gone);
    return peer_send_event(w, parts, n);
}

static bool is_lifecycle(uint8_t cmd)
{
    return cmd == GW_CMD_ON_CONNECT || cmd == GW_CMD_ON_CLOSE;
}

bool worker_put_packet(struct worker *w, const uint8_t *packet, size_t len)
{
    struct slice part = {packet, len};
    if (w->link != NULL)
        return link_put_packet(w->link, packet, len);
    /* What a successor of ours has to know of is in the ring at once, not at the end of the turn. */
    if (is_lifecycle(packet[4]) && !w->unsettled && peer_try_event(w, &part, 1) == 0)
        return true;
    return put_parts(w, &part, 1);
}

int worker_try_packet(struct worker *w, struct slice packet)
{
    if (w->link == NULL && !w->unsettled && packet.len <= mesh_try_max(w->gw->mesh) / 2)
        return peer_try_event(w, &packet, 1);
    return worker_put_packet(w, packet.data, packet.len) ? 0 : -ENOMEM;
}

bool worker_put_event(struct worker *w, const struct gw_packet *p)
{
    if (__builtin_expect(w->link != NULL, 1))
        return link_put_event(w->link, p);
    uint8_t head[GW_HEAD_LEN];
    gw_packet_encode_head(head, p);
    struct slice parts[] = {{head, sizeof head}, p->ext, p->body};
    if (is_lifecycle(p->cmd) && !w->unsettled && peer_try_event(w, parts, 3) == 0)
        return true;
    return put_parts(w, parts, 3);
}

/* An ON_CLOSE that waits for room to another shard: c is gone, its record and session stay until it has gone.
 */
struct late_close {
    struct mesh_note note;
    struct list node; /* in gw->late_closes */
    struct gatewayworker *gw;
    struct estate_client *record;
    struct session_bytes *session;
};

static void late_close_done(struct mesh_note *n)
{
    struct late_close *late = CONTAINER_OF(n, struct late_close, note);
    list_remove(&late->node);
    estate_client_remove(late->gw->up.host->estate, late->record);
    estate_free(late->gw->up.host->estate, late->session);
    free(late);
}

static bool put_close_late(struct worker *w, struct upstream_client *c, const struct slice *parts)
{
    struct gatewayworker *gw = w->gw;
    struct late_close *late = c->member.record != NULL ? malloc(sizeof *late) : NULL;
    if (late == NULL)
        return peer_send_event(w, parts, 3);
    *late = (struct late_close){.note.done = late_close_done, .gw = gw, .record = c->member.record};
    c->member.record = NULL;
    late->session = directory_session_detach(gw->up.host->directory, &c->member);
    list_append(&gw->late_closes, &late->node);
    if (peer_send_event_noted(w, parts, 3, &late->note))
        return true;
    late_close_done(&late->note); /* it was not queued: without memory */
    return false;
}

void handover_forget_late_closes(struct gatewayworker *gw)
{
    while (!list_is_empty(&gw->late_closes)) {
        struct late_close *late = CONTAINER_OF(gw->late_closes.next, struct late_close, node);
        late_close_done(&late->note);
    }
}

bool worker_put_close(struct worker *w, struct upstream_client *c, const struct gw_packet *p)
{
    struct gatewayworker *gw = w->gw;
    bool ok;
    if (w->link != NULL || w->unsettled) {
        ok = worker_put_event(w, p);
    } else {
        uint8_t head[GW_HEAD_LEN];
        gw_packet_encode_head(head, p);
        struct slice parts[] = {{head, sizeof head}, p->ext, p->body};
        ok = peer_try_event(w, parts, 3) == 0;
        if (!ok)
            return put_close_late(w, c, parts);
    }
    record_remove(gw, c);
    return ok;
}
