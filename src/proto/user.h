/* user.h - users of a pool: who may log in, and what they may do. */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define MR_PASSWORD_BYTES 32u /* size of a password's SHA-256 */
#define MR_PERMIT_WORDS   12u

struct mr_user {
    char *name;
    uint8_t (*passwords)[MR_PASSWORD_BYTES]; /* their hashes */
    uint32_t n_passwords;
    uint64_t permits[MR_PERMIT_WORDS]; /* bits of what it may run, see mr_proto.permit */
    char **prefixes;                   /* its keys must begin with one of these; none: any key */
    uint32_t n_prefixes;
};

/** The users of one pool. */
struct mr_users {
    const struct mr_user **at; /* the users are borrowed */
    uint32_t n;
};

void mr_user_hash(struct mr_slice password, uint8_t hash[MR_PASSWORD_BYTES]);

/** The user of this name, or NULL. */
const struct mr_user *mr_user_find(const struct mr_users *users, struct mr_slice name);

/**
 * Like mr_user_find, but requires the user's password. Takes the same time for any name and
 * password.
 */
const struct mr_user *mr_user_log_in(const struct mr_users *users, struct mr_slice name,
                                     struct mr_slice password);

bool mr_user_may_use_key(const struct mr_user *user, struct mr_slice key);
