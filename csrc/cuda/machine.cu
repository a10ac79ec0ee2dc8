#include "cuda/machine.h"

#include <cuda_runtime_api.h>

namespace fastmlp::cuda {
namespace {

// The architectures that this build has code for, ascending, as 10 times the compute capability of
// each (nvcc gives 100 times). The oldest is the least that a GPU needs.
constexpr int architectures[] = {__CUDA_ARCH_LIST__};
constexpr int least_capability = architectures[0] / 10;

std::string decimal(int tenths) {
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10);
}

// CUDA's own numbers are 1000 times the major version and 10 times the minor one.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int driver() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

// 10 times the compute capability of a GPU, 0 where it cannot be asked.
int capability(int device) {
  int major = 0, minor = 0;
  const bool known =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  return known ? 10 * major + minor : 0;
}

}  // namespace

std::string unavailable() {
  if (driver() == 0) return "there is no NVIDIA driver on this machine";
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();  // or the next kernel launch would report this one
  if (error == cudaErrorInsufficientDriver)
    return "the NVIDIA driver supports CUDA " + driver_version() + ", but this build needs " +
           runtime_version() + "; install a newer driver";
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    return "there is no NVIDIA GPU that this process may use (see CUDA_VISIBLE_DEVICES)";
  if (error != cudaSuccess)
    return std::string("the GPU cannot be used: ") + cudaGetErrorString(error);
  const int found = capability(current_device());
  if (found < least_capability)
    return "the GPU (" + device_name() + ") has compute capability " + decimal(found) +
           ", but this build needs " + decimal(least_capability) + " or more";
  return "";
}

std::string runtime_version() { return version_text(CUDART_VERSION); }

std::string driver_version() { return driver() ? version_text(driver()) : ""; }

int current_device() {
  int device = -1;
  return cudaGetDevice(&device) == cudaSuccess ? device : -1;
}

std::string device_name() {
  cudaDeviceProp properties;
  const int device = current_device();
  if (device < 0 || cudaGetDeviceProperties(&properties, device) != cudaSuccess) return "";
  return properties.name;
}

std::string compute_capability() {
  const int found = capability(current_device());
  return found ? decimal(found) : "";
}

}  // namespace fastmlp::cuda
