/* channel.c - typed, versioned messages between the master and its children. */
#include "proc/channel.h"

#include "net/fdpass.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES offsetof(struct mr_message, body)

static const struct {
    const char *name;
    size_t len;
} TYPES[] = {
#define X(name, payload) {#name, sizeof(payload)},
#include "proc/messages.def"
};

enum mr_result mr_channel_open(int ends[2], struct mr_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return mr_fail_sys(err, "socketpair for a channel");
    return MR_OK;
}

void mr_channel_close(int fd)
{
    (void)close(fd);
}

size_t mr_channel_queued(int fd)
{
    int n = 0;

    return ioctl(fd, SIOCOUTQ, &n) < 0 || n < 0 ? 0 : (size_t)n;
}

const char *mr_message_name(enum mr_message_type type)
{
    return TYPES[type].name;
}

enum mr_result mr_channel_send(int fd, struct mr_message *msg, int pass_fd, struct mr_error *err)
{
    const size_t len = TYPES[msg->type].len;

    msg->version = MR_CHANNEL_VERSION;
    msg->len = (uint32_t)len;
    if (mr_send_fds(fd, msg, HEAD_BYTES + len, &pass_fd, pass_fd >= 0) < 0)
        return mr_fail_sys(err, "send %s on a channel", TYPES[msg->type].name);
    return MR_OK;
}

void mr_channel_tell(int fd, enum mr_message_type type)
{
    struct mr_message msg = {.type = (uint16_t)type};
    struct mr_error err;
    const enum mr_result rc = mr_channel_send(fd, &msg, -1, &err);

    (void)rc;
}

enum mr_result mr_channel_recv(int fd, struct mr_message *msg, struct mr_error *err)
{
    int passed = -1;
    uint32_t n_fds = 1;
    const ssize_t n = mr_recv_fds(fd, msg, sizeof(*msg), &passed, &n_fds);

    if (n < 0 && errno == EAGAIN)
        return MR_AGAIN;
    if (n < 0)
        return mr_fail_sys(err, "receive on a channel");
    if (n == 0)
        return mr_fail(err, MR_ESYS, "the other side of the channel is gone");
    if ((size_t)n < HEAD_BYTES || msg->version != MR_CHANNEL_VERSION ||
        msg->type >= MR_MESSAGE_TYPES || msg->len != TYPES[msg->type].len ||
        (size_t)n != HEAD_BYTES + msg->len) {
        if (n_fds > 0)
            (void)close(passed);
        return mr_fail(err, MR_EPROTO, "invalid channel message of %zd bytes", n);
    }
    msg->fd = n_fds > 0 ? passed : -1;
    return MR_OK;
}
