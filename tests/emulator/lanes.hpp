// What CUDA C takes for granted, for a C++ compiler of the host: the kernels compile behind this file unchanged.
//
// Every thread of a block is a fiber. One runs until it comes to a place where it must wait for others (a shuffle, a vote,
// __syncthreads), then the next does; the order is drawn anew for each block, from a seed. When all wait and none can go on,
// the lanes of a warp have parted, which the kernels must not do: the program ends with a message.
//
// Fibers are switched with setjmp and longjmp, after makecontext has given each its stack.
#pragma once

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

namespace lanes {

struct Index {
    unsigned x, y, z;
};

constexpr unsigned kThreadsMax = 1024;
constexpr size_t kStackLen = 64 * 1024;

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool is_started;
    bool is_done;
    unsigned warp_turn;   // how many times it has waited for its warp
    unsigned block_turn;  // and for its block
};

struct Warp {
    unsigned arrived;
    unsigned turn;
    unsigned long long values[2][32];  // of the present and the last exchange
};

struct Block {
    Fiber fibers[kThreadsMax];
    Warp warps[kThreadsMax / 32];
    unsigned thread_count;
    unsigned arrived;
    unsigned turn;
    unsigned running;
    jmp_buf scheduler;
    void (*body)(void*);
    void* arguments;
};

inline thread_local Block* block = nullptr;
inline thread_local Index thread_index, block_index, block_dim, grid_dim;
inline thread_local unsigned long long order_seed = 1;

inline void yield_fiber() {
    Fiber& fiber = block->fibers[block->running];
    if (_setjmp(fiber.jump) == 0) {
        _longjmp(block->scheduler, 1);
    }
}

inline void fiber_main() {
    block->body(block->arguments);
    block->fibers[block->running].is_done = true;
    _longjmp(block->scheduler, 1);
}

inline bool can_run(const Fiber& fiber, unsigned thread) {
    return !fiber.is_done && fiber.warp_turn == block->warps[thread / 32].turn && fiber.block_turn == block->turn;
}

inline char* stacks() {
    static thread_local std::vector<char> memory(kThreadsMax * kStackLen);
    return memory.data();
}

// Runs all threads of one block to their end.
inline void run_block(unsigned thread_count, void (*body)(void*), void* arguments) {
    static thread_local Block state;
    block = &state;
    state.thread_count = thread_count;
    state.arrived = state.turn = 0;
    state.body = body;
    state.arguments = arguments;
    memset(state.warps, 0, sizeof state.warps);
    for (unsigned i = 0; i < thread_count; ++i) {
        Fiber& fiber = state.fibers[i];
        fiber.is_started = fiber.is_done = false;
        fiber.warp_turn = fiber.block_turn = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks() + i * kStackLen;
        fiber.context.uc_stack.ss_size = kStackLen;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
    volatile unsigned done = 0;
    while (done < thread_count) {
        order_seed = order_seed * 6364136223846793005ull + 1442695040888963407ull;
        volatile unsigned start = (unsigned)(order_seed >> 33) % thread_count;
        volatile bool has_run = false;
        for (volatile unsigned i = 0; i < thread_count; i = i + 1) {
            const unsigned thread = (start + i) % thread_count;
            Fiber& fiber = state.fibers[thread];
            if (!can_run(fiber, thread)) {
                continue;
            }
            has_run = true;
            state.running = thread;
            thread_index = Index{thread, 0, 0};
            if (_setjmp(state.scheduler) == 0) {
                if (fiber.is_started) {
                    _longjmp(fiber.jump, 1);
                }
                fiber.is_started = true;
                setcontext(&fiber.context);
            }
            done = done + (state.fibers[state.running].is_done ? 1 : 0);
        }
        if (!has_run) {
            fprintf(stderr, "threads of a block wait for threads that do not come\n");
            abort();
        }
    }
}

// Waits until all 32 lanes of the warp have come here; returns their values.
inline const unsigned long long* exchange(unsigned mask, unsigned long long value) {
    if (mask != 0xffffffffu) {
        fprintf(stderr, "a part of a warp exchanges values\n");
        abort();
    }
    const unsigned thread = block->running;
    Warp& warp = block->warps[thread / 32];
    const unsigned turn = warp.turn;
    warp.values[turn % 2][thread % 32] = value;
    block->fibers[thread].warp_turn = turn + 1;
    if (++warp.arrived == 32) {
        warp.arrived = 0;
        warp.turn = turn + 1;
    } else {
        yield_fiber();
    }
    return warp.values[turn % 2];
}

inline void block_barrier() {
    const unsigned thread = block->running;
    const unsigned turn = block->turn;
    block->fibers[thread].block_turn = turn + 1;
    if (++block->arrived == block->thread_count) {
        block->arrived = 0;
        block->turn = turn + 1;
    } else {
        yield_fiber();
    }
}

}  // namespace lanes

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
// Blocks run one after another, and each thread of the host runs its own.
#define __shared__ static thread_local
#define threadIdx lanes::thread_index
#define blockIdx lanes::block_index
#define blockDim lanes::block_dim
#define gridDim lanes::grid_dim

struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};

inline ulonglong2 __ldcs(const ulonglong2* from) { return *from; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline void __syncthreads() { lanes::block_barrier(); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline unsigned atomicMax(unsigned* at, unsigned value) {
    const unsigned old = *at;
    *at = old > value ? old : value;
    return old;
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
    const unsigned long long* votes = lanes::exchange(mask, vote);
    unsigned all = 0;
    for (unsigned i = 0; i < 32; ++i) all |= (unsigned)votes[i] << i;
    return all;
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, unsigned lane) {
    return (T)lanes::exchange(mask, value)[lane % 32];
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, unsigned bits) {
    const unsigned lane = threadIdx.x % 32;
    return (T)lanes::exchange(mask, value)[lane ^ bits];
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned long long* values = lanes::exchange(mask, value);
    return (T)values[lane < distance ? lane : lane - distance];
}
