// SPDX-License-Identifier: MIT
/* What a shard leaves behind for whoever asks why it died: its last commands, written all the time, and the
 * signal and the stack, written by the handler of the signal. In node.shm (node_shm.h), read by the
 * supervisor once the shard is dead. */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define CRASH_FRAMES_MAX    64
#define CRASH_COMMANDS      64 /* a power of two */
#define CRASH_ASSERTION_MAX 256

/* A command of a worker or GatewayClient, as it began to be executed. */
struct crash_command {
    uint64_t loop_ns;       /* on the shard's loop clock */
    uint32_t link;          /* number of the link; of another shard's: stand-in */
    uint32_t connection_id; /* as the packet says */
    uint32_t len;           /* of the packet */
    uint8_t cmd;
    uint8_t shard; /* whose link it is */
    uint16_t reserved;
};

struct shard_crash {
    int32_t signal;   /* 0: none since its start. Written once what stands before frames is there */
    int32_t code;     /* si_code */
    uint64_t address; /* si_addr; with a code of 0 or less: the process that sent it (si_pid) */
    int64_t unix_ms;
    int32_t pid;
    uint32_t n_frames; /* written last: a stack that is broken too does not take the rest with it */
    uint64_t frames[CRASH_FRAMES_MAX]; /* return addresses */
    uint64_t base;       /* where the program is loaded: frames - base is what addr2line wants */
    uint64_t n_commands; /* ever; the last of them stands in commands[(n_commands - 1) % 64] */
    struct crash_command commands[CRASH_COMMANDS];
    uint64_t loop_ms;                    /* of the signal, on the shard's loop clock */
    char assertion[CRASH_ASSERTION_MAX]; /* what failed (base/assert.h), NUL-terminated; "": none */
};

static_assert(offsetof(struct shard_crash, frames) == 32, "crash layout");
static_assert(offsetof(struct shard_crash, base) == 544, "crash layout");
static_assert(sizeof(struct crash_command) == 24, "crash layout");
static_assert(offsetof(struct shard_crash, commands) == 560, "crash layout");
static_assert(offsetof(struct shard_crash, assertion) == 2104, "crash layout");

/* One store after the other, no barrier: the reader comes after the writer's death. */
static inline void shard_crash_command(struct shard_crash *c, const struct crash_command *command)
{
    c->commands[c->n_commands % CRASH_COMMANDS] = *command;
    c->n_commands++;
}
