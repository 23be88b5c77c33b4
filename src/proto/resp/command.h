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
    MR_RESP_WHOLE,
    MR_RESP_BLOCK,
    MR_RESP_CONFIRM,
    MR_RESP_PUBLISH,
    MR_RESP_SUBSCRIBE,
    MR_RESP_UNSUBSCRIBE,
    MR_RESP_WATCH,
    MR_RESP_UNWATCH,
    MR_RESP_BEGIN,
    MR_RESP_COMMIT,
    MR_RESP_DISCARD,
    MR_RESP_FACADE,
    MR_RESP_REFUSE_ADMIN,
    MR_RESP_REFUSE_WHOLE,
};

enum mr_resp_keys {
    MR_RESP_NO_KEYS,
    MR_RESP_KEYS,        /* a = first, b = last, c = step */
    MR_RESP_NUM_KEYS,    /* a = argument with the count, b = another key or 0 */
    MR_RESP_STORE_KEYS,  /* a = first option */
    MR_RESP_SORT_KEYS,   /* argument 1, and the one after STORE */
    MR_RESP_STREAM_KEYS, /* after STREAMS */
    MR_RESP_COPY_KEYS,   /* arguments 1 and 2; a database after DB */
    MR_RESP_MOVE_KEYS,   /* argument 1; a database is argument 2 */
    MR_RESP_USAGE_KEYS,  /* argument 2 after USAGE; subcommands about a whole server are refused */
};

/** Further properties of a command, see commands.def. */
enum mr_resp_trait {
    MR_RESP_MEITU = 1,
    MR_RESP_OPEN = 2,
    MR_RESP_QUEUED = 4,
    MR_RESP_ENDS = 8,
    MR_RESP_LISTENS = 16,
};

struct mr_resp_command {
    const char *name; /* lower case */
    int16_t arity;    /* as Redis counts it; negative: at least that many */
    uint8_t class;    /* enum mr_class */
    uint8_t traits;   /* bits of enum mr_resp_trait */
    uint8_t handling; /* enum mr_resp_handling */
    uint8_t keys;     /* enum mr_resp_keys */
    int8_t a, b, c;
};

#define MR_RESP_NAME_BYTES 23u /* longest name */

/** Looks a name up, in any case; NULL if it is unknown. */
const struct mr_resp_command *mr_resp_command(struct mr_slice name);

/** Looks a name up in an unsorted array. */
const struct mr_resp_command *mr_resp_command_among(const struct mr_resp_command *rows, uint32_t n,
                                                    struct mr_slice name);

/** The table, sorted by name. */
extern const struct mr_resp_command MR_RESP_COMMANDS[];
extern const uint32_t MR_RESP_COMMAND_COUNT;
