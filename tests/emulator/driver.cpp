// A CUDA driver without a device, for tests: the functions of libcuda that chipmink calls, over memory of the host.
//
// 1. Nothing happens when it is enqueued. Streams are queues of operations; which of those that may go first does, is drawn
//    from a seed, whenever a call of the driver is made and while the host waits. So what is not ordered by a stream, an event
//    or a word happens in any order.
// 2. A device address is an address of the process. Kernels are those of `kernels/cuda`, run by lanes.hpp.
// 3. Memory that is not pinned is copied from when the call is made, as the real driver does; pinned memory when its turn comes.
// 4. Failures are made to order: `emulated_fail`. After one that leaves a device lost, every call fails.
// 5. A host that waits for what never happens ends the program after ten seconds.
// 6. Calls that need a context need it to be current in their thread, and the one of the stream and event that they are about.
// 7. With `emulated_one_queue` all streams share one queue of the device, as with CUDA_DEVICE_MAX_CONNECTIONS=1: what waits keeps
//    back all that was enqueued later, in whichever stream.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900 };

struct Operation {
    std::function<bool()> is_ready;
    std::function<void()> run;
    uint64_t number = 0;  // of all that was ever enqueued
};

struct Event {
    void* context = nullptr;
    uint64_t recorded = 0;  // how often it was recorded
    uint64_t reached = 0;   // the newest record that its stream has come to
};

struct Stream {
    void* context = nullptr;  // null: whichever is current
    std::deque<Operation> queue;
    bool is_capturing = false;
    bool is_destroyed = false;
    uint64_t enqueued = 0;
    uint64_t done = 0;
};

struct Failure {
    int64_t calls_left;
    int code;
};

struct Driver {
    std::recursive_mutex mutex;
    std::map<Stream*, std::shared_ptr<Stream>> streams;
    std::map<Event*, std::shared_ptr<Event>> events;
    std::map<uintptr_t, size_t> pinned;
    std::map<uintptr_t, size_t> device;
    std::map<std::string, uint64_t> calls;
    std::map<std::string, Failure> failures;
    Stream legacy;
    uint64_t seed = 1;
    uint64_t copied = 0;  // bytes from the device to the host
    uint64_t enqueued = 0;
    bool has_one_queue = false;
    int lost = 0;
    int contexts[8] = {};
};

Driver& driver() {
    static Driver* one = new Driver;
    return *one;
}

using Lock = std::unique_lock<std::recursive_mutex>;

thread_local std::vector<void*> current;
thread_local int capture_mode = 0;

uint64_t draw(uint64_t below) {
    Driver& d = driver();
    d.seed = d.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (d.seed >> 33) % below;
}

// 0 to 2 are the default streams.
Stream* stream_of(void* handle) { return (uintptr_t)handle <= 2 ? &driver().legacy : (Stream*)handle; }

// Runs one operation of some stream. Returns whether there was one that could run.
bool step() {
    Driver& d = driver();
    std::vector<Stream*> ready;
    uint64_t first = UINT64_MAX;
    auto count = [&](Stream* stream) {
        if (!stream->queue.empty() && stream->queue.front().number < first) first = stream->queue.front().number;
    };
    count(&d.legacy);
    for (auto& [stream, _] : d.streams) count(stream);
    auto look = [&](Stream* stream) {
        if (d.has_one_queue && !stream->queue.empty() && stream->queue.front().number != first) return;
        if (!stream->queue.empty() && (!stream->queue.front().is_ready || stream->queue.front().is_ready())) {
            ready.push_back(stream);
        }
    };
    look(&d.legacy);
    for (auto& [stream, _] : d.streams) look(stream);
    if (ready.empty()) return false;
    Stream* stream = ready[draw(ready.size())];
    Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (!d.lost && operation.run) operation.run();
    stream->done += 1;
    return true;
}

void wait_until(Lock& lock, const std::function<bool()>& is_done) {
    for (int idle = 0; !is_done() && !driver().lost;) {
        if (step()) {
            idle = 0;
            continue;
        }
        if (++idle > 50000) {
            fprintf(stderr, "the host waits for a device that waits for the host\n");
            abort();
        }
        // Another thread may enqueue something, or write a word.
        lock.unlock();
        usleep(200);
        lock.lock();
    }
}

