// chipmink_gather, chipmink_confirm and chipmink_release: dirty chunks into one staging area, the digests of what came there,
// and word that live memory is no longer read.

#define COPY_BATCH 8u

// Copies a multiple of 16 bytes with all threads of the block, eight loads at a time before the first store.
template <bool IS_ALIGNED>
DEVICE void copy_whole(u8* to, const u8* from, u32 len) {
    for (u32 first = threadIdx.x * 16u; first < len; first += blockDim.x * 16u * COPY_BATCH) {
        ulonglong2 data[COPY_BATCH];
#pragma unroll
        for (u32 i = 0; i < COPY_BATCH; ++i) {
            const u32 at = first + i * blockDim.x * 16u;
            if (at < len) {
                data[i] = load<IS_ALIGNED>(from + at);
            }
        }
#pragma unroll
        for (u32 i = 0; i < COPY_BATCH; ++i) {
            const u32 at = first + i * blockDim.x * 16u;
            if (at < len) {
                *(ulonglong2*)(to + at) = data[i];
            }
        }
    }
}

// chipmink_gather: copies dirty chunks to their places in a staging area.
//
// Equals   copying each chunk's bytes to `staging + dirty.byte_offset - byte_offset`; the bytes up to the next multiple of 16
//          are left as they are.
// Inputs   `chunks`; `dirty[first ..]` up to `totals->dirty_count`, of which those are copied that end within `capacity` bytes
//          of `staging`; `byte_offset` is that of `dirty[first]`. `staging` is aligned to 16: device memory or mapped memory
//          of the host.
// Launch   blocks of any number of threads, any number of blocks; the blocks take turns.
KERNEL __launch_bounds__(256) chipmink_gather(const Chunk* chunks, const Dirty* dirty, const Totals* totals, u32 first,
                                              u64 byte_offset, u8* staging, u64 capacity) {
    const u32 count = totals->dirty_count;
    for (u64 at = (u64)first + blockIdx.x; at < count; at += gridDim.x) {
        const u64 offset = dirty[at].byte_offset - byte_offset;
        const u32 len = dirty[at].byte_len;
        if (offset + padded(len) > capacity) {
            return;
        }
        const u64 address = chunks[dirty[at].number].address;
        const u8* from = (const u8*)address;
        u8* to = staging + offset;
        const u32 whole = len & ~15u;
        if ((address & 15u) == 0) {
            copy_whole<true>(to, from, whole);
        } else {
            copy_whole<false>(to, from, whole);
        }
        for (u32 i = whole + threadIdx.x; i < len; i += blockDim.x) {
            to[i] = from[i];
        }
    }
}

// chipmink_confirm: the digests of the staged copies take the place of those of live memory.
//
// Whoever writes to live memory between the digest and the copy makes no chunk that is stored under another's digest.
//
// Equals   `chipmink_digest::digest` of each copy, without the algorithm byte.
// Inputs   as those of chipmink_gather, which has run.
// Output   the digests of the entries that were copied, in `dirty` and in `digests[chunk.slot]`.
// Launch   blocks of any multiple of 32 threads, at most 128; any number of blocks; a warp takes a chunk at a time.
KERNEL __launch_bounds__(128, 3) chipmink_confirm(const Chunk* chunks, Dirty* dirty, const Totals* totals, u32 first,
                                               u64 byte_offset, const u8* staging, u64 capacity, Digest* digests) {
    const u32 count = totals->dirty_count;
    const u64 stride = (u64)gridDim.x * blockDim.x / 32u;
    for (u64 at = (u64)first + ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32u; at < count; at += stride) {
        const u64 offset = dirty[at].byte_offset - byte_offset;
        const u32 len = dirty[at].byte_len;
        if (offset + padded(len) > capacity) {
            return;
        }
        const Digest digest = digest_of<true>(staging + offset, len);
        if ((threadIdx.x & 31u) == 0) {
            dirty[at].digest = digest;
            digests[chunks[dirty[at].number].slot] = digest;
        }
    }
}

// chipmink_release: writes `value` to a word of mapped host memory if all dirty chunks were staged.
//
// Runs behind chipmink_gather of the first part. If chunks are left, their memory is still to be read, and the host writes
// the word when it has been.
// Launch   one block of any number of threads; each writes the same.
KERNEL chipmink_release(const Totals* totals, volatile u32* word, u32 value) {
    if (totals->fitting_count == totals->dirty_count) {
        __threadfence_system();
        *word = value;
    }
}
