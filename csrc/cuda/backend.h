// The GPU's backend, on kernels and streams.
#pragma once

#include "core/backend.h"

namespace fastmlp::cuda {

Backend& backend();

}  // namespace fastmlp::cuda