// What a call comes to before it does anything.
int begin(const char* name) {
    Driver& d = driver();
    d.calls[name] += 1;
    if (d.lost) return d.lost;
    auto found = d.failures.find(name);
    if (found != d.failures.end() && --found->second.calls_left == 0) {
        const int code = found->second.code;
        d.failures.erase(found);
        if (code >= 700 && code < 720) d.lost = code;
        return code;
    }
    // The device is often slower than the host, and sometimes not.
    if (draw(6) == 0) {
        for (uint64_t count = draw(6); count > 0 && step(); --count) {
        }
    }
    return SUCCESS;
}

#define BEGIN()                         \
    Lock lock(driver().mutex);          \
    if (int code = begin(__func__); code) return code

// A call that is about streams or events of the current context.
#define BEGIN_IN(...) \
    BEGIN();          \
    if (int code = in_context({__VA_ARGS__}); code) return code

int in_context(std::vector<void*> contexts) {
    if (current.empty()) return INVALID_CONTEXT;
    for (void* context : contexts) {
        if (context != nullptr && context != current.back()) return INVALID_HANDLE;
    }
    return SUCCESS;
}

bool is_pinned(const void* at) {
    auto found = driver().pinned.upper_bound((uintptr_t)at);
    if (found == driver().pinned.begin()) return false;
    --found;
    return (uintptr_t)at < found->first + found->second;
}

int enqueue(void* handle, Operation operation) {
    Stream* stream = stream_of(handle);
    if (stream->is_capturing) return CAPTURE_UNSUPPORTED;
    operation.number = ++driver().enqueued;
    stream->queue.push_back(std::move(operation));
    stream->enqueued += 1;
    return SUCCESS;
}

void* allocate(size_t len) {
    void* found = nullptr;
    return posix_memalign(&found, 512, len) == 0 ? found : nullptr;
}

}  // namespace

