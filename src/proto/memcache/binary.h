/*
 * binary.h - packets of the binary protocol,
 * https://github.com/memcached/memcached/wiki/BinaryProtocolRevamped
 */
#pragma once

#include "core/buf.h"
#include "core/slice.h"

#include <stdint.h>

#define MR_MC_HEADER 24u /* bytes */

#define MR_MC_REQUEST_MAGIC 0x80u
#define MR_MC_REPLY_MAGIC   0x81u

enum mr_mc_opcode {
    MR_MC_GET = 0x00,
    MR_MC_SET = 0x01,
    MR_MC_ADD = 0x02,
    MR_MC_REPLACE = 0x03,
    MR_MC_DELETE = 0x04,
    MR_MC_INCR = 0x05,
    MR_MC_DECR = 0x06,
    MR_MC_QUIT = 0x07,
    MR_MC_FLUSH = 0x08,
    MR_MC_GETQ = 0x09,
    MR_MC_NOOP = 0x0a,
    MR_MC_VERSION = 0x0b,
    MR_MC_GETK = 0x0c,
    MR_MC_GETKQ = 0x0d,
    MR_MC_APPEND = 0x0e,
    MR_MC_PREPEND = 0x0f,
    MR_MC_STAT = 0x10,
    MR_MC_SETQ = 0x11,
    MR_MC_ADDQ = 0x12,
    MR_MC_REPLACEQ = 0x13,
    MR_MC_DELETEQ = 0x14,
    MR_MC_INCRQ = 0x15,
    MR_MC_DECRQ = 0x16,
    MR_MC_QUITQ = 0x17,
    MR_MC_FLUSHQ = 0x18,
    MR_MC_APPENDQ = 0x19,
    MR_MC_PREPENDQ = 0x1a,
    MR_MC_VERBOSITY = 0x1b,
    MR_MC_TOUCH = 0x1c,
    MR_MC_GAT = 0x1d,
    MR_MC_GATQ = 0x1e,
    MR_MC_GATK = 0x23,
    MR_MC_GATKQ = 0x24,
};

enum mr_mc_status {
    MR_MC_OK = 0x00,
    MR_MC_NOT_FOUND = 0x01,
    MR_MC_TOO_LARGE = 0x03,
    MR_MC_INVALID = 0x04,
    MR_MC_AUTH_ERROR = 0x20,
    MR_MC_UNKNOWN = 0x81,
    MR_MC_NO_MEMORY = 0x82,
    MR_MC_FAILED = 0x86, /* temporary failure */
};

/** The header fields we use; opaque in wire byte order. */
struct mr_mc_header {
    uint8_t magic;
    uint8_t opcode;
    uint16_t key_len;
    uint8_t extras_len;
    uint16_t status; /* replies only */
    uint32_t body_len;
    uint32_t opaque;
};

/** Reads the header from MR_MC_HEADER bytes. */
struct mr_mc_header mr_mc_read_header(const char *at);

/** True if another packet of the same reply follows, as in statistics. */
bool mr_mc_goes_on(const struct mr_mc_header *h);

/** Appends a reply packet. */
void mr_mc_put_packet(struct mr_buf *out, struct mr_slab *slab, uint8_t opcode, uint16_t status,
                      uint32_t opaque, struct mr_slice key, struct mr_slice value);

/** True for retrievals. */
bool mr_mc_finds(uint8_t opcode);

/** The variant of a command that is not quiet. */
uint8_t mr_mc_aloud(uint8_t opcode);
