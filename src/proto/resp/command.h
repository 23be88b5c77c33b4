/* command.h - the table of Redis commands. */
#pragma once

#include "core/slice.h"

#include <stdint.h>

enum mr_resp_handling {
    MR_RESP_ROUTE,
    MR_RESP_SPLIT_MGET,
    MR_RESP_SPLIT_MSET,
    MR_RESP_SPLIT_SUM,
    MR_RESP_LOCAL,
    MR_RESP_ANYWHERE,
    MR_RESP_BLOCK,
    MR_RESP_WATCH,
    MR_RESP_UNWATCH,
    MR_RESP_BEGIN,
    MR_RESP_COMMIT,
    MR_RESP_DISCARD,
    MR_RESP_REFUSE_ADMIN,
    MR_RESP_REFUSE_PUBSUB,
    MR_RESP_REFUSE_WHOLE,
};

enum mr_resp_keys {
    MR_RESP_NO_KEYS,
    MR_RESP_KEYS,        /* a = first, b = last, c = step */
    MR_RESP_NUM_KEYS,    /* a = argument with the count, b = one more key or 0 */
    MR_RESP_STORE_KEYS,  /* a = where the options start */
    MR_RESP_SORT_KEYS,   /* argument 1, and behind STORE */
    MR_RESP_STREAM_KEYS, /* behind STREAMS */
    MR_RESP_COPY_KEYS,   /* arguments 1 and 2; DB is refused */
    MR_RESP_USAGE_KEYS,  /* argument 2, behind USAGE; all else is refused */
};

/** What else a command is, see commands.def: several may hold. */
enum mr_resp_trait {
    MR_RESP_MEITU = 1,
    MR_RESP_OPEN = 2,
    MR_RESP_QUEUED = 4,
    MR_RESP_ENDS = 8,
};

struct mr_resp_command {
    const char *name; /* lower case */
    int16_t arity;    /* as Redis counts; negative: at least */
    uint8_t class;    /* enum mr_class */
    uint8_t traits;   /* bits of enum mr_resp_trait */
    uint8_t handling; /* enum mr_resp_handling */
    uint8_t keys;     /* enum mr_resp_keys */
    int8_t a, b, c;
};

/** The row of a name in any letter case; NULL for an unknown one. */
const struct mr_resp_command *mr_resp_command(struct mr_slice name);

/** All rows, in order of name. */
extern const struct mr_resp_command MR_RESP_COMMANDS[];
extern const uint32_t MR_RESP_COMMAND_COUNT;
