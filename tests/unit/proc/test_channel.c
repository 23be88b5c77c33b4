/* test_channel.c - messages and descriptors over a channel, and what is rejected. */
#include "proc/channel.h"
#include "unit/test.h"

#include <sys/socket.h>
#include <unistd.h>

static void messages_and_descriptors(void **state)
{
    struct mr_message msg = {.type = MR_MSG_LOG_LEVEL_TYPE}, got;
    struct mr_error err;
    int ends[2], file[2];
    char byte = 'x';

    (void)state;
    assert_int_equal(mr_channel_open(ends, &err), MR_OK);
    assert_int_equal(mr_channel_recv(ends[1], &got, &err), MR_AGAIN);
    msg.body.LOG_LEVEL.level = 7;
    assert_int_equal(pipe(file), 0);
    assert_int_equal(mr_channel_send(ends[0], &msg, file[1], &err), MR_OK);
    mr_channel_tell(ends[0], MR_MSG_READY_TYPE);
    assert_int_equal(mr_channel_recv(ends[1], &got, &err), MR_OK);
    assert_int_equal(got.type, MR_MSG_LOG_LEVEL_TYPE);
    assert_int_equal(got.body.LOG_LEVEL.level, 7);
    assert_int_equal(write(got.fd, &byte, 1), 1);
    assert_int_equal(read(file[0], &byte, 1), 1);
    close(got.fd);
    close(file[0]);
    close(file[1]);
    assert_int_equal(mr_channel_recv(ends[1], &got, &err), MR_OK);
    assert_int_equal(got.type, MR_MSG_READY_TYPE);
    assert_int_equal(got.fd, -1);
    close(ends[0]);
    assert_int_equal(mr_channel_recv(ends[1], &got, &err), MR_ESYS);
    close(ends[1]);
}

static void refuses_what_it_does_not_know(void **state)
{
    struct mr_message msg, got;
    struct mr_error err;
    int ends[2];

    (void)state;
    assert_int_equal(mr_channel_open(ends, &err), MR_OK);
    for (int i = 0; i < 4; i++) {
        size_t len = offsetof(struct mr_message, body) + sizeof(struct mr_level_payload);
        memset(&msg, 0, sizeof(msg));
        msg.version = MR_CHANNEL_VERSION + (i == 0);
        msg.type = (uint16_t)(i == 1 ? MR_MESSAGE_TYPES : MR_MSG_LOG_LEVEL_TYPE);
        msg.len = sizeof(struct mr_level_payload) + (i == 2);
        assert_int_equal(send(ends[0], &msg, i == 3 ? len - 1 : len, 0), i == 3 ? len - 1 : len);
        assert_int_equal(mr_channel_recv(ends[1], &got, &err), MR_EPROTO);
    }
    close(ends[0]);
    close(ends[1]);
}

RUN(T(messages_and_descriptors), T(refuses_what_it_does_not_know))
