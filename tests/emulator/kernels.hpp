#pragma once

#include <stddef.h>

#include <utility>
#include <vector>

struct EmulatedKernel {
    const char* name;
    void (*launch)(unsigned grid, unsigned block, void** parameters);
    std::vector<size_t> parameter_lengths;
};

const EmulatedKernel* emulated_kernel(const char* name);
