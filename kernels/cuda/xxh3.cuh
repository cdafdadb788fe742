// XXH3-128 with seed 0 and the default secret: constants, and inputs of at most 240 bytes.
//
// Equals `chipmink_digest::digest` without its algorithm byte. What is described at https://xxhash.com as XXH3 is done here
// in the order of that description; the names of its constants are kept.

#define PRIME32_1 0x9E3779B1ull
#define PRIME32_2 0x85EBCA77ull
#define PRIME32_3 0xC2B2AE3Dull
#define PRIME64_1 0x9E3779B185EBCA87ull
#define PRIME64_2 0xC2B2AE3D27D4EB4Full
#define PRIME64_3 0x165667B19E3779F9ull
#define PRIME64_4 0x85EBCA77C2B2AE63ull
#define PRIME64_5 0x27D4EB2F165667C5ull
#define PRIME_MX1 0x165667919E3779F9ull
#define PRIME_MX2 0x9FB21C651E98DF25ull

#define STRIPE_LEN 64u
#define BLOCK_LEN 1024u
#define SHORT_LEN_MAX 240u

// The default secret, 192 bytes as little-endian words.
static __device__ const u64 SECRET[24] = {
    0xbe4ba423396cfeb8ull, 0x1cad21f72c81017cull, 0xdb979083e96dd4deull, 0x1f67b3b7a4a44072ull,
    0x78e5c0cc4ee679cbull, 0x2172ffcc7dd05a82ull, 0x8e2443f7744608b8ull, 0x4c263a81e69035e0ull,
    0xcb00c391bb52283cull, 0xa32e531b8b65d088ull, 0x4ef90da297486471ull, 0xd8acdea946ef1938ull,
    0x3f349ce33f76faa8ull, 0x1d4f0bc7c7bbdcf9ull, 0x3159b4cd4be0518aull, 0x647378d9c97e9fc8ull,
    0xc3ebd33483acc5eaull, 0xeb6313faffa081c5ull, 0x49daf0b751dd0d17ull, 0x9e68d429265516d3ull,
    0xfca1477d58be162bull, 0xce31d07ad1b8f88full, 0x280416958f3acb45ull, 0x7e404bbbcafbd7afull};

// Eight bytes of the secret from any place.
DEVICE u64 secret(u32 byte_offset) {
    const u32 word = byte_offset >> 3;
    const u32 bits = (byte_offset & 7u) * 8u;
    return bits == 0 ? SECRET[word] : (SECRET[word] >> bits) | (SECRET[word + 1] << (64u - bits));
}

DEVICE u64 fold(u64 a, u64 b) { return (a * b) ^ __umul64hi(a, b); }

DEVICE u64 avalanche(u64 hash) {
    hash ^= hash >> 37;
    hash *= PRIME_MX1;
    return hash ^ (hash >> 32);
}

DEVICE u64 avalanche_xxh64(u64 hash) {
    hash ^= hash >> 33;
    hash *= PRIME64_2;
    hash ^= hash >> 29;
    hash *= PRIME64_3;
    return hash ^ (hash >> 32);
}

DEVICE u32 swap_bytes(u32 x) { return x >> 24 | (x >> 8 & 0xff00u) | (x << 8 & 0xff0000u) | x << 24; }

DEVICE u64 swap_bytes(u64 x) { return (u64)swap_bytes((u32)x) << 32 | swap_bytes((u32)(x >> 32)); }

DEVICE u32 read32(const u8* bytes) {
    return bytes[0] | (u32)bytes[1] << 8 | (u32)bytes[2] << 16 | (u32)bytes[3] << 24;
}

DEVICE u64 read64(const u8* bytes) { return read32(bytes) | (u64)read32(bytes + 4) << 32; }

DEVICE u64 mix16(const u8* bytes, u32 at) {
    return fold(read64(bytes) ^ secret(at), read64(bytes + 8) ^ secret(at + 8));
}

DEVICE void mix32(Digest& sum, const u8* a, const u8* b, u32 at) {
    sum.low += mix16(a, at);
    sum.low ^= read64(b) + read64(b + 8);
    sum.high += mix16(b, at + 16);
    sum.high ^= read64(a) + read64(a + 8);
}