extern "C" {

int cuInit(unsigned flags) {
    BEGIN();
    return flags == 0 ? SUCCESS : INVALID_VALUE;
}

int cuDriverGetVersion(int* version) {
    BEGIN();
    *version = 13000;
    return SUCCESS;
}

int cuDeviceGetCount(int* count) {
    BEGIN();
    *count = 2;
    return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
    BEGIN();
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char* name, int len, int) {
    BEGIN();
    snprintf(name, len, "Emulated device");
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    BEGIN();
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 3 : 1;
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* len, int) {
    BEGIN();
    *len = (size_t)1 << 34;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    BEGIN();
    driver().contexts[device] += 1;
    *context = &driver().contexts[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    BEGIN();
    driver().contexts[device] -= 1;
    return SUCCESS;
}

int cuCtxPushCurrent_v2(void* context) {
    BEGIN();
    current.push_back(context);
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void** context) {
    Lock lock(driver().mutex);
    if (current.empty()) {
        fprintf(stderr, "no context to take away\n");
        abort();
    }
    *context = current.back();
    current.pop_back();
    return SUCCESS;
}

int cuStreamCreate(void** stream, unsigned) {
    BEGIN();
    auto made = std::make_shared<Stream>();
    made->context = current.empty() ? nullptr : current.back();
    *stream = made.get();
    driver().streams[made.get()] = made;
    return SUCCESS;
}

int cuStreamDestroy_v2(void* handle) {
    BEGIN();
    Stream* stream = (Stream*)handle;
    wait_until(lock, [&] { return stream->queue.empty(); });
    driver().streams.erase(stream);
    return SUCCESS;
}

int cuStreamSynchronize(void* handle) {
    BEGIN();
    Stream* stream = stream_of(handle);
    const uint64_t target = stream->enqueued;
    wait_until(lock, [&] { return stream->done >= target; });
    return driver().lost;
}

int cuStreamIsCapturing(void* handle, int* status) {
    BEGIN();
    *status = stream_of(handle)->is_capturing ? 1 : 0;
    return SUCCESS;
}

int cuStreamWaitEvent(void* handle, void* event, unsigned) {
    BEGIN();
    std::shared_ptr<Event> waited = driver().events.at((Event*)event);
    const uint64_t target = waited->recorded;
    return enqueue(handle, {[=] { return waited->reached >= target; }, nullptr});
}

int cuStreamWaitValue32_v2(void* handle, uint64_t address, uint32_t value, unsigned flags) {
    BEGIN_IN(stream_of(handle)->context);
    if (flags != 0 || address % 4 != 0 || !is_pinned((void*)address)) return INVALID_VALUE;
    volatile int32_t* word = (volatile int32_t*)address;
    return enqueue(handle, {[=] { return *word - (int32_t)value >= 0; }, nullptr});
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
    BEGIN();
    std::swap(*mode, capture_mode);
    return SUCCESS;
}

int cuEventCreate(void** event, unsigned) {
    BEGIN_IN();
    auto made = std::make_shared<Event>();
    made->context = current.back();
    *event = made.get();
    driver().events[made.get()] = made;
    return SUCCESS;
}

int cuEventDestroy_v2(void* event) {
    BEGIN();
    driver().events.erase((Event*)event);
    return SUCCESS;
}

int cuEventRecord(void* event, void* handle) {
    BEGIN_IN(driver().events.at((Event*)event)->context, stream_of(handle)->context);
    if (stream_of(handle)->is_capturing) return CAPTURE_UNSUPPORTED;
    std::shared_ptr<Event> marked = driver().events.at((Event*)event);
    const uint64_t number = ++marked->recorded;
    return enqueue(handle, {nullptr, [=] { marked->reached = number; }});
}

int cuEventSynchronize(void* event) {
    BEGIN();
    std::shared_ptr<Event> waited = driver().events.at((Event*)event);
    const uint64_t target = waited->recorded;
    wait_until(lock, [&] { return waited->reached >= target; });
    return driver().lost;
}

int cuMemAlloc_v2(uint64_t* address, size_t len) {
    BEGIN_IN();
    void* memory = allocate(len);
    memset(memory, 0xcd, len);
    driver().device[(uintptr_t)memory] = len;
    *address = (uint64_t)memory;
    return SUCCESS;
}

int cuMemFree_v2(uint64_t address) {
    BEGIN();
    wait_until(lock, [] {
        for (auto& [stream, _] : driver().streams) {
            if (!stream->queue.empty()) return false;
        }
        return true;
    });
    if (driver().device.erase(address) == 0) return INVALID_VALUE;
    free((void*)address);
    return SUCCESS;
}

int cuMemHostAlloc(void** memory, size_t len, unsigned flags) {
    BEGIN_IN();
    // Write-combined memory is slow to read.
    if (flags & 4) return INVALID_VALUE;
    *memory = allocate(len);
    driver().pinned[(uintptr_t)*memory] = len;
    return SUCCESS;
}

int cuMemFreeHost(void* memory) {
    BEGIN();
    if (driver().pinned.erase((uintptr_t)memory) == 0) return INVALID_VALUE;
    free(memory);
    return SUCCESS;
}

int cuMemHostGetDevicePointer_v2(uint64_t* address, void* memory, unsigned) {
    BEGIN();
    *address = (uint64_t)memory;
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t len, void* handle) {
    BEGIN_IN(stream_of(handle)->context);
    if (!is_pinned(to)) return INVALID_VALUE;
    return enqueue(handle, {nullptr, [=] {
                                memcpy(to, (void*)from, len);
                                driver().copied += len;
                            }});
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t len, void* handle) {
    BEGIN_IN(stream_of(handle)->context);
    if (is_pinned(from)) {
        return enqueue(handle, {nullptr, [=] { memcpy((void*)to, from, len); }});
    }
    std::vector<char> copy((const char*)from, (const char*)from + len);
    return enqueue(handle, {nullptr, [to, copy] { memcpy((void*)to, copy.data(), copy.size()); }});
}

int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t len, void* handle) {
    BEGIN_IN(stream_of(handle)->context);
    return enqueue(handle, {nullptr, [=] { memmove((void*)to, (void*)from, len); }});
}

int cuMemsetD8Async(uint64_t at, unsigned char value, size_t len, void* handle) {
    BEGIN_IN(stream_of(handle)->context);
    return enqueue(handle, {nullptr, [=] { memset((void*)at, value, len); }});
}

int cuModuleLoadData(void** module, const void* image) {
    BEGIN_IN();
    if (memcmp(image, "\x7f" "ELF", 4) != 0) return INVALID_IMAGE;
    *module = (void*)1;
    return SUCCESS;
}

int cuModuleUnload(void*) {
    BEGIN();
    return SUCCESS;
}

int cuModuleGetFunction(const void** function, void*, const char* name) {
    BEGIN();
    *function = emulated_kernel(name);
    return *function == nullptr ? NOT_FOUND : SUCCESS;
}

int cuLaunchKernel(const void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned, void* handle, void** parameters, void**) {
    BEGIN_IN(stream_of(handle)->context);
    const EmulatedKernel* kernel = (const EmulatedKernel*)function;
    if (gy != 1 || gz != 1 || by != 1 || bz != 1 || gx == 0 || bx == 0 || bx > 1024 || bx % 32 != 0) return INVALID_VALUE;
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < kernel->parameter_lengths.size(); ++i) {
        const char* at = (const char*)parameters[i];
        values.emplace_back(at, at + kernel->parameter_lengths[i]);
    }
    return enqueue(handle, {nullptr, [=]() mutable {
                                std::vector<void*> places;
                                for (auto& value : values) places.push_back(value.data());
                                kernel->launch(gx, bx, places.data());
                            }});
}

