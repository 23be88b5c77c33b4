/* user.c - passwords and key prefixes of users. */
#include "proto/user.h"

#include <nettle/memops.h>
#include <nettle/sha2.h>

void mr_user_hash(struct mr_slice password, uint8_t hash[MR_PASSWORD_BYTES])
{
    struct sha256_ctx sha;

    sha256_init(&sha);
    sha256_update(&sha, password.len, (const uint8_t *)password.at);
    sha256_digest(&sha, MR_PASSWORD_BYTES, hash);
}

const struct mr_user *mr_user_find(const struct mr_users *users, struct mr_slice name)
{
    for (uint32_t i = 0; i < users->n; i++)
        if (mr_slice_eq(name, mr_slice_of(users->at[i]->name)))
            return users->at[i];
    return NULL;
}

const struct mr_user *mr_user_log_in(const struct mr_users *users, struct mr_slice name,
                                     struct mr_slice password)
{
    const struct mr_user *found = NULL;
    uint8_t hash[MR_PASSWORD_BYTES];

    mr_user_hash(password, hash);
    for (uint32_t i = 0; i < users->n; i++) {
        const struct mr_user *user = users->at[i];
        const bool named = mr_slice_eq(name, mr_slice_of(user->name));
        for (uint32_t k = 0; k < user->n_passwords; k++)
            if (memeql_sec(hash, user->passwords[k], sizeof(hash)) & named)
                found = user;
    }
    return found;
}

bool mr_user_may_use_key(const struct mr_user *user, struct mr_slice key)
{
    for (uint32_t i = 0; i < user->n_prefixes; i++) {
        const size_t len = strlen(user->prefixes[i]);
        if (key.len >= len && memcmp(key.at, user->prefixes[i], len) == 0)
            return true;
    }
    return user->n_prefixes == 0;
}
