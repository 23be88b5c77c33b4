/* hash.c - the twelve key hashes of twemproxy. */
#include "route/hash.h"

#include "route/md5.h"

/* Widens a byte as x86's plain char does: sign-extended. */
static uint32_t sx32(char c)
{
    return (uint32_t)(int32_t)(int8_t)c;
}

static uint64_t sx64(char c)
{
    return (uint64_t)(int64_t)(int8_t)c;
}

static uint32_t ux(char c)
{
    return (uint8_t)c;
}

static uint32_t load16(const char *p)
{
    return ux(p[0]) | ux(p[1]) << 8;
}

static uint32_t load32(const char *p)
{
    return load16(p) | load16(p + 2) << 16;
}

static uint32_t rotl(uint32_t x, unsigned k)
{
    return x << k | x >> (32 - k);
}

static uint32_t hash_one_at_a_time(const char *key, size_t len)
{
    uint32_t h = 0;

    for (size_t i = 0; i < len; i++) {
        h += sx32(key[i]);
        h += h << 10;
        h ^= h >> 6;
    }
    h += h << 3;
    h ^= h >> 11;
    h += h << 15;
    return h;
}

static uint32_t hash_md5(const char *key, size_t len)
{
    uint8_t d[16];

    mr_md5(key, len, d);
    return (uint32_t)d[0] | (uint32_t)d[1] << 8 | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 24;
}

/* The accumulator keeps its stale high bits, unlike a true 16-bit CRC. */
static const uint32_t *crc16_table(void)
{
    static uint32_t table[256]; /* built once, constant afterwards */

    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t t = i << 8;
            for (int bit = 0; bit < 8; bit++)
                t = t & 0x8000 ? (t << 1 ^ 0x1021) & 0xffff : t << 1;
            table[i] = t;
        }
    return table;
}

static uint32_t hash_crc16(const char *key, size_t len)
{
    const uint32_t *table = crc16_table();
    uint32_t crc = 0;

    for (size_t i = 0; i < len; i++)
        crc = crc << 8 ^ table[((crc >> 8) ^ ux(key[i])) & 0xff];
    return crc;
}

static const uint32_t *crc32_table(void)
{
    static uint32_t table[256]; /* built once, constant afterwards */

    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int bit = 0; bit < 8; bit++)
                c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
            table[i] = c;
        }
    return table;
}

static uint32_t hash_crc32a(const char *key, size_t len)
{
    const uint32_t *table = crc32_table();
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ table[(crc ^ ux(key[i])) & 0xff];
    return ~crc;
}

static uint32_t hash_crc32(const char *key, size_t len)
{
    return hash_crc32a(key, len) >> 16 & 0x7fff;
}

static uint32_t hash_fnv1_64(const char *key, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++) {
        h *= UINT64_C(0x100000001b3);
        h ^= sx64(key[i]);
    }
    return (uint32_t)h;
}

static uint32_t hash_fnv1a_64(const char *key, size_t len)
{
    uint32_t h = 0x84222325;

    for (size_t i = 0; i < len; i++) {
        h ^= sx32(key[i]);
        h *= 0x1b3;
    }
    return h;
}

static uint32_t hash_fnv1_32(const char *key, size_t len)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < len; i++) {
        h *= 16777619u;
        h ^= sx32(key[i]);
    }
    return h;
}

static uint32_t hash_fnv1a_32(const char *key, size_t len)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < len; i++) {
        h ^= sx32(key[i]);
        h *= 16777619u;
    }
    return h;
}

static uint32_t hsieh_tail(uint32_t h, const char *p, size_t left)
{
    if (left == 3) {
        h += load16(p);
        h ^= h << 16;
        h ^= sx32(p[2]) << 18;
        h += h >> 11;
    } else if (left == 2) {
        h += load16(p);
        h ^= h << 11;
        h += h >> 17;
    } else if (left == 1) {
        h += ux(p[0]);
        h ^= h << 10;
        h += h >> 1;
    }
    return h;
}

static uint32_t hash_hsieh(const char *key, size_t len)
{
    uint32_t h = 0;

    for (; len >= 4; key += 4, len -= 4) {
        h += load16(key);
        h = h << 16 ^ (load16(key + 2) << 11 ^ h);
        h += h >> 11;
    }
    h = hsieh_tail(h, key, len);
    h ^= h << 3;
    h += h >> 5;
    h ^= h << 4;
    h += h >> 17;
    h ^= h << 25;
    h += h >> 6;
    return h;
}

static uint32_t hash_murmur(const char *key, size_t len)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = 0xdeadbeefu * (uint32_t)len ^ (uint32_t)len;

    for (; len >= 4; key += 4, len -= 4) {
        uint32_t k = load32(key) * m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (len >= 3)
        h ^= ux(key[2]) << 16;
    if (len >= 2)
        h ^= ux(key[1]) << 8;
    if (len >= 1)
        h = (h ^ ux(key[0])) * m;
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

static void jenkins_mix(uint32_t v[3])
{
    static const unsigned TURNS[6] = {4, 6, 8, 16, 19, 4};

    for (unsigned i = 0; i < 6; i++) { /* (a,b,c), then (b,c,a), then (c,a,b), twice */
        uint32_t *a = &v[i % 3], *b = &v[(i + 1) % 3], *c = &v[(i + 2) % 3];
        *a -= *c;
        *a ^= rotl(*c, TURNS[i]);
        *c += *b;
    }
}

static void jenkins_final(uint32_t v[3])
{
    static const unsigned TURNS[7] = {14, 11, 25, 16, 4, 14, 24};

    for (unsigned i = 0; i < 7; i++) { /* c from b, a from c, b from a, and so on */
        uint32_t *to = &v[(i + 2) % 3], *from = &v[(i + 1) % 3];
        *to ^= *from;
        *to -= rotl(*from, TURNS[i]);
    }
}

static uint32_t hash_jenkins(const char *key, size_t len)
{
    const uint32_t init = 0xdeadbeefu + (uint32_t)len + 13u;
    uint32_t v[3] = {init, init, init};

    for (; len > 12; key += 12, len -= 12) {
        for (size_t i = 0; i < 3; i++)
            v[i] += load32(key + 4 * i);
        jenkins_mix(v);
    }
    if (len == 0)
        return v[2];
    for (size_t i = 0; i < len; i++)
        v[i / 4] += ux(key[i]) << 8 * (i % 4);
    jenkins_final(v);
    return v[2];
}

static const struct {
    const char *name;
    mr_hash_fn fn;
} HASHES[] = {
#define X(name) {#name, hash_##name},
#include "route/hashes.def"
};

const char *mr_hash_name(enum mr_hash hash)
{
    return HASHES[hash].name;
}

mr_hash_fn mr_hash_function(enum mr_hash hash)
{
    return HASHES[hash].fn;
}

bool mr_hash_by_name(struct mr_slice name, enum mr_hash *out)
{
    for (int i = 0; i < MR_HASH_COUNT; i++)
        if (mr_slice_eq(name, mr_slice_of(HASHES[i].name))) {
            *out = (enum mr_hash)i;
            return true;
        }
    return false;
}
