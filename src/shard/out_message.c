// SPDX-License-Identifier: MIT
#include "base/buf.h"
#include "base/utf8.h"
#include "proto/line/frame.h"
#include "proto/line/text.h"
#include "shard/shard_priv.h"

#include <string.h>

enum form { FORM_WS_TEXT, FORM_WS_BINARY, FORM_WS_AUTO, FORM_LINE, FORM_FRAME, FORM_RAW, FORM_N };
_Static_assert(FORM_N == UPSTREAM_MESSAGE_FORMS, "one place per form");

static enum form form_of(const struct upstream_message *m, const struct config_listen *listen)
{
    if (m->framed)
        return FORM_RAW;
    switch (listen->protocol) {
    case PROTOCOL_TEXT: return FORM_LINE;
    case PROTOCOL_FRAME: return FORM_FRAME;
    case PROTOCOL_TCP: return FORM_RAW;
    case PROTOCOL_WEBSOCKET: break;
    }
    switch (listen->send_type) {
    case SEND_TYPE_BINARY: return FORM_WS_BINARY;
    case SEND_TYPE_AUTO: return FORM_WS_AUTO;
    case SEND_TYPE_TEXT: break;
    }
    return FORM_WS_TEXT;
}

static unsigned opcode_of(enum form form, const struct upstream_message *m)
{
    if (form == FORM_WS_AUTO)
        return utf8_valid(m->payload.data, m->payload.len) ? WS_OP_TEXT : WS_OP_BINARY;
    return form == FORM_WS_TEXT ? WS_OP_TEXT : WS_OP_BINARY;
}

static struct buf *frame_message(const struct upstream_message *m, enum form form)
{
    struct slice payload = m->payload;
    struct buf *b = buf_new(payload.len + WS_OUT_HEADER_MAX);
    if (b == NULL)
        return NULL;
    size_t head = 0;
    if (form <= FORM_WS_AUTO)
        head = ws_frame_header(b->data, opcode_of(form, m), payload.len);
    else if (form == FORM_FRAME)
        head = frame_header(b->data, payload.len);
    if (payload.len > 0)
        memcpy(b->data + head, payload.data, payload.len);
    b->len = (uint32_t)(head + payload.len);
    if (form == FORM_LINE)
        b->data[b->len++] = '\n';
    return b;
}

struct buf *out_message_form(struct upstream_message *m, struct shard_listener *l)
{
    enum form form = form_of(m, l->config);
    if (m->forms[form] == NULL) {
        m->forms[form] = frame_message(m, form);
        histogram_observe(l->shard->host.histograms, message_out, m->payload.len);
    }
    return m->forms[form];
}

struct buf *out_control(const void *data, size_t len)
{
    struct buf *b = buf_new(len);
    if (b == NULL)
        return NULL;
    memcpy(b->data, data, len);
    b->len = (uint32_t)len;
    b->flags = OUT_CONTROL;
    return b;
}

struct buf *out_websocket_control(unsigned opcode, const void *payload, size_t len)
{
    uint8_t frame[WS_OUT_HEADER_MAX + WS_CONTROL_MAX];
    size_t head = ws_frame_header(frame, opcode, len);
    if (len > 0)
        memcpy(frame + head, payload, len);
    return out_control(frame, head + len);
}
