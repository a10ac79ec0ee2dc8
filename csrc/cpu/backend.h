// The CPU's backend, on threads, SIMD and BLAS.
#pragma once

#include "core/backend.h"

namespace fastmlp::cpu {

Backend& backend();

}  // namespace fastmlp::cpu
