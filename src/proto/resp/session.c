/* session.c - lanes and labels of a client. */
#include "proto/resp/local.h"

#include <stdlib.h>

#define LABEL_BYTES 255u

/* ---- lanes: the version and the database ---- */

uint32_t mr_resp_lane_db(const struct mr_proto_options *options, uint8_t lane)
{
    const uint32_t place = lane / MR_RESP_VERSIONS;

    return place == 0 ? options->db : place - 1;
}

bool mr_resp_lane_of(const struct mr_proto_options *options, enum mr_resp_version version,
                     uint64_t db, uint8_t *lane)
{
    uint64_t place = 0;

    if (db != options->db) {
        if (db >= options->databases)
            return false;
        place = db + 1;
    }
    *lane = (uint8_t)(place * MR_RESP_VERSIONS + version);
    return true;
}

/* ---- labels: one behind the other, each with its NUL; missing ones are empty ---- */

const char *mr_resp_label(const struct mr_session *session, enum mr_resp_label which)
{
    const char *at = session->labels, *end = at + session->label_bytes;

    for (int i = 0; i < (int)which && at < end; i++)
        at += strnlen(at, (size_t)(end - at)) + 1;
    return at < end ? at : "";
}

bool mr_resp_is_label(struct mr_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] < '!' || text.at[i] > '~')
            return false;
    return text.len <= LABEL_BYTES;
}

void mr_resp_set_label(struct mr_session *session, enum mr_resp_label which, struct mr_slice text)
{
    char all[MR_RESP_LABELS * (LABEL_BYTES + 1)], *end = all;

    MR_CHECK(mr_resp_is_label(text));
    for (int i = 0; i < MR_RESP_LABELS; i++) {
        const struct mr_slice label =
            i == (int)which ? text : mr_slice_of(mr_resp_label(session, (enum mr_resp_label)i));
        if (label.len > 0)
            memcpy(end, label.at, label.len);
        end += label.len;
        *end++ = '\0';
    }
    mr_session_set_labels(session, (struct mr_slice){all, (size_t)(end - all)});
}

void mr_resp_reset_session(const struct mr_proto_options *options, struct mr_session *session)
{
    free(session->labels);
    *session = (struct mr_session){.id = session->id, .authed = mr_proto_is_open(options)};
}
