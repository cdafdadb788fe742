// The kernels as functions of the host, by name: `emulated_kernel` finds one, and a launch runs its blocks one after another.

#include "kernels.hpp"

#include "lanes.hpp"

#include "chunks.cuh"
#include "xxh3.cuh"
#include "digest.cu"
#include "compact.cu"
#include "gather.cu"

namespace {

template <typename... Args>
struct Call {
    void (*kernel)(Args...);
    void** parameters;

    template <size_t... I>
    static void run(Call* call, std::index_sequence<I...>) {
        call->kernel(*(Args*)call->parameters[I]...);
    }
    static void body(void* call) { run((Call*)call, std::index_sequence_for<Args...>{}); }
};

template <typename... Args>
void launch(void (*kernel)(Args...), unsigned grid, unsigned block, void** parameters) {
    Call<Args...> call{kernel, parameters};
    lanes::grid_dim = lanes::Index{grid, 1, 1};
    lanes::block_dim = lanes::Index{block, 1, 1};
    for (unsigned i = 0; i < grid; ++i) {
        lanes::block_index = lanes::Index{i, 0, 0};
        lanes::run_block(block, Call<Args...>::body, &call);
    }
}

template <auto Kernel>
void launch_of(unsigned grid, unsigned block, void** parameters) {
    launch(Kernel, grid, block, parameters);
}

template <typename... Args>
std::vector<size_t> lengths_of(void (*)(Args...)) {
    return {sizeof(Args)...};
}

template <auto Kernel>
EmulatedKernel kernel(const char* name) {
    return EmulatedKernel{name, launch_of<Kernel>, lengths_of(Kernel)};
}

}  // namespace

const EmulatedKernel* emulated_kernel(const char* name) {
    static const EmulatedKernel all[] = {
        kernel<chipmink_digest>("chipmink_digest"),   kernel<chipmink_compare>("chipmink_compare"),
        kernel<chipmink_compact>("chipmink_compact"), kernel<chipmink_gather>("chipmink_gather"),
        kernel<chipmink_adopt>("chipmink_adopt"),
        kernel<chipmink_confirm>("chipmink_confirm"), kernel<chipmink_release>("chipmink_release"),
    };
    for (const EmulatedKernel& found : all) {
        if (strcmp(found.name, name) == 0) return &found;
    }
    return nullptr;
}

// Runs a kernel at once, for tests of kernels alone. Returns whether there is one of this name.
extern "C" int emulated_launch(const char* name, unsigned grid, unsigned block, void** parameters) {
    const EmulatedKernel* found = emulated_kernel(name);
    if (found == nullptr) return 0;
    found->launch(grid, block, parameters);
    return 1;
}
