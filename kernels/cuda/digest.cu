// chipmink_digest: the digest of every chunk.
//
// Equals   `chipmink_digest::digest` of each chunk's bytes, bit for bit, without the algorithm byte.
// Inputs   `chunks[0 .. count]`, in device memory; the bytes that they describe, of any length and alignment.
// Output   `digests[chunk.slot]` for each; nothing else is written.
// Launch   blocks of any multiple of 32 threads, at most 128; a warp per chunk: gridDim.x * blockDim.x / 32 >= count.
// Result   a function of the bytes alone: of neither the launch, nor the order of chunks, nor where they lie.
//
// Of each block of 1024 bytes, the 16 stripes add to the accumulators what does not depend on these, so the warp reads
// eight blocks at once, 512 contiguous bytes with each load, and each lane always meets the same two pairs of words of the
// secret. What is serial is one scramble per block: the lanes exchange their sums so that lane 4b + q has those of block b,
// accumulators 2q and 2q + 1, and all eight groups of four lanes run the same chain.

#define GROUP_BLOCKS 8u

struct Sums {
    u64 even;
    u64 odd;
};

// The words of the secret that a lane needs for its two stripes of each block.
struct Keys {
    u64 even[2];
    u64 odd[2];
};

DEVICE void take(Sums& sums, ulonglong2 data, u64 key_even, u64 key_odd) {
    const u64 even = data.x ^ key_even;
    const u64 odd = data.y ^ key_odd;
    sums.even += data.y + (u64)(u32)even * (even >> 32);
    sums.odd += data.x + (u64)(u32)odd * (odd >> 32);
}

