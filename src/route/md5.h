/*
 * md5.h - MD5 (RFC 1321) for placing keys and ring points, not for security.
 *
 * Our own, because a hardened libcrypto may refuse MD5, and key placement must not depend on system
 * policy.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

void mr_md5(const char *bytes, size_t len, uint8_t digest[16]);
