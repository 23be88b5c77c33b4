/* schema.c - the table of configuration keys. */
#include "config/schema.h"

#include "config/config.h"

#include <string.h>

#define OFFSET_GLOBAL(field) offsetof(struct mr_config, field)
#define OFFSET_POOL(field)   offsetof(struct mr_pool_config, field)

const struct mr_config_key MR_CONFIG_KEYS[] = {
#define X(scope, key, type, field, default_text, min, max, help)                                   \
    {MR_KEY_##scope, MR_TYPE_##type, #key, default_text, help, OFFSET_##scope(field), min, max},
#include "config/schema.def"
};
const size_t MR_CONFIG_KEY_COUNT = MR_COUNT(MR_CONFIG_KEYS);

const struct mr_config_key *mr_config_find_key(enum mr_config_scope scope, const char *name)
{
    for (size_t i = 0; i < MR_CONFIG_KEY_COUNT; i++)
        if (MR_CONFIG_KEYS[i].scope == scope && strcmp(MR_CONFIG_KEYS[i].name, name) == 0)
            return &MR_CONFIG_KEYS[i];
    return NULL;
}

/* Edit distance (insert, delete, replace) of two short words. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[64];
    const size_t n = strlen(b);

    if (n >= MR_COUNT(row))
        return UINT32_MAX;
    for (unsigned j = 0; j <= n; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

const struct mr_config_key *mr_config_similar_key(enum mr_config_scope scope, const char *name)
{
    const struct mr_config_key *best = NULL;
    unsigned best_distance = 4; /* more edits make a useless suggestion */

    for (size_t i = 0; i < MR_CONFIG_KEY_COUNT; i++) {
        const struct mr_config_key *k = &MR_CONFIG_KEYS[i];
        const unsigned d = k->scope == scope ? distance(name, k->name) : UINT32_MAX;
        if (d < best_distance) {
            best = k;
            best_distance = d;
        }
    }
    return best;
}