// What the lane's stripes add in each of eight blocks from stripe `first` on, of those below `stripe_count`.
template <bool IS_ALIGNED, bool IS_FULL>
DEVICE void read_group(Sums (&sums)[GROUP_BLOCKS], const u8* bytes, u32 first, u32 stripe_count, const Keys& keys) {
    const u32 lane = threadIdx.x & 31u;
    ulonglong2 data[2 * GROUP_BLOCKS];
#pragma unroll
    for (u32 i = 0; i < 2 * GROUP_BLOCKS; ++i) {
        const u32 stripe = first + 8 * i + (lane >> 2);
        if (IS_FULL || stripe < stripe_count) {
            data[i] = load<IS_ALIGNED>(bytes + (u64)stripe * STRIPE_LEN + (lane & 3u) * 16u);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 2 * GROUP_BLOCKS; ++i) {
        if (i % 2 == 0) {
            sums[i / 2].even = 0;
            sums[i / 2].odd = 0;
        }
        if (IS_FULL || first + 8 * i + (lane >> 2) < stripe_count) {
            take(sums[i / 2], data[i], keys.even[i % 2], keys.odd[i % 2]);
        }
    }
}

// Adds up over the lanes of equal `lane % 4`. Lane 4b + q has the sums of block b afterwards.
DEVICE Sums exchange(Sums (&sums)[GROUP_BLOCKS]) {
    const u32 lane = threadIdx.x & 31u;
#pragma unroll
    for (u32 half = GROUP_BLOCKS / 2; half > 0; half /= 2) {
        const bool is_upper = (lane & (4 * half)) != 0;
#pragma unroll
        for (u32 i = 0; i < half; ++i) {
            const Sums kept = is_upper ? sums[i + half] : sums[i];
            const Sums sent = is_upper ? sums[i] : sums[i + half];
            sums[i].even = kept.even + __shfl_xor_sync(ALL_LANES, sent.even, 4 * half);
            sums[i].odd = kept.odd + __shfl_xor_sync(ALL_LANES, sent.odd, 4 * half);
        }
    }
    return sums[0];
}

DEVICE u64 scramble(u64 sum, u64 key) { return ((sum ^ (sum >> 47)) ^ key) * PRIME32_1; }

// One half of the digest, from the accumulators of four lanes.
DEVICE u64 merge(Sums sums, u32 at, u64 start) {
    const u32 quarter = threadIdx.x & 3u;
    u64 hash = fold(sums.even ^ secret(at + 16 * quarter), sums.odd ^ secret(at + 16 * quarter + 8));
    hash += __shfl_xor_sync(ALL_LANES, hash, 1);
    hash += __shfl_xor_sync(ALL_LANES, hash, 2);
    return avalanche(start + hash);
}

// Of more than SHORT_LEN_MAX bytes, by a warp; each lane has the digest.
template <bool IS_ALIGNED>
DEVICE Digest digest_long(const u8* bytes, u32 len) {
    const u32 lane = threadIdx.x & 31u;
    const u32 quarter = lane & 3u;
    Keys keys;
    for (u32 half = 0; half < 2; ++half) {
        const u32 word = (lane >> 2) + 8 * half + 2 * quarter;
        keys.even[half] = SECRET[word];
        keys.odd[half] = SECRET[word + 1];
    }
    const u64 scramble_even = SECRET[16 + 2 * quarter];
    const u64 scramble_odd = SECRET[17 + 2 * quarter];
    Sums sums;
    sums.even = quarter == 0 ? PRIME32_3 : quarter == 1 ? PRIME64_2 : quarter == 2 ? PRIME64_4 : PRIME64_5;
    sums.odd = quarter == 0 ? PRIME64_1 : quarter == 1 ? PRIME64_3 : quarter == 2 ? PRIME32_2 : PRIME32_1;

    // The last stripe is taken apart; blocks are scrambled when a byte follows them.
    const u32 stripe_count = (len - 1) / STRIPE_LEN;
    const u32 scrambled_count = (len - 1) / BLOCK_LEN;
    for (u32 first = 0; first <= scrambled_count; first += GROUP_BLOCKS) {
        Sums group[GROUP_BLOCKS];
        const u32 stripe = first * (BLOCK_LEN / STRIPE_LEN);
        if (first + GROUP_BLOCKS <= scrambled_count) {
            read_group<IS_ALIGNED, true>(group, bytes, stripe, stripe_count, keys);
        } else {
            read_group<IS_ALIGNED, false>(group, bytes, stripe, stripe_count, keys);
        }
        const Sums own = exchange(group);
#pragma unroll
        for (u32 i = 0; i < GROUP_BLOCKS; ++i) {
            sums.even += __shfl_sync(ALL_LANES, own.even, 4 * i + quarter);
            sums.odd += __shfl_sync(ALL_LANES, own.odd, 4 * i + quarter);
            if (first + i < scrambled_count) {
                sums.even = scramble(sums.even, scramble_even);
                sums.odd = scramble(sums.odd, scramble_odd);
            }
        }
    }
    const ulonglong2 last = load_any(bytes + len - STRIPE_LEN + 16 * quarter);
    take(sums, last, secret(121 + 16 * quarter), secret(129 + 16 * quarter));

    Digest digest;
    digest.low = merge(sums, 11, (u64)len * PRIME64_1);
    digest.high = merge(sums, 117, ~((u64)len * PRIME64_2));
    return digest;
}

// Of any length, by a warp; the first lane has the digest.
template <bool IS_ALIGNED>
DEVICE Digest digest_of(const u8* bytes, u32 len) {
    if (len > SHORT_LEN_MAX) {
        return digest_long<IS_ALIGNED>(bytes, len);
    }
    Digest digest;
    digest.low = 0;
    digest.high = 0;
    if ((threadIdx.x & 31u) == 0) {
        digest = digest_short(bytes, len);
    }
    return digest;
}

KERNEL __launch_bounds__(128, 3) chipmink_digest(const Chunk* chunks, u32 count, Digest* digests) {
    const u32 number = (u32)(((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32u);
    if (number >= count) {
        return;
    }
    const Chunk chunk = chunks[number];
    const u8* bytes = (const u8*)chunk.address;
    const Digest digest = (chunk.address & 15u) == 0 ? digest_of<true>(bytes, chunk.byte_len)
                                                     : digest_of<false>(bytes, chunk.byte_len);
    if ((threadIdx.x & 31u) == 0) {
        digests[chunk.slot] = digest;
    }
}