int cuGetErrorString(int code, const char** text) {
    *text = code == OUT_OF_MEMORY       ? "out of memory"
            : code == LAUNCH_FAILED     ? "unspecified launch failure"
            : code == CAPTURE_UNSUPPORTED ? "operation not permitted when stream is capturing"
                                        : "emulated failure";
    return SUCCESS;
}

// --- for tests ---

void emulated_seed(uint64_t seed) {
    Lock lock(driver().mutex);
    driver().seed = seed * 2 + 1;
}

// The n-th call of a function from now on fails.
void emulated_fail(const char* name, int64_t nth, int code) {
    Lock lock(driver().mutex);
    driver().failures[name] = Failure{nth, code};
}

// No failures are left, and no device is lost. What a lost device was to do is never done.
void emulated_heal() {
    Lock lock(driver().mutex);
    Driver& d = driver();
    d.failures.clear();
    d.has_one_queue = false;
    if (d.lost == 0) return;
    d.lost = 0;
    auto drop = [](Stream* stream) {
        stream->done += stream->queue.size();
        stream->queue.clear();
    };
    drop(&d.legacy);
    for (auto& [stream, _] : d.streams) drop(stream);
    for (auto& [event, _] : d.events) event->reached = event->recorded;
}

// Whether all streams share one queue of the device.
void emulated_one_queue(int has_one_queue) {
    Lock lock(driver().mutex);
    driver().has_one_queue = has_one_queue != 0;
}

uint64_t emulated_calls(const char* name) {
    Lock lock(driver().mutex);
    return driver().calls[name];
}

uint64_t emulated_copied() {
    Lock lock(driver().mutex);
    return driver().copied;
}

// Pieces of memory on the device, of pinned memory, streams and events that are alive.
uint64_t emulated_alive() {
    Lock lock(driver().mutex);
    return driver().device.size() + driver().pinned.size() + driver().streams.size() + driver().events.size();
}

void emulated_capture(void* stream, int is_capturing) {
    Lock lock(driver().mutex);
    stream_of(stream)->is_capturing = is_capturing != 0;
}

// What a step of training does: each of `len` bytes grows by `by`, when the stream comes to it.
int emulated_train(void* stream, uint8_t* at, size_t len, uint8_t by) {
    Lock lock(driver().mutex);
    return enqueue(stream, {nullptr, [=] {
                                for (size_t i = 0; i < len; ++i) at[i] = (uint8_t)(at[i] + by);
                            }});
}

}  // extern "C"
