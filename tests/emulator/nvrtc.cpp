// A compiler of kernels that compiles nothing, for tests with driver.cpp: what it makes names the architecture.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <string>

namespace {
struct Program {
    std::string source, image, log;
};
uint64_t compiled = 0;
}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) {
    *major = 13;
    *minor = 0;
    return 0;
}

int nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return 0;
}

int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    Program* program = (Program*)handle;
    compiled += 1;
    if (getenv("EMULATED_NVRTC_FAILS") != nullptr || program->source.find("chipmink_digest(") == std::string::npos) {
        program->log = "chipmink.cu(1): error: emulated";
        return 6;
    }
    for (int i = 0; i < count; ++i) {
        if (strncmp(options[i], "--gpu-architecture=sm_", 22) == 0) {
            program->image = std::string("\x7f" "ELF") + options[i];
            return 0;
        }
    }
    program->log = "no architecture";
    return 5;
}

int nvrtcGetCUBINSize(void* program, size_t* len) {
    *len = ((Program*)program)->image.size();
    return 0;
}

int nvrtcGetCUBIN(void* program, char* into) {
    memcpy(into, ((Program*)program)->image.data(), ((Program*)program)->image.size());
    return 0;
}

int nvrtcGetProgramLogSize(void* program, size_t* len) {
    *len = ((Program*)program)->log.size() + 1;
    return 0;
}

int nvrtcGetProgramLog(void* program, char* into) {
    memcpy(into, ((Program*)program)->log.c_str(), ((Program*)program)->log.size() + 1);
    return 0;
}

int nvrtcDestroyProgram(void** program) {
    delete (Program*)*program;
    return 0;
}

uint64_t emulated_compiled() { return compiled; }

}  // extern "C"
