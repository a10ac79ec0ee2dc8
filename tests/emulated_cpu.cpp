// The CPU backend with an emulated instruction set, for tests/emulated.py.
#include "cpu/backend.h"
#include "cpu/machine.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void* fastmlp_backend() { return &fastmlp::cpu::backend(); }
EXPORTED void fastmlp_set_num_threads(int n) { fastmlp::cpu::set_num_threads(n); }
