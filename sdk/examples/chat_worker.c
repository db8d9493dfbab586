// SPDX-License-Identifier: MIT
// A chat with rooms, names and private messages. All state is at the gateways: a room is a group, name and
// room are the client's session; this process may be restarted at any time, and several of them may run.
//
// JSON text messages. From a client:
//   {"type":"login","name":N,"room":R}   first of all, and again to change name or room; answered by
//   "welcome"
//   {"type":"say","text":T}              to the room      {"type":"say","text":T,"to":CLIENT_ID}   to one
//   client
//   {"type":"list"}                      who is here      {"type":"ping"} answered by "pong"; {"type":"pong"}
//   is not
// To a client:
//   welcome {id,name,room} · members {room,members:[{id,name}]} · joined {id,name} · left {id,name}
//   say {from,name,text,time,private[,to]} · pong · error {text}
#include "tgg_worker.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    NAME_BYTES_MAX = 64,
    TEXT_BYTES_MAX = 4000,
    GROUP_SIZE = NAME_BYTES_MAX + 8,
    SESSION_SIZE = 512,
    REGISTERS_MAX = 8,
    CMD_GET_CLIENT_SESSIONS_BY_GROUP = 23,
};

// Who is speaking, from the session. Empty name: not logged in.
struct member {
    char name[NAME_BYTES_MAX + 1];
    char room[NAME_BYTES_MAX + 1];
};

static struct tggw *running;

// ---- sessions and rooms
// -----------------------------------------------------------------------------------------

static void copy_field(const void *session, size_t len, const char *key, char *ret, size_t size)
{
    const char *value;
    size_t value_len;
    ret[0] = '\0';
    if (tggw_session_get(session, len, key, &value, &value_len) < 0 || value_len >= size)
        return;
    memcpy(ret, value, value_len);
    ret[value_len] = '\0';
}

static bool read_member(const void *session, size_t len, struct member *ret)
{
    copy_field(session, len, "name", ret->name, sizeof ret->name);
    copy_field(session, len, "room", ret->room, sizeof ret->room);
    return ret->name[0] != '\0' && ret->room[0] != '\0';
}

static void write_member(struct tggw *w, const char *client_id, const struct member *m)
{
    char session[SESSION_SIZE];
    const struct tggw_pair pairs[] = {{"name", m->name, strlen(m->name)}, {"room", m->room, strlen(m->room)}};
    size_t len = tggw_session_build(pairs, 2, session, sizeof session);
    if (len <= sizeof session)
        tggw_set_session(w, client_id, session, len);
}

// The prefix also keeps room "0" from being PHP's empty value.
static const char *group_of(const struct member *m, char group[GROUP_SIZE])
{
    snprintf(group, GROUP_SIZE, "room:%s", m->room);
    return group;
}

// ---- sending
// ----------------------------------------------------------------------------------------------------

// Both take the message over.
static void send_one(struct tggw *w, const char *client_id, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    if (text != NULL)
        tggw_send_to_client(w, client_id, text, strlen(text), 0);
    free(text);
    json_decref(message);
}

static void send_room(struct tggw *w, const struct member *m, const char *except, json_t *message)
{
    char group[GROUP_SIZE];
    const char *groups[] = {group_of(m, group)};
    char *text = json_dumps(message, JSON_COMPACT);
    if (text != NULL)
        tggw_send_to_groups(w, groups, 1, &except, except != NULL, text, strlen(text), 0);
    free(text);
    json_decref(message);
}

static void send_error(struct tggw *w, const char *client_id, const char *text)
{
    send_one(w, client_id, json_pack("{ss,ss}", "type", "error", "text", text));
}

// ---- the list of a room
// -----------------------------------------------------------------------------------------

struct asker {
    char client_id[TGGW_CLIENT_ID_SIZE];
    struct member who;
};

static void add_member(json_t *list, const char *client_id, const char *name)
{
    json_array_append_new(list, json_pack("{ss,ss}", "id", client_id, "name", name));
}

