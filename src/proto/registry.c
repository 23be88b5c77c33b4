/* registry.c - the protocols that are built in. */
#include "proto/memcache/memcache.h"
#include "proto/proto.h"
#include "proto/resp/resp.h"
#include "proto/tcp/tcp.h"

#include <stdlib.h>

static const struct mr_proto *const PROTOCOLS[] = {&MR_PROTO_RESP, &MR_PROTO_MEMCACHE,
                                                   &MR_PROTO_TCP};

const char *mr_role_name(enum mr_role role)
{
    static const char *const NAMES[] = {"unknown", "master", "replica"};

    return role < MR_COUNT(NAMES) ? NAMES[role] : NAMES[0];
}

const struct mr_proto *mr_proto_by_name(struct mr_slice name)
{
    for (size_t i = 0; i < MR_COUNT(PROTOCOLS); i++)
        if (mr_slice_eq(name, mr_slice_of(PROTOCOLS[i]->name)))
            return PROTOCOLS[i];
    return NULL;
}

uint32_t mr_proto_number(const struct mr_proto *proto)
{
    uint32_t i = 0;

    while (PROTOCOLS[i] != proto)
        i++;
    return i + 1;
}

void mr_session_set_labels(struct mr_session *session, struct mr_slice labels)
{
    free(session->labels);
    session->labels = NULL;
    session->label_bytes = (uint16_t)labels.len;
    if (labels.len == 0)
        return;
    session->labels = malloc(labels.len + 1);
    MR_CHECK(session->labels != NULL);
    memcpy(session->labels, labels.at, labels.len);
    session->labels[labels.len] = '\0'; /* earlier versions send the name without it */
}
