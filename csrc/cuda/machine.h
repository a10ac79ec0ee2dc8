// The GPU and its driver: all that the bindings see besides the backend itself. Nothing here makes
// a CUDA context, which would take a GPU's memory from whoever only asks.
#pragma once

#include <string>

namespace fastmlp::cuda {

// Why no kernel of this build can run here, in one sentence; empty where it can.
std::string unavailable();

// The versions of CUDA that this build has and that the driver supports, such as "13.0"; "" for no
// driver.
std::string runtime_version();
std::string driver_version();

// The current GPU: its number, less than 0 where there is none, and its name and capability, which
// are empty then.
int current_device();
std::string device_name();
std::string compute_capability();  // such as "9.0"

}  // namespace fastmlp::cuda