DEVICE Digest digest_1_to_3(const u8* bytes, u32 len) {
    const u32 low = (u32)bytes[0] << 16 | (u32)bytes[len >> 1] << 24 | bytes[len - 1] | len << 8;
    const u32 swapped = swap_bytes(low);
    const u32 high = swapped << 13 | swapped >> 19;
    Digest digest;
    digest.low = avalanche_xxh64((u64)low ^ ((u32)SECRET[0] ^ (u32)(SECRET[0] >> 32)));
    digest.high = avalanche_xxh64((u64)high ^ ((u32)SECRET[1] ^ (u32)(SECRET[1] >> 32)));
    return digest;
}

DEVICE Digest digest_4_to_8(const u8* bytes, u32 len) {
    const u64 input = (u64)read32(bytes) | (u64)read32(bytes + len - 4) << 32;
    const u64 keyed = input ^ (secret(16) ^ secret(24));
    const u64 multiplier = PRIME64_1 + ((u64)len << 2);
    u64 low = keyed * multiplier;
    const u64 high = __umul64hi(keyed, multiplier) + (low << 1);
    low ^= high >> 3;
    low ^= low >> 35;
    low *= PRIME_MX2;
    low ^= low >> 28;
    Digest digest;
    digest.low = low;
    digest.high = avalanche(high);
    return digest;
}

DEVICE Digest digest_9_to_16(const u8* bytes, u32 len) {
    const u64 first = read64(bytes);
    const u64 last = read64(bytes + len - 8);
    const u64 keyed = first ^ last ^ (secret(32) ^ secret(40));
    u64 low = keyed * PRIME64_1;
    u64 high = __umul64hi(keyed, PRIME64_1);
    low += (u64)(len - 1) << 54;
    const u64 keyed_last = last ^ (secret(48) ^ secret(56));
    high += keyed_last + (u64)(u32)keyed_last * (PRIME32_2 - 1);
    low ^= swap_bytes(high);
    Digest digest;
    digest.low = avalanche(low * PRIME64_2);
    digest.high = avalanche(__umul64hi(low, PRIME64_2) + high * PRIME64_2);
    return digest;
}

DEVICE Digest digest_17_to_240(const u8* bytes, u32 len) {
    Digest sum;
    sum.low = len * PRIME64_1;
    sum.high = 0;
    if (len <= 128) {
        if (len > 96) mix32(sum, bytes + 48, bytes + len - 64, 96);
        if (len > 64) mix32(sum, bytes + 32, bytes + len - 48, 64);
        if (len > 32) mix32(sum, bytes + 16, bytes + len - 32, 32);
        mix32(sum, bytes, bytes + len - 16, 0);
    } else {
        for (u32 i = 0; i < 4; ++i) mix32(sum, bytes + 32 * i, bytes + 32 * i + 16, 32 * i);
        sum.low = avalanche(sum.low);
        sum.high = avalanche(sum.high);
        for (u32 i = 4; i < len / 32; ++i) mix32(sum, bytes + 32 * i, bytes + 32 * i + 16, 3 + 32 * (i - 4));
        // The last 32 bytes are taken in the other order.
        mix32(sum, bytes + len - 16, bytes + len - 32, 103);
    }
    Digest digest;
    digest.low = avalanche(sum.low + sum.high);
    digest.high = 0 - avalanche(sum.low * PRIME64_1 + sum.high * PRIME64_4 + (u64)len * PRIME64_2);
    return digest;
}

// Of at most SHORT_LEN_MAX bytes, by one thread.
static __device__ __noinline__ Digest digest_short(const u8* bytes, u32 len) {
    if (len > 16) return digest_17_to_240(bytes, len);
    if (len > 8) return digest_9_to_16(bytes, len);
    if (len > 3) return digest_4_to_8(bytes, len);
    if (len > 0) return digest_1_to_3(bytes, len);
    Digest digest;
    digest.low = avalanche_xxh64(secret(64) ^ secret(72));
    digest.high = avalanche_xxh64(secret(80) ^ secret(88));
    return digest;
}