static void on_list(struct tggw *w, int error, const struct tggw_result *result, void *arg)
{
    struct asker *a = arg;
    struct tggw_result_iter it;
    struct tggw_value session;
    struct member m;
    char id[TGGW_CLIENT_ID_SIZE];
    json_t *list = json_array();
    // The one who asks may have joined a moment ago, unknown yet to this query: he stands in front in any
    // case.
    add_member(list, a->client_id, a->who.name);
    tggw_result_iter_init(&it, result);
    while (error == 0 && tggw_result_next(&it, id, &session) > 0) {
        if (strcmp(id, a->client_id) != 0 && session.type == TGGW_STRING &&
            read_member(session.s, session.len, &m))
            add_member(list, id, m.name);
    }
    if (error == 0)
        send_one(w, a->client_id,
                 json_pack("{ss,ss,so}", "type", "members", "room", a->who.room, "members", list));
    else
        json_decref(list);
    if (error < 0 && error != -ECANCELED)
        send_error(w, a->client_id, "the member list is not available now");
    free(a);
}

static void send_list(struct tggw *w, const char *client_id, const struct member *m)
{
    char group[GROUP_SIZE];
    struct asker *a = calloc(1, sizeof *a);
    if (a == NULL)
        return;
    snprintf(a->client_id, sizeof a->client_id, "%s", client_id);
    a->who = *m;
    group_of(m, group);
    if (tggw_query_async(w, CMD_GET_CLIENT_SESSIONS_BY_GROUP, NULL, group, strlen(group), on_list, a) < 0)
        free(a);
}

// ---- what clients say
// -------------------------------------------------------------------------------------------

// Copies a name without the spaces around it. False: missing, empty, too long, with control characters.
static bool take_name(const json_t *message, const char *key, char ret[NAME_BYTES_MAX + 1])
{
    const char *text = json_string_value(json_object_get(message, key));
    if (text == NULL)
        return false;
    text += strspn(text, " ");
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == ' ')
        len--;
    if (len == 0 || len > NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (iscntrl((unsigned char)text[i]))
            return false;
    }
    memcpy(ret, text, len);
    ret[len] = '\0';
    return true;
}

static void leave(struct tggw *w, const char *client_id, const struct member *m)
{
    char group[GROUP_SIZE];
    tggw_leave_group(w, client_id, group_of(m, group));
    send_room(w, m, client_id, json_pack("{ss,ss,ss}", "type", "left", "id", client_id, "name", m->name));
}

static void on_login(struct tggw *w, const struct tggw_client *c, const json_t *message)
{
    struct member before, now;
    char group[GROUP_SIZE];
    if (!take_name(message, "name", now.name) || !take_name(message, "room", now.room)) {
        send_error(w, c->client_id, "login needs a name and a room of 1 to 64 bytes");
        return;
    }
    if (read_member(c->session, c->session_len, &before))
        leave(w, c->client_id, &before);
    write_member(w, c->client_id, &now);
    tggw_join_group(w, c->client_id, group_of(&now, group));
    send_one(w, c->client_id,
             json_pack("{ss,ss,ss,ss}", "type", "welcome", "id", c->client_id, "name", now.name, "room",
                       now.room));
    send_room(w, &now, c->client_id,
              json_pack("{ss,ss,ss}", "type", "joined", "id", c->client_id, "name", now.name));
    send_list(w, c->client_id, &now);
}

static json_t *said(const char *from, const struct member *m, const char *text, const char *to)
{
    json_t *j = json_pack("{ss,ss,ss,ss,sI,sb}", "type", "say", "from", from, "name", m->name, "text", text,
                          "time", (json_int_t)time(NULL), "private", to != NULL);
    if (to != NULL)
        json_object_set_new(j, "to", json_string(to));
    return j;
}

static void on_say(struct tggw *w, const struct tggw_client *c, const struct member *m, const json_t *message)
{
    const char *text = json_string_value(json_object_get(message, "text"));
    const char *to = json_string_value(json_object_get(message, "to"));
    uint32_t ip, id;
    uint16_t port;
    if (text == NULL || text[0] == '\0' || strlen(text) > TEXT_BYTES_MAX) {
        send_error(w, c->client_id, "say needs a text of 1 to 4000 bytes");
        return;
    }
    if (to == NULL) {
        send_room(w, m, NULL, said(c->client_id, m, text, NULL));
        return;
    }
    if (tggw_client_id_parse(to, &ip, &port, &id) < 0) {
        send_error(w, c->client_id, "nobody has that id");
        return;
    }
    if (strcmp(to, c->client_id) != 0)
        send_one(w, to, said(c->client_id, m, text, to));
    send_one(w, c->client_id, said(c->client_id, m, text, to));
}

