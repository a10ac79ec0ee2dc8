// What a usable CUDA compiler can build: its headers are there, and its runtime links statically.
#include <cuda_runtime.h>

__global__ void nothing() {}

int main() {
  int count = 0;
  nothing<<<1, 1>>>();
  return cudaGetDeviceCount(&count);
}
