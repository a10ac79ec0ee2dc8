// The CUDA backend: kernels on a stream, replayed as a graph. All that other parts may know of it.
#pragma once

#include "core/backend.h"

namespace fastmlp::cuda {

Backend& backend();

}  // namespace fastmlp::cuda
