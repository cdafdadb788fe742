// What the kernels share: chunk descriptors, digests, and 16-byte loads.
//
// Layouts are those of `chipmink_kernels::layout`, little-endian, without padding that is not named here. The files are one
// translation unit, in the order of `chipmink_kernels::SOURCE`; they include nothing, so that they compile where there is
// no CUDA toolkit.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

// One chunk of a region on the device.
struct Chunk {
    u64 address;   // of its first byte; any alignment
    u32 byte_len;  // 0 to 2^31 - 1; chunks of chipmink have at most 64 KiB
    u32 slot;      // its place in the tables of digests; no two chunks of a launch have the same
};

// XXH3-128 as two words. Canonical bytes are `high`, then `low`, big-endian each.
struct Digest {
    u64 low;
    u64 high;
};

// A chunk that is not what it was, in the order of the descriptors.
struct Dirty {
    u64 byte_offset;  // where it goes: chunks before it take up so many bytes, each rounded up to 16
    u32 number;       // of its descriptor
    u32 byte_len;
    Digest digest;
};

struct Totals {
    u64 byte_len;       // of all dirty chunks, each rounded up to 16
    u32 dirty_count;
    u32 fitting_count;  // of the first dirty chunks, those that fit in the staging area together
};

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define ALL_LANES 0xffffffffu

DEVICE u32 padded(u32 byte_len) { return (byte_len + 15u) & ~15u; }

// The 16 bytes at an address of any alignment. Of the aligned 16 bytes around, only those are read in which one of these
// lies, so that no load leaves the page of a byte that may be read.
DEVICE ulonglong2 load_any(const u8* bytes) {
    const u64 address = (u64)bytes;
    const u32 shift = (u32)address & 15u;
    const ulonglong2* around = (const ulonglong2*)(address - shift);
    const ulonglong2 first = around[0];
    if (shift == 0) {
        return first;
    }
    const ulonglong2 second = around[1];
    const u64 a = shift & 8u ? first.y : first.x;
    const u64 b = shift & 8u ? second.x : first.y;
    const u64 c = shift & 8u ? second.y : second.x;
    const u32 bits = (shift & 7u) * 8u;
    ulonglong2 joined;
    // Two shifts, since one by 64 bits has no meaning.
    joined.x = (a >> bits) | ((b << 1) << (63u - bits));
    joined.y = (b >> bits) | ((c << 1) << (63u - bits));
    return joined;
}

// The same, read once and not kept in caches, if the address is a multiple of 16.
template <bool IS_ALIGNED>
DEVICE ulonglong2 load(const u8* bytes) {
    return IS_ALIGNED ? __ldcs((const ulonglong2*)bytes) : load_any(bytes);
}
