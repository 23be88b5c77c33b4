/* fdpass.h - bytes together with descriptors over a unix socket. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MR_FDS_MAX 200u /* in one message; the kernel takes 253 */

/** One message with `n` descriptors, which stay ours. As sendmsg(2), but never interrupted. */
ssize_t mr_send_fds(int sock, const void *bytes, size_t len, const int *fds, uint32_t n);

/**
 * One message; *n is how many descriptors there is room for, then how many came (close-on-exec,
 * owned by the caller). Any more are closed. As recvmsg(2), but never interrupted; *n 0 on failure.
 */
ssize_t mr_recv_fds(int sock, void *bytes, size_t len, int *fds, uint32_t *n);
