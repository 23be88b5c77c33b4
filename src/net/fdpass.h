/* fdpass.h - sends bytes and descriptors over a unix socket. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MR_FDS_MAX 200u /* per message; the kernel's limit is 253 */

/**
 * Sends one message with `n` descriptors, which stay open here. Like sendmsg(2), but retries EINTR.
 */
ssize_t mr_send_fds(int sock, const void *bytes, size_t len, const int *fds, uint32_t n);

/**
 * Receives one message. *n is the room for descriptors on entry and their number on return; they
 * are close-on-exec and owned by the caller, any beyond that are closed. Like recvmsg(2), but
 * retries EINTR; *n is 0 on failure.
 */
ssize_t mr_recv_fds(int sock, void *bytes, size_t len, int *fds, uint32_t *n);
