// SPDX-License-Identifier: MIT
#include "register/register_priv.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

int register__channel_open(struct register_channel *c, int fd, uint64_t deadline_ns)
{
    struct transfer_sender *out = transfer_sender_new(0, &fd, 1, deadline_ns);
    struct transfer_receiver *in = transfer_receiver_new(fd);

    if (out == NULL || in == NULL) {
        transfer_sender_free(out);
        transfer_receiver_free(in);
        return -ENOMEM;
    }
    *c = (struct register_channel){.fd = fd, .out = out, .in = in};
    return 0;
}

void register__channel_close(struct register_channel *c)
{
    if (c->out == NULL)
        return;
    transfer_sender_free(c->out);
    transfer_receiver_free(c->in);
    close(c->fd);
    *c = (struct register_channel){.fd = -1};
}

int register__channel_set_deadline(struct register_channel *c, uint64_t deadline_ns)
{
    struct transfer_sender *out = transfer_sender_new(0, &c->fd, 1, deadline_ns);
    if (out == NULL)
        return -ENOMEM;
    transfer_sender_free(c->out);
    c->out = out;
    return 0;
}

int register__channel_say(struct register_channel *c, enum register_word word, uint64_t peers,
                          const char *text)
{
    struct transfer_register_word w = {.word = word, .peers = peers};
    struct bytes record = {0};
    struct transfer_sink *sink = transfer_sender_sink(c->out);
    int r = -ENOMEM;

    if (text != NULL)
        w.text = (struct slice){(const uint8_t *)text, strlen(text)};
    if (transfer_put_register_word(&record, &w))
        r = sink->put(sink, 0, (struct slice){record.data, record.len}, -1);
    bytes_fini(&record);
    return r < 0 ? r : transfer_sender_flush(c->out);
}

int register__channel_next(struct register_channel *c, struct transfer_record *ret)
{
    unsigned from;
    return transfer_receiver_next(c->in, &from, ret);
}

int register__channel_wait(struct register_channel *c, uint64_t deadline_ns, struct transfer_record *ret)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int r = register__channel_next(c, ret);
        if (r != 0)
            return r < 0 ? r : 0;
        uint64_t now_ns = loop_clock_monotonic.now_ns(loop_clock_monotonic.ctx);
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        if (poll(&p, 1, (int)((deadline_ns - now_ns) / 1000000 + 1)) < 0 && errno != EINTR)
            return -errno;
    }
}

int register__word_of(const struct transfer_record *record, struct transfer_register_word *ret)
{
    if (record->handle >= 0)
        close(record->handle);
    if (record->type != TRANSFER_TYPE_register_word || record->handle >= 0)
        return -EBADMSG;
    int r = transfer_get_register_word(record->fields, ret);
    if (r == 0 && ret->text.len > REGISTER_WORD_TEXT_MAX)
        ret->text.len = REGISTER_WORD_TEXT_MAX;
    return r;
}