static void on_json(struct tggw *w, const struct tggw_client *c, const json_t *message)
{
    const char *type = json_string_value(json_object_get(message, "type"));
    struct member m;
    if (type == NULL) {
        send_error(w, c->client_id, "not understood");
    } else if (strcmp(type, "pong") == 0) {
        return; // the answer to the gateway's heartbeat
    } else if (strcmp(type, "ping") == 0) {
        send_one(w, c->client_id, json_pack("{ss}", "type", "pong"));
    } else if (strcmp(type, "login") == 0) {
        on_login(w, c, message);
    } else if (!read_member(c->session, c->session_len, &m)) {
        send_error(w, c->client_id, "log in first, and wait for the welcome");
    } else if (strcmp(type, "say") == 0) {
        on_say(w, c, &m, message);
    } else if (strcmp(type, "list") == 0) {
        send_list(w, c->client_id, &m);
    } else {
        send_error(w, c->client_id, "not understood");
    }
}

static void on_message(struct tggw *w, const struct tggw_client *c, const void *data, size_t len, void *user)
{
    json_t *message = json_loadb(data, len, 0, NULL);
    on_json(w, c, message);
    json_decref(message);
}

static void on_close(struct tggw *w, const struct tggw_client *c, void *user)
{
    struct member m;
    if (read_member(c->session, c->session_len, &m))
        send_room(w, &m, c->client_id,
                  json_pack("{ss,ss,ss}", "type", "left", "id", c->client_id, "name", m.name));
}

// ---- start
// ------------------------------------------------------------------------------------------------------

static void on_signal(int signo)
{
    tggw_stop(running);
}

// SIG_IGN once the worker is about to be freed: a second signal must not find it gone.
static void handle_signals(void (*handler)(int))
{
    struct sigaction act = {.sa_handler = handler};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
}

static void on_log(struct tggw *w, enum tggw_log_level level, const char *line, void *user)
{
    fprintf(stderr, "tgg-demo-chat: %s\n", line);
}

static int parse(struct tggw_config *config, const char **registers, int argc, char **argv)
{
    static const struct option options[] = {{"register", required_argument, NULL, 'r'},
                                            {"secret", required_argument, NULL, 's'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"id", required_argument, NULL, 'i'},
                                            {NULL, 0, NULL, 0}};
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 'r' && config->register_count < REGISTERS_MAX)
            registers[config->register_count++] = optarg;
        else if (opt == 's')
            config->secret_key = optarg;
        else if (opt == 'n')
            config->name = optarg;
        else if (opt == 'i')
            config->id = (unsigned)strtoul(optarg, NULL, 10);
        else
            return -EINVAL;
    }
    // Arguments are for everybody to see, in ps.
    if (config->secret_key == NULL)
        config->secret_key = getenv("TGG_SECRET_KEY");
    if (config->register_count == 0)
        registers[config->register_count++] = "127.0.0.1:1236";
    return optind < argc ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
    const char *registers[REGISTERS_MAX];
    struct tggw_config config = {.registers = registers,
                                 .name = "tgg-demo-chat",
                                 .cb = {.on_message = on_message, .on_close = on_close, .on_log = on_log}};
    if (parse(&config, registers, argc, argv) < 0) {
        fputs("usage: tgg-demo-chat [--register HOST:PORT]... [--secret KEY] [--name NAME] [--id N]\n"
              "  without --secret the key is that of the environment: TGG_SECRET_KEY\n",
              stderr);
        return 2;
    }
    int r = tggw_new(&config, &running);
    if (r == 0) {
        handle_signals(on_signal);
        r = tggw_run(running);
        handle_signals(SIG_IGN);
        tggw_free(running);
    }
    if (r < 0)
        fprintf(stderr, "tgg-demo-chat: %s\n", strerror(-r));
    return r < 0;
}
