// The one place where the backend meets the CUDA runtime, or the emulator that stands in for it
// where its logic is tested without a GPU (emulator.h).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(FASTMLP_EMULATE_CUDA)
#include "cuda/emulator.h"
#else
#include <cuda_runtime.h>

#define FASTMLP_DEVICE __device__
// A parameter that every thread reads where it lies, without a copy of its own.
#define FASTMLP_PARAMETER const __grid_constant__
#define FASTMLP_SHARED(type, name, size) __shared__ type name[size]
#endif

namespace fastmlp::cuda {

constexpr int threads = 256;  // of every block
constexpr int warp = 32;

#if !defined(FASTMLP_EMULATE_CUDA)

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

using Stream = cudaStream_t;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, Stream stream,
            const Arguments&... arguments) {
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
  check(cudaGetLastError(), "launch");
}

inline void read(void* host, const void* device, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "copy to the host");
  check(cudaStreamSynchronize(stream), "copy to the host");
}

// Bytes that lie on the device for good.
class DeviceCopy {
 public:
  DeviceCopy(const void* host, std::size_t bytes) {
    check(cudaMalloc(&data_, bytes), "memory for a program");
    const cudaError_t status = cudaMemcpy(data_, host, bytes, cudaMemcpyHostToDevice);
    if (status != cudaSuccess) cudaFree(data_);
    check(status, "copy of a program");
  }
  ~DeviceCopy() { cudaFree(data_); }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;
  const void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

// A sequence of launches, captured once and replayed.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (instance_) cudaGraphExecDestroy(instance_);
  }

  // enqueue(stream) makes the launches. They are captured on a stream of their own, since the
  // caller's may be the default one, which cannot be captured.
  template <class F>
  void capture(F&& enqueue) {
    Stream stream;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    cudaGraph_t graph = nullptr;
    cudaError_t status = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (status == cudaSuccess) {
      try {
        enqueue(stream);
      } catch (...) {
        cudaStreamEndCapture(stream, &graph);
        if (graph) cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
        throw;
      }
      status = cudaStreamEndCapture(stream, &graph);
    }
    cudaStreamDestroy(stream);
    check(status, "capture of a graph");
    if (instance_) cudaGraphExecDestroy(std::exchange(instance_, nullptr));
    status = cudaGraphInstantiate(&instance_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "a graph");
  }
  explicit operator bool() const { return instance_; }
  void replay(Stream stream) { check(cudaGraphLaunch(instance_, stream), "launch of a graph"); }

 private:
  cudaGraphExec_t instance_ = nullptr;
};

#endif

}  // namespace fastmlp::cuda
