// chipmink_compare, chipmink_compact and chipmink_adopt: which chunks are not what they were.
//
// Equals   comparing `chipmink_digest::digest` of each chunk with that of its last save, in the order of the descriptors.
// A slot that never had a digest holds all ones (`Digest::UNKNOWN`), which no chunk equals but by an accident of the kind
// that two chunks with one digest would be.

// chipmink_compare: one bit per descriptor, set if the chunk is dirty.
//
// Inputs   `chunks[0 .. count]`, `digests` and `previous` by slot.
// Output   `masks[0 .. ceil(count / 32)]`: bit i of word w is descriptor 32 w + i; bits beyond `count` are 0.
// Launch   blocks of any multiple of 32 threads; a thread per descriptor, rounded up to 32.
KERNEL __launch_bounds__(256)
    chipmink_compare(const Chunk* chunks, u32 count, const Digest* digests, const Digest* previous, u32* masks) {
    const u64 number = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    bool is_dirty = false;
    if (number < count) {
        const u32 slot = chunks[number].slot;
        const Digest now = digests[slot];
        const Digest before = previous[slot];
        is_dirty = now.low != before.low || now.high != before.high;
    }
    const u32 mask = __ballot_sync(ALL_LANES, is_dirty);
    if ((threadIdx.x & 31u) == 0 && number < count) {
        masks[number / 32u] = mask;
    }
}

struct Share {
    u64 byte_len;
    u32 count;
};

// The sums of all lanes below, and of all lanes. Of a whole warp.
DEVICE Share shares_below(Share own, Share& all) {
    const u32 lane = threadIdx.x & 31u;
    Share sum = own;
#pragma unroll
    for (u32 distance = 1; distance < 32; distance *= 2) {
        const u64 byte_len = __shfl_up_sync(ALL_LANES, sum.byte_len, distance);
        const u32 count = __shfl_up_sync(ALL_LANES, sum.count, distance);
        if (lane >= distance) {
            sum.byte_len += byte_len;
            sum.count += count;
        }
    }
    all.byte_len = __shfl_sync(ALL_LANES, sum.byte_len, 31);
    all.count = __shfl_sync(ALL_LANES, sum.count, 31);
    sum.byte_len -= own.byte_len;
    sum.count -= own.count;
    return sum;
}

// chipmink_compact: the dirty chunks in order, each with the place at which it is staged.
//
// Inputs   `chunks[0 .. count]`, `digests` by slot, `masks` of chipmink_compare, `capacity`: bytes of the staging area.
// Output   `dirty[0 .. totals->dirty_count]`, `*totals`; nothing is written beyond.
// Launch   one block of 1024 threads.
// Result   determined by the inputs.
KERNEL __launch_bounds__(1024) chipmink_compact(const Chunk* chunks, u32 count, const Digest* digests, const u32* masks,
                                                u64 capacity, Dirty* dirty, Totals* totals) {
    __shared__ Share warps[32];
    __shared__ Share block;
    __shared__ u32 fitting;
    const u32 warp = threadIdx.x / 32u;
    const u32 lane = threadIdx.x & 31u;
    const u32 words = (u32)(((u64)count + 31u) / 32u);
    Share before;
    before.byte_len = 0;
    before.count = 0;
    u32 own_fitting = 0;
    if (threadIdx.x == 0) {
        fitting = 0;
    }
    __syncthreads();
    for (u32 first = 0; first < words; first += 1024u) {
        const u32 word = first + threadIdx.x;
        const u32 mask = word < words ? masks[word] : 0;
        Share own;
        own.byte_len = 0;
        own.count = __popc(mask);
        for (u32 left = mask; left != 0; left &= left - 1) {
            own.byte_len += padded(chunks[word * 32u + (u32)__ffs((int)left) - 1].byte_len);
        }
        Share of_warp;
        Share below = shares_below(own, of_warp);
        if (lane == 0) {
            warps[warp] = of_warp;
        }
        __syncthreads();
        if (warp == 0) {
            const Share mine = warps[lane];
            Share all;
            warps[lane] = shares_below(mine, all);
            if (lane == 0) {
                block = all;
            }
        }
        __syncthreads();
        Dirty entry;
        entry.byte_offset = before.byte_len + warps[warp].byte_len + below.byte_len;
        u32 at = before.count + warps[warp].count + below.count;
        for (u32 left = mask; left != 0; left &= left - 1) {
            entry.number = word * 32u + (u32)__ffs((int)left) - 1;
            const Chunk chunk = chunks[entry.number];
            entry.byte_len = chunk.byte_len;
            entry.digest = digests[chunk.slot];
            dirty[at] = entry;
            at += 1;
            entry.byte_offset += padded(chunk.byte_len);
            // Offsets only grow, so those that fit are the first.
            own_fitting = entry.byte_offset <= capacity ? at : own_fitting;
        }
        before.byte_len += block.byte_len;
        before.count += block.count;
        // Nobody may write to what others still read.
        __syncthreads();
    }
    atomicMax(&fitting, own_fitting);
    __syncthreads();
    if (threadIdx.x == 0) {
        totals->byte_len = before.byte_len;
        totals->dirty_count = before.count;
        totals->fitting_count = fitting;
    }
}

// chipmink_adopt: what was found is what is known from now on.
//
// Inputs   `chunks[0 .. count]`, `digests` by slot.
// Output   `previous[chunk.slot] = digests[chunk.slot]` for each; other slots keep what they have.
// Launch   a thread per descriptor.
KERNEL __launch_bounds__(256)
    chipmink_adopt(const Chunk* chunks, u32 count, const Digest* digests, Digest* previous) {
    const u64 number = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (number < count) {
        const u32 slot = chunks[number].slot;
        previous[slot] = digests[slot];
    }
}
